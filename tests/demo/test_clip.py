"""The clip of README: drawn by a script, as MP4 or, without the extra, as GIF."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from internvl_gguf import Video
from internvl_gguf.video import read_clip

DRAW = [sys.executable, "-m", "internvl_gguf.demo.clip"]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.GIF"])
def test_a_circle_is_there_and_then_a_square(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    subprocess.run([*DRAW, path], check=True, capture_output=True)
    clip = read_clip(Video(path, frames=8))
    assert clip.notices == ()
    assert clip.info.duration == pytest.approx(4)
    reddish = [frame.image.getpixel((70, 70)) for frame in clip.frames]
    square = [frame.image.getpixel((250, 170)) for frame in clip.frames]
    assert all(isinstance(pixel, tuple) and pixel[0] > 180 and pixel[2] < 80 for pixel in reddish)
    assert [isinstance(pixel, tuple) and pixel[0] < 80 for pixel in square] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["clip.avi"], 1, "is neither an MP4 nor a GIF"),
        (["no/such/clip.gif"], 1, "cannot be written"),
        (["no/such/clip.mp4"], 1, "cannot be written"),
        ([], 2, "Usage: "),
    ],
)
def test_what_cannot_be_drawn_is_told(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    done = subprocess.run([*DRAW, *arguments], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code
    assert told in done.stderr
    assert len(done.stderr.splitlines()) <= 2
