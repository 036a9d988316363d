"""GIF, WebP and APNG as clips: the pictures that Pillow composes, with their times."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internvl_gguf.images.load import load_image
from internvl_gguf.types import Video
from internvl_gguf.video import ClipLimits, read_clip
from tests.support.clips import refusal
from tests.support.pictures import encoded, noise

DURATIONS = [100, 40, 500, 20, 100, 100, 1000]


def animation(kind: str, **options: Any) -> bytes:
    """Seven frames, most of them with changes in a corner only."""
    frames = [noise(0)]
    for number in range(1, len(DURATIONS)):
        frames.append(frames[-1].copy())
        frames[-1].paste((number * 30, 255 - number * 30, 0), (number * 4, number * 3, number * 4 + 20, 40))
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=DURATIONS, loop=0, **options)


def composed(data: bytes) -> list[bytes]:
    """The frames as Pillow gives them one after another."""
    picture = Image.open(io.BytesIO(data))
    found = []
    for number in range(getattr(picture, "n_frames", 1)):
        picture.seek(number)
        found.append(load_image(picture).tobytes())
    return found


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WebP", {"lossless": True}), ("PNG", {})])
def test_frames_and_times_of_an_animation(kind: str, options: dict[str, Any]) -> None:
    data = animation(kind, **options)
    expected = composed(data)
    found = read_clip(Video(data, frames=14))
    assert found.info.n_frames == len(expected) == 7
    assert found.info.duration == pytest.approx(sum(DURATIONS) / 1000)
    assert {frame.index for frame in found.frames} == set(range(7))
    for frame in found.frames:
        assert frame.image.tobytes() == expected[frame.index]
        assert frame.time == pytest.approx(sum(DURATIONS[: frame.index]) / 1000)


def test_a_part_of_an_animation() -> None:
    data = animation("GIF")
    found = read_clip(Video(data, frames=2, start=1))
    assert all(frame.index >= round(7 / 1.86) for frame in found.frames)
    assert [frame.image.tobytes() for frame in found.frames] == [composed(data)[frame.index] for frame in found.frames]


def test_transparency_is_laid_on_white_as_of_pictures() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    found = read_clip(Video(encoded(clear, "PNG", save_all=True, append_images=[clear.copy()]), frames=1))
    assert np.asarray(found.frames[0].image).min() == 255


def test_a_still_that_is_told_to_be_a_clip_is_one_frame() -> None:
    """And a GIF that is given as a picture stays one: its first frame."""
    still = encoded(noise(3), "PNG")
    assert [frame.index for frame in read_clip(Video(still, frames=3)).frames] == [0, 0, 0]
    assert load_image(animation("GIF")).tobytes() == composed(animation("GIF"))[0]


def test_a_picture_for_programs_without_animation_is_no_frame() -> None:
    frames = [noise(2), noise(3)]
    data = encoded(noise(1), "PNG", save_all=True, default_image=True, append_images=frames)
    found = read_clip(Video(data, frames=4))
    assert found.info.n_frames == 2
    assert {frame.index for frame in found.frames} == {0, 1}
    assert all(frame.image.tobytes() == frames[frame.index].tobytes() for frame in found.frames)


def test_an_animation_that_is_cut_off_has_its_first_frames() -> None:
    data = animation("PNG")
    found = read_clip(Video(data[:-300], frames=2))
    assert 0 < found.info.n_frames < 7
    assert found.info.n_frames + found.info.n_missing == 7
    assert "is cut off" in found.notices[-1]


def test_animations_that_cost_too_much_are_refused() -> None:
    """One with frames that are too large, and one of a million small frames."""
    assert "more than the limit" in refusal(animation("GIF"), limits=ClipLimits(pixels=100)).message
    frame = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"  # one pixel, whole: a damaged one would end the animation
    few = encoded(noise(1), "GIF")[:-1] + frame * 9
    assert read_clip(Video(few, frames=1)).info.n_frames == 10
    endless = few + frame * 2_000_000
    assert "took longer than the limit" in refusal(endless, limits=ClipLimits(seconds=1)).message
