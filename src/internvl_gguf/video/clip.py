"""Facts of a clip, and its frames, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ClipInfo:
    """Facts of a clip, known before the frames that are wanted are decoded.

    Attributes:
        name: its name in messages.
        container: kind of file: "mp4", "matroska", "avi", "GIF", "WebP" or "APNG".
        codec: FFmpeg's name of the coding of its pictures, such as "h264"; of an animation, its kind of file.
        size: (width, height) of its frames in pixels, upright.
        n_frames: number of frames.
        fps: average frames a second.
        duration: seconds, without what is missing.
        is_counted: whether `n_frames` was counted; otherwise it is estimated from the duration and the rate.
        n_missing: frames that the file announces and does not hold, since it is cut off; by the duration that is stated
            where the file has no index of them.
    """

    name: str
    container: str
    codec: str
    size: tuple[int, int]
    n_frames: int
    fps: float
    duration: float
    is_counted: bool = True
    n_missing: int = 0


@dataclass(frozen=True)
class ClipFrame:
    """A frame of a clip.

    Attributes:
        index: its number in the clip, from 0.
        time: seconds from the clip's first frame, by the file's own time stamps.
        image: the picture, upright, in RGB, transparency laid on white.
        stands_for: number of the frame that was asked for; another than `index` where that cannot be decoded.
        is_damaged: whether the decoder found damage that may show in it.
    """

    index: int
    time: float
    image: Image
    stands_for: int
    is_damaged: bool = False


@dataclass(frozen=True)
class Clip:
    """A clip with the frames that were taken of it.

    Attributes:
        info: facts of the clip.
        frames: the frames in order; one that was asked for twice is there twice.
        notices: what users should know of it, one line each.
    """

    info: ClipInfo
    frames: tuple[ClipFrame, ...]
    notices: tuple[str, ...] = ()
