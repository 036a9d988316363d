"""Pictures, and frames of clips, that were added to the next question."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.images.load import describe_source, load_image, take_source
from internvl_gguf.types import Picture
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.video.animated import is_animation

if TYPE_CHECKING:
    from PIL.Image import Image

    from internvl_gguf.images.tile_limits import TileLimits
    from internvl_gguf.tiling import Grid
    from internvl_gguf.types import Video
    from internvl_gguf.video import ClipInfo

_SMALL = (640, 640)


@dataclass(frozen=True, eq=False)
class AttachedClip:
    """A clip whose frames were added to the next question; one that is added twice is two.

    Attributes:
        video: the clip, as it is read.
        label: its name in the chat.
        info: facts of it.
        times: seconds of its frames.
        notices: what users should know of it, one line each.
    """

    video: Video
    label: str
    info: ClipInfo
    times: tuple[float, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Attachment:
    """A picture that was added to the next question.

    Attributes:
        picture: the picture as `Session.stream` takes it.
        label: its name in the chat.
        size: (width, height) in pixels.
        small: a small copy for the preview.
        digest: hash of its pixels.
        clip: the clip that it is a frame of.
        time: of a frame, seconds from the clip's beginning.
        is_animation: whether the picture is the first frame of an animation.
    """

    picture: Picture
    label: str
    size: tuple[int, int]
    small: Image
    digest: bytes
    clip: AttachedClip | None = None
    time: float = 0.0
    is_animation: bool = False

    def grid(self, limits: TileLimits, tile_size: int) -> Grid:
        """Return the grid it will be cut by if it fits the context."""
        return limits.narrowed(self.picture, {}).grid(self.size, tile_size)


def attach(source: Path | bytes | Picture, label: str | None = None) -> Attachment:
    """Read a picture that the user added.

    Args:
        source: its path, the bytes of its file, or a picture of an earlier question.
        label: its name in the chat; by default the name of its file.

    Raises:
        PictureError: it cannot be read.
    """
    picture = source if isinstance(source, Picture) else take_source(source, label)
    image = load_image(picture.source, name=picture.name)
    size, digest = picture.source_size or image.size, pixel_digest(image)
    image.thumbnail(_SMALL)
    if label is None:
        name = picture.name or picture.source
        label = Path(name).name if isinstance(name, (str, Path)) else describe_source(name)
    return Attachment(picture, safe_name(label), size, image, digest, is_animation=is_animation(picture.source))


def pixel_digest(image: Image) -> bytes:
    """Return the hash of a picture's pixels, 16 bytes."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def grid_text(columns: int, rows: int, *, has_thumbnail: bool, in_words: bool) -> str:
    """Return the grid as text: "4x3 tiles + thumbnail", or the same in words."""
    if columns * rows == 1:
        return "1 tile"
    cut = f"{columns} by {rows}" if in_words else f"{columns}x{rows}"
    return f"{cut} tiles{(' and a thumbnail' if in_words else ' + thumbnail') if has_thumbnail else ''}"
