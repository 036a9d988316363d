"""Decide which frames of a clip a `Video` asks for."""

from __future__ import annotations

from dataclasses import dataclass

from internvl_gguf.errors import VideoError
from internvl_gguf.types import Video
from internvl_gguf.video.clip import ClipInfo
from internvl_gguf.video.limits import ClipLimits
from internvl_gguf.video.recipe import DEFAULT_FRAMES, TRAINED_FRAMES, frame_indices, frame_range

_NO_LIMITS = ClipLimits()


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
    first, last = frame_range(info.n_frames, info.fps, video.start, video.end)
    if first > last:
        raise VideoError(
            f"Cannot use {info.name}: it lasts {info.duration:.2f} s, and start is {video.start or 0:g} s.",
            "Give a start before its end.",
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
    return FrameChoice(
        frame_indices(info.n_frames, info.fps, count, video.start, video.end), _notices(video, info, count)
    )


def _count(video: Video, info: ClipInfo, available: int, most: int) -> int:
    """Return how many frames are wanted of a range of `available` frames."""
    room = min(available, max(1, most))
    if video.fps is None:
        return room if video.frames == "auto" else video.frames or DEFAULT_FRAMES
    by_rate = max(1, round(available / info.fps * video.fps))
    return min(by_rate, room) if video.frames == "auto" else min(by_rate, video.frames or by_rate)


def _notices(video: Video, info: ClipInfo, count: int) -> tuple[str, ...]:
    found = []
    first, last = frame_range(info.n_frames, info.fps, video.start, video.end)
    available = last - first + 1
    if count > available:
        where = "has" if video.start is None and video.end is None else "has in that range"
        frames = "1 frame" if available == 1 else f"{available} frames"
        found.append(f"{info.name} {where} {frames}; of the {count} that are shown, some are the same.")
    if video.frames == "auto":
        found.append(f"{count} of the {info.n_frames:,} frames of {info.name} are shown.")
    if info.n_missing:
        found.append(f"{info.name} is cut off: its last {info.n_missing:,} frames are missing.")
    if not info.is_counted:
        found.append(f"The frames of {info.name} are numbered by time, since it is too large to count them.")
    return tuple(found)
