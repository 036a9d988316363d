"""The tiles and tokens of pictures as our server counts them, asked once for each picture and way to cut it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from internvl_gguf.chat.chat_model import PlannedCut
from internvl_gguf.chat.remote.faults import whole
from internvl_gguf.chat.remote.sent_picture import SentPicture
from internvl_gguf.tiling import Grid
from internvl_gguf.types import MessagePicture

CUTTING: Final = ("max_tiles", "min_tiles", "thumbnail", "layout")
"""The options that say how a picture is cut."""
_Key = tuple[bytes, tuple[Any, ...]]


@dataclass(frozen=True)
class MeasuredPicture:
    """A picture that a server measured alone.

    Attributes:
        cut: its grid and its tokens.
        around: positions that the prompt takes beside the picture.
    """

    cut: PlannedCut
    around: int


class MeasuredRoom:
    """What a server has said about pictures."""

    def __init__(self) -> None:
        self._found: dict[_Key, MeasuredPicture | None] = {}

    def of(self, digest: bytes, options: Mapping[str, Any]) -> MeasuredPicture | None:
        """Return what is known of a picture that is cut with these options."""
        return self._found.get(_key(digest, options))

    def has(self, digest: bytes, options: Mapping[str, Any]) -> bool:
        """Return whether it was asked about, with or without success."""
        return _key(digest, options) in self._found

    def take(self, digest: bytes, options: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        """Take the answer of a server about one picture; an answer that is none is remembered as nothing known."""
        self._found[_key(digest, options)] = _measured(document)

    def forget(self, pictures: Sequence[MessagePicture], options: Mapping[str, Any]) -> None:
        """Forget what was said of pictures that are cut with these options."""
        for picture in pictures:
            if isinstance(picture, SentPicture):
                self._found[_key(picture.digest, options)] = None

    def forget_unknown(self) -> None:
        """Forget which pictures a server said nothing about, so that it is asked again."""
        self._found = {key: found for key, found in self._found.items() if found is not None}

    def known(self, picture: MessagePicture, options: Mapping[str, Any]) -> MessagePicture:
        """Return a picture with the grid and tokens that are known of it, cut with these options."""
        if not isinstance(picture, SentPicture):
            return picture
        found = self.of(picture.digest, options)
        grid = found.cut.grid if found else Grid(0, 0, thumbnail=False)
        return replace(
            picture,
            grid=(grid.columns, grid.rows),
            has_thumbnail=grid.thumbnail,
            tokens=found.cut.tokens if found else None,
        )


def _measured(document: Mapping[str, Any]) -> MeasuredPicture | None:
    images, needed = document.get("images"), whole(document.get("input_tokens"))
    first = images[0] if isinstance(images, list) and len(images) == 1 else None
    if not isinstance(first, dict) or needed is None:
        return None
    tokens, grid = whole(first.get("tokens")), first.get("grid")
    sides = [whole(side) for side in grid] if isinstance(grid, list) else []
    if tokens is None or len(sides) != 2 or not sides[0] or not sides[1] or tokens > needed:
        return None
    return MeasuredPicture(
        PlannedCut(Grid(sides[0], sides[1], first.get("thumbnail") is True), tokens), needed - tokens
    )


def _key(digest: bytes, options: Mapping[str, Any]) -> _Key:
    return digest, tuple(options.get(name) for name in CUTTING)
