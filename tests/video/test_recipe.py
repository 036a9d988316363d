"""The frames that are taken are the model card's, and a `Video` says which are wanted."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from internvl_gguf.errors import InvalidRequestError, VideoError
from internvl_gguf.types import Video
from internvl_gguf.video import ClipInfo, ClipLimits, choose_frames, frame_indices


def get_index(
    bound: tuple[float, float] | None, fps: float, max_frame: int, first_idx: int = 0, num_segments: int = 32
) -> list[int]:
    """The recipe, as it is written on OpenGVLab's card of InternVL3."""
    if bound:
        start, end = bound[0], bound[1]
    else:
        start, end = -100000, 100000
    start_idx = max(first_idx, round(start * fps))
    end_idx = min(round(end * fps), max_frame)
    seg_size = float(end_idx - start_idx) / num_segments
    return [int(start_idx + (seg_size / 2) + np.round(seg_size * idx)) for idx in range(num_segments)]


def test_2000_random_clips_give_the_cards_frames() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        n_frames = rng.choice((1, 2, 3, rng.randrange(1, 100), rng.randrange(1, 500_000)))
        fps = rng.choice((25.0, 24000 / 1001, 30000 / 1001, 59.94, 1.0, 12.5, rng.uniform(0.1, 240)))
        frames = rng.choice((1, 2, 8, 16, 32, 64, rng.randrange(1, 200)))
        seconds = n_frames / fps
        start = rng.uniform(0, 1.2 * seconds)
        bound = rng.choice((None, (start, start + rng.uniform(0, seconds)), (round(start), round(start) + 3)))
        found = frame_indices(n_frames, fps, frames, *(bound or ()))
        assert list(found) == get_index(bound, fps, n_frames - 1, 0, frames), (n_frames, fps, frames, bound)


def test_one_bound_leaves_the_other_open() -> None:
    assert list(frame_indices(250, 25, 4, start=5)) == get_index((5, 1e5), 25, 249, 0, 4)
    assert list(frame_indices(250, 25, 4, end=5)) == get_index((-1e5, 5), 25, 249, 0, 4)


def test_a_range_that_ends_before_its_start_has_no_frames() -> None:
    with pytest.raises(InvalidRequestError, match="end is 1"):
        frame_indices(100, 25.0, start=3, end=1)


@pytest.mark.parametrize(
    "wrong", [{"n_frames": 0}, {"fps": 0}, {"fps": float("nan")}, {"frames": 0}, {"frames": 1.5}, {"fps": "25"}]
)
def test_what_is_no_clip_has_no_frames(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        frame_indices(**{"n_frames": 10, "fps": 25.0, **wrong})


@pytest.mark.parametrize(
    ("wishes", "part"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"frames": "many"}, "frames is 'many'"),
        ({"frames": True}, "frames is True"),
        ({"frames": 2.5}, "frames is 2.5"),
        ({"start": -1}, "start is -1"),
        ({"start": "1"}, "start is '1'"),
        ({"end": 0}, "end is 0"),
        ({"start": 5, "end": 5}, "end is 5"),
        ({"start": 9, "end": 3}, "Give an end after the start, 9."),
        ({"end": float("nan")}, "end is nan"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("inf")}, "fps is inf"),
        ({"num_segments": 8}, "It is called frames here"),
        ({"bound": (1, 2)}, "Give it as start and end"),
    ],
)
def test_a_wish_that_cannot_be_meant_is_refused_at_once(wishes: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Video("clip.mp4", **wishes)
    assert part in str(caught.value)


def info(n_frames: int = 250, fps: float = 25.0, **facts: Any) -> ClipInfo:
    return ClipInfo("clip.mp4", "mp4", "h264", (64, 48), n_frames, fps, n_frames / fps, **facts)


def test_eight_frames_are_taken_as_on_the_card() -> None:
    found = choose_frames(Video("clip.mp4"), info())
    assert list(found.indices) == get_index(None, 25.0, 249, 0, 8)
    assert found.notices == ()


@pytest.mark.parametrize(
    ("wishes", "most", "count"),
    [
        ({"fps": 1}, None, 10),
        ({"fps": 2, "start": 4}, None, 12),
        ({"fps": 2, "end": 5}, None, 10),
        ({"fps": 0.01}, None, 1),
        ({"fps": 100}, None, 1000),
        ({"fps": 2, "frames": 5}, None, 5),
        ({"fps": 2, "frames": 64}, None, 20),
        ({"fps": 2, "frames": "auto"}, 7, 7),
        ({"fps": 1, "frames": "auto"}, 64, 10),
        ({"frames": "auto"}, 64, 64),
        ({"frames": "auto"}, None, 32),
        ({"frames": "auto", "end": 0.5}, 64, 13),
        ({"frames": 12}, 3, 12),
    ],
)
def test_the_number_of_frames(wishes: dict[str, Any], most: int | None, count: int) -> None:
    """A rate counts the seconds of the range; "auto" takes what there is room for, and not more than there are."""
    video = Video("clip.mp4", **wishes)
    found = choose_frames(video, info(), most=most)
    assert found.indices == frame_indices(250, 25.0, count, video.start, video.end)
    assert bool(found.notices) == (video.frames == "auto" or count > 250)


def test_more_frames_than_there_are_repeat_as_on_the_card() -> None:
    found = choose_frames(Video("clip.mp4", frames=8), info(3))
    assert list(found.indices) == get_index(None, 25.0, 2, 0, 8)
    assert found.notices == ("clip.mp4 has 3 frames; of the 8 that are shown, some are the same.",)
    one = choose_frames(Video("clip.mp4", frames=2, start=1, end=1.01), info())
    assert set(one.indices) == {25}
    assert "in that range 1 frame;" in one.notices[0]


def test_a_start_after_the_end_of_the_clip_is_refused() -> None:
    with pytest.raises(VideoError) as caught:
        choose_frames(Video("clip.mp4", start=12), info())
    assert str(caught.value) == (
        "Cannot use clip.mp4: it lasts 10.00 s, and start is 12 s. Give a start before its end."
    )


def test_an_end_after_that_of_the_clip_is_its_end() -> None:
    assert choose_frames(Video("clip.mp4", end=99), info()).indices == frame_indices(250, 25.0)


def test_frames_without_end_are_refused() -> None:
    with pytest.raises(VideoError, match="more than the limit of 100"):
        choose_frames(Video("clip.mp4", frames=101), info(), limits=ClipLimits(frames=100))


def test_what_is_missing_of_a_clip_is_said() -> None:
    assert choose_frames(Video("a"), info(n_missing=3)).notices == (
        "clip.mp4 is cut off: its last 3 frames are missing.",
    )
