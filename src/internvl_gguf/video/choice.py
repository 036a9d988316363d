"""Decide which frames of a clip a `Video` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from internvl_gguf.errors import VideoError
from internvl_gguf.types import Video
from internvl_gguf.video.clip import ClipInfo
from internvl_gguf.video.limits import ClipLimits
from internvl_gguf.video.recipe import DEFAULT_FRAMES, TRAINED_FRAMES, frame_indices, frame_range

_NO_LIMITS = ClipLimits()
_WITHOUT_INDEX = ("matroska", "avi")


@dataclass(frozen=True)
class FrameChoice:
    """The frames of a clip to show.

    Attributes:
        indices: their numbers from 0, in order; a number may be there several times.
        notices: what users should know of the choice, one line each.
    """

    indices: tuple[int, ...]
    notices: tuple[str, ...] = ()


def choose_frames(
    video: Video, info: ClipInfo, *, most: int | None = None, limits: ClipLimits = _NO_LIMITS
) -> FrameChoice:
    """Return the frames of a clip that are asked for.

    With `Video.fps` their number is the seconds of the range times that rate, rounded, 1 at least; which frames they
    are says the same recipe. With "auto" it is `most`, and not more than there are.

    Args:
        video: what is wanted.
        info: the clip.
        most: most frames that "auto" may be, as the context has room for them, 1 or more; None for the 32 of the
            model's training.
        limits: bounds on the number of frames.

    Raises:
        VideoError: the range begins after the clip, or the frames are more than the limit.
    """
    start = video.start
    first, last = frame_range(info.n_frames, info.fps, start, video.end)
    if first > last and start is not None and start < info.duration:  # of uneven frames the rate leads beyond the last
        first, start = last, last / info.fps
    if first > last:
        lasts = (
            f"it is cut off, only its first {info.duration:.1f} s are there"
            if info.n_missing
            else f"it lasts {info.duration:.2f} s"
        )
        raise VideoError(
            f"Cannot use {info.name}: {lasts}, and start is {video.start or 0:g} s.", "Give a start before its end."
        )
    area = info.size[0] * info.size[1]
    held = max(1, limits.all_pixels // area)
    count = _count(video, info, last - first + 1, min(held, TRAINED_FRAMES if most is None else most))
    if count > limits.frames:
        raise VideoError(
            f"Cannot use {info.name}: {count:,} frames of it are wanted, more than the limit of {limits.frames:,}.",
            "Ask for fewer frames, or for a shorter range (start, end).",
        )
    if count > held:
        raise VideoError(
            f"Cannot use {info.name}: {count:,} frames of it have {count * area / 1e6:,.0f} megapixels together, more "
            f"than the limit of {limits.all_pixels / 1e6:,.0f}.",
            "Ask for fewer frames, or save it at a lower resolution.",
        )
    indices = frame_indices(info.n_frames, info.fps, count, start, video.end)
    return FrameChoice(indices, _notices(video, info, indices, last - first + 1))


def _count(video: Video, info: ClipInfo, available: int, most: int) -> int:
    """Return how many frames are wanted of a range of `available` frames."""
    room = min(available, max(1, most))
    if video.fps is None:
        return room if video.frames == "auto" else video.frames or DEFAULT_FRAMES
    by_rate = max(1, round(available / info.fps * video.fps))
    return min(by_rate, room) if video.frames == "auto" else min(by_rate, video.frames or by_rate)


def _notices(video: Video, info: ClipInfo, indices: Sequence[int], available: int) -> tuple[str, ...]:
    """Return what users should know of a choice among the `available` frames of a range."""
    found = []
    count, different = len(indices), len(set(indices))
    if count > available:
        where = "has" if video.start is None and video.end is None else "has in that range"
        frames = "1 frame" if available == 1 else f"{available} frames"
        found.append(f"{info.name} {where} {frames}; of the {count} that are shown, some are the same.")
    elif different < count:  # segments of hardly more than a frame, whose middles are rounded to the same one
        found.append(f"Of the {count} frames of {info.name} that are shown, {different} are different.")
    if video.frames == "auto" and info.n_frames == 1:
        found.append(f"{info.name} has 1 frame, which is shown.")
    elif video.frames == "auto" and different == count:
        is_are = "is" if count == 1 else "are"
        found.append(f"{count} of the {info.n_frames:,} frames of {info.name} {is_are} shown.")
    if info.n_missing:
        found.append(f"{info.name} is cut off: {_missing(info)} missing.")
    if not info.is_counted:
        found.append(f"The frames of {info.name} are numbered by time, since it is too large to count them.")
    return tuple(found)


def _missing(info: ClipInfo) -> str:
    """Return the words for frames that are missing; without an index of them, their number is that of lost time."""
    about = "about " if info.container in _WITHOUT_INDEX else ""
    if info.n_missing == 1:
        return f"{about}its last frame is"
    return f"{about}{info.n_missing:,} frames at its end are" if about else f"its last {info.n_missing:,} frames are"
