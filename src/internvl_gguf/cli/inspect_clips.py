"""The clips of `internvl inspect`: which frames the model sees, at which times, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.cli.output import print_fact, print_lines, print_table
from internvl_gguf.config import PictureOptions
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.tiling import Grid
from internvl_gguf.types import Video
from internvl_gguf.utils.clip_times import format_time
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from PIL.Image import Image

    from internvl_gguf.video import ClipFrame, ClipInfo, ClipReader

FRAME_ALLOWANCE: Final = 10
"""Positions of a frame's place in the text, at most: "Frame123: <img></img>" and a line break."""
TIMED_ALLOWANCE: Final = 18
"""The same with its time: "Frame123 (1234.5 s): ..."; each digit is a token."""
CLIP_ALLOWANCE: Final = 6
"""Positions of the line "Video-12:" before the frames of each of several clips."""
_MOST_LISTED: Final = 40  # frames that are listed one by one
_CONTAINERS: Final = {"mp4": "MP4", "matroska": "Matroska", "avi": "AVI"}


@dataclass(frozen=True)
class OpenedClip:
    """A clip that is open, none of its frames decoded but the first.

    Attributes:
        video: the clip, and which frames of it are wanted.
        reader: gives them.
    """

    video: Video
    reader: ClipReader


@dataclass(frozen=True)
class InspectedClip:
    """A clip with the frames that the model sees of it.

    Attributes:
        info: its facts.
        frames: the frames.
        limits: how a frame may be cut.
        notices: what users should know of it, one line each.
    """

    info: ClipInfo
    frames: tuple[ClipFrame, ...]
    limits: TileLimits
    notices: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """A name for each frame."""
        from internvl_gguf.session.clips import frame_name

        return [frame_name(self.info.name, frame.time) for frame in self.frames]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each frame."""
        return [frame.image.size for frame in self.frames]


def open_clip_of(video: Video, opened: ExitStack) -> OpenedClip:
    """Open a clip, and refuse it where its frames could not be shown.

    Args:
        video: the clip.
        opened: closes it.

    Raises:
        VideoError: it cannot be read, or has not the frames that are wanted.
    """
    from internvl_gguf.video import choose_frames, open_clip

    reader = opened.enter_context(open_clip(video))
    choose_frames(video, reader.info)
    return OpenedClip(video, reader)


def read_frames(clip: OpenedClip, pictures: PictureOptions, most: int) -> InspectedClip:
    """Decode the frames of a clip that the model sees.

    Args:
        clip: the clip.
        pictures: how frames are cut: into one tile, unless `max_tiles` is given.
        most: most frames that "auto" may be.

    Raises:
        VideoError: it is damaged.
    """
    from internvl_gguf.video import choose_frames
    from internvl_gguf.video.reader import damage_notices

    choice = choose_frames(clip.video, clip.reader.info, most=most)
    frames = tuple(clip.reader.frames(choice.indices))
    notices = (*choice.notices, *damage_notices(clip.reader, frames))
    return InspectedClip(clip.reader.info, frames, frame_limits(pictures), notices)


def frame_limits(pictures: PictureOptions) -> TileLimits:
    """Return how a frame may be cut: into one tile, unless `max_tiles` is given."""
    return TileLimits.of(replace(pictures, layout="frames"))


def frame_allowance(pictures: PictureOptions) -> int:
    """Return the positions of a frame's place in the text, at most."""
    return TIMED_ALLOWANCE if pictures.frame_times else FRAME_ALLOWANCE


def print_clip(clip: InspectedClip, width: int) -> None:
    """Print the facts of a clip.

    Args:
        clip: the clip.
        width: columns of labels of facts.
    """
    info = clip.info
    print_lines(f"{info.name}: {_kind(info)}, {info.size[0]} x {info.size[1]} pixels", hang=4)
    about = "" if info.is_counted else "about "
    rate = f"{info.fps:.2f}".rstrip("0").rstrip(".")
    print_fact(
        "  clip", f"{about}{counted(info.n_frames, 'frame')}, {rate} a second, {format_time(info.duration)}", width
    )
    first, last = clip.frames[0], clip.frames[-1]
    shown = f"{counted(len(clip.frames), 'frame')}, from {format_time(first.time)} to {format_time(last.time)}"
    print_fact("  shown", shown, width)


def print_frames(clip: InspectedClip, grids: Sequence[Grid]) -> None:
    """Print the frames of a clip, unless they are many.

    Args:
        clip: the clip.
        grids: how each frame is cut.
    """
    if len(clip.frames) > _MOST_LISTED:
        print_lines(f"  {len(clip.frames)} frames, more than the {_MOST_LISTED} that are listed; --json has them all")
        return
    rows: list[tuple[str, ...]] = [
        (f"  Frame{number}", str(frame.index), format_time(frame.time), _tiles(grid))
        for number, (frame, grid) in enumerate(zip(clip.frames, grids, strict=True), 1)
    ]
    print_table(("  frame", "number", "time", "tiles"), rows)


def _kind(info: ClipInfo) -> str:
    container = _CONTAINERS.get(info.container, info.container)
    return container if info.codec == info.container else f"{container} ({info.codec})"


def _tiles(grid: Grid) -> str:
    return "1" if grid.tiles == 1 else f"{grid.columns} x {grid.rows}{' + 1' if grid.thumbnail else ''}"


def clip_document(clip: InspectedClip, first: int) -> dict[str, Any]:
    """Return what `--json` says of a clip.

    Args:
        clip: the clip.
        first: number of its first frame among the pictures of the document, from 0.
    """
    info = clip.info
    frames = [
        {"image": number, "index": frame.index, "time": round(frame.time, 3)}
        for number, frame in enumerate(clip.frames, first)
    ]
    return {
        "name": info.name,
        "container": info.container,
        "codec": info.codec,
        "width": info.size[0],
        "height": info.size[1],
        "n_frames": info.n_frames,
        "is_counted": info.is_counted,
        "n_missing": info.n_missing,
        "fps": round(info.fps, 4),
        "duration": round(info.duration, 3),
        "frames": frames,
    }


def draw_clip(clip: InspectedClip, grids: Sequence[Grid]) -> Image:
    """Return a sheet of the frames of a clip as the model sees them."""
    from internvl_gguf.images.contact_sheet import SheetFrame, draw_sheet

    return draw_sheet(
        [
            SheetFrame(frame.image, grid, f"Frame{number}", format_time(frame.time))
            for number, (frame, grid) in enumerate(zip(clip.frames, grids, strict=True), 1)
        ]
    )
