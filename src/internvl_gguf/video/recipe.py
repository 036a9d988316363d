"""The frames of a clip that the model sees: the middles of equal segments, as the model card takes them.

The recipe is `get_index` of OpenGVLab's model card of InternVL3 and of the InternVL documents. The card calls it with 8
segments; the model was trained with 8 to 32 frames.
"""

from __future__ import annotations

import math
from typing import Final

from internvl_gguf.utils import arguments

DEFAULT_FRAMES: Final = 8
"""Frames of a clip where nothing else is asked for; the card's example has as many."""

TRAINED_FRAMES: Final = 32
"""Most frames of a clip in the model's training."""

_NO_START, _NO_END = -1e5, 1e5  # seconds; the card's bounds of a clip without bounds


def frame_indices(
    n_frames: int, fps: float, frames: int = DEFAULT_FRAMES, start: float | None = None, end: float | None = None
) -> tuple[int, ...]:
    """Return the numbers of the frames that the model card shows the model.

    The range from `start` to `end` is cut into `frames` equal segments, and the middle of each is taken. A clip or a
    range of fewer frames gives some of them several times. A start beyond the clip gives numbers beyond it, as the
    card's function does; `choose_frames` refuses it.

    Args:
        n_frames: frames of the clip, 1 or more.
        fps: its average rate in frames a second.
        frames: number of frames to take, 1 or more.
        start: seconds; None for the beginning.
        end: seconds; None for the end.

    Returns:
        Numbers of frames from 0, in order.

    Raises:
        InvalidRequestError: no frames, a rate that is not above 0, or an end that is not after the start.
    """
    for name, value in (("n_frames", n_frames), ("frames", frames)):
        if arguments.whole(name, value) < 1:
            raise arguments.wrong(name, value, "Give 1 or more.")
    if not 0 < arguments.number("fps", fps) < math.inf:
        raise arguments.wrong("fps", fps, "Give a number above 0.")
    arguments.ascending("start", start, "end", end)
    first, last = frame_range(n_frames, fps, start, end)
    segment = (last - first) / frames
    return tuple(int(first + segment / 2 + round(segment * index)) for index in range(frames))


def frame_range(n_frames: int, fps: float, start: float | None, end: float | None) -> tuple[int, int]:
    """Return the first and the last frame of a range in seconds, as the card rounds them.

    Args:
        n_frames: frames of the clip.
        fps: its average rate.
        start: seconds; None for the beginning.
        end: seconds; None for the end.
    """
    first = max(0, round((_NO_START if start is None else start) * fps))
    return first, min(round((_NO_END if end is None else end) * fps), n_frames - 1)
