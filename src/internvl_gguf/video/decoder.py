"""The interface of a decoder to the process that decodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


class ClipRefusedError(Exception):
    """A clip that cannot be used.

    Args:
        reason: what is wrong with it, to follow its name and a colon.
        hint: what to do, a sentence.
    """

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class RawFrame:
    """A frame as it is sent to the parent.

    Attributes:
        index: its number in the clip.
        stands_for: the number that was asked for.
        time: seconds from the first frame.
        size: (width, height) as stored, before it is turned.
        mode: layout of a pixel, 3 or 4 bytes.
        turn: name of Pillow's `Transpose` that makes it upright; "" for none.
        pixels: the rows without gaps.
        is_damaged: whether damage may show in it.
    """

    index: int
    stands_for: int
    time: float
    size: tuple[int, int]
    mode: Literal["RGB", "RGBA"]
    turn: str
    pixels: bytes
    is_damaged: bool = False


class Decoder(Protocol):
    """An open clip.

    Attributes:
        found_damage: whether something on the way to the frames that were taken could not be decoded as it should.
    """

    found_damage: bool

    def facts(self) -> Mapping[str, Any]:
        """Return the fields of `ClipInfo` but for its name and container."""
        ...

    def frames(self, wanted: Sequence[int]) -> Iterator[RawFrame]:
        """Yield a frame for each of these numbers, which ascend and are in the clip."""
        ...


def check_frame_size(width: int, height: int, most: int) -> None:
    """Refuse a frame by its size.

    Raises:
        ClipRefusedError: it has no pixels, or more than `most`.
    """
    if width < 1 or height < 1:
        raise ClipRefusedError(f"its frames have no pixels ({width} x {height})", "Export or download it again.")
    if width * height > most:
        raise ClipRefusedError(
            f"its frames of {width} x {height} are more than the limit of {most / 1e6:,.1f} megapixels",
            "Scale it down first.",
        )
