"""The process that decodes clips: its rights, its end, and what the parent does with what it says."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.errors import InvalidRequestError, VideoError
from internvl_gguf.types import Video
from internvl_gguf.video import ClipFrame, ClipLimits, open_clip, read_clip, reader
from internvl_gguf.video.stop import ClipStop
from tests.support.clips import clip, refusal

INFO = {
    "codec": "h264",
    "size": [2, 2],
    "n_frames": 9,
    "fps": 25.0,
    "duration": 1.0,
    "is_counted": True,
    "n_missing": 0,
}
FRAME = {"index": 4, "stands_for": 4, "time": 0.1, "size": [2, 2], "mode": "RGB", "turn": ""}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")


@POSIX
def test_the_process_can_open_nothing() -> None:
    script = """
import os, socket, subprocess, threading
from internvl_gguf.video.confinement import confine
confine(2**31, 10)
def fails(action):
    try: action()
    except OSError: return True
print(fails(lambda: open("/etc/passwd")), fails(lambda: socket.socket()), fails(os.pipe), fails(lambda: open("x", "w")))
threads = [threading.Thread(target=len, args=("",)) for _ in range(4)]
[each.start() for each in threads]
try: bytearray(2**31)
except MemoryError: print("bounded")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    opened, *memory = result.stdout.splitlines()
    assert opened == "True True True True"
    assert memory == ["bounded"] or sys.platform == "darwin"


def test_a_folder_with_modules_of_the_same_name_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m` looks for modules in the current folder first, which is where downloads lie."""
    (tmp_path / "av.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    assert len(read_clip(Video(clip(frames=5))).frames) == 8


def test_a_process_without_memory_refuses_the_clip() -> None:
    message = refusal(clip(), limits=ClipLimits(memory=1)).message
    assert "memory" in message or "its decoder" in message


def test_a_process_that_is_killed_takes_nothing_along() -> None:
    with open_clip(Video(clip(), name="film")) as opened:
        assert len(list(opened.frames((0, 20)))) == 2
        opened._process.kill()
        opened._process.wait()
        with pytest.raises(VideoError) as caught:
            list(opened.frames((39,)))
    assert "Cannot use film: its decoder was killed" in caught.value.message


def test_a_reader_leaves_no_process() -> None:
    with open_clip(Video(clip())) as opened:
        pass
    assert opened._process.returncode is not None
    opened.close()


def test_another_thread_ends_the_process_of_a_clip() -> None:
    stop = ClipStop()
    with open_clip(Video(clip()), stop=stop) as opened:
        frames = opened.frames(range(40))
        next(frames)
        stop.set()
        with pytest.raises(VideoError, match="its decoder"):
            list(frames)
    with pytest.raises(VideoError, match="its decoder"):
        open_clip(Video(clip()), stop=stop)


def test_frames_are_bounded_together() -> None:
    """All of them are held until they are cut."""
    data, limits = clip(), ClipLimits(all_pixels=4 * 64 * 48)
    assert len(read_clip(Video(data, frames=4), limits=limits).frames) == 4
    assert "5 frames of it have 0 megapixels together" in refusal(data, limits=limits, frames=5).message
    assert len(read_clip(Video(data, frames="auto"), limits=limits).frames) == 4


def test_frames_that_nobody_takes_end_the_process() -> None:
    """A later request would be answered with them."""
    with open_clip(Video(clip())) as opened:
        next(opened.frames((0, 20, 39)))
        assert opened._process.returncode is not None


@pytest.mark.parametrize("indices", [(3, 1), (-1,), (40,)])
def test_numbers_that_are_not_in_the_clip_are_refused(indices: tuple[int, ...]) -> None:
    with open_clip(Video(clip())) as opened, pytest.raises(InvalidRequestError, match="ascending numbers from 0 to 39"):
        list(opened.frames(indices))


def test_numbers_are_whole() -> None:
    with open_clip(Video(clip())) as opened, pytest.raises(InvalidRequestError, match="indices is"):
        list(opened.frames([1.5]))  # type: ignore[list-item]


def message(value: Any, payload: bytes = b"") -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<IQ", len(text), len(payload)) + text + payload


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"no message at all, but long enough to be one",
        struct.pack("<IQ", 2**31, 0),
        struct.pack("<IQ", 2, 2**60) + b"{}",
        struct.pack("<IQ", 3, 0) + b"{}}",
        message([1]),
        message({"read": [-1, 5]}),
        message({"read": [0, 2**40]}),
        message({"read": "all"}),
        message({"info": None}),
        message({"info": {**INFO, "size": [0, 2]}}),
        message({"info": {**INFO, "fps": "nan"}}),
        message({"info": {**INFO, "n_frames": -1}}),
        message({"info": {**INFO, "n_frames": 1e400}}),
        message({"info": INFO}) + message({"frame": None}, bytes(12)),
        message({"info": INFO}) + message({"frame": FRAME}, bytes(11)),
        message({"info": INFO}) + message({"frame": {**FRAME, "size": [2**40, 2]}}, bytes(12)),
        message({"info": INFO}) + message({"frame": {**FRAME, "mode": "I;16"}}, bytes(12)),
        message({"info": INFO}) + message({"frame": {**FRAME, "turn": "__class__"}}, bytes(12)),
        message({"info": INFO}) + message({"frame": {**FRAME, "time": "x"}}, bytes(12)),
        message({"refused": "\x1b[31mred\n" * 500, "hint": None}),
    ],
    ids=lambda said: said[12:60].decode("ascii", "replace"),
)
def test_a_process_that_was_taken_over_gets_nowhere(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it sends is a clip that cannot be used, in two lines that no terminal interprets."""
    script = f"import sys; sys.stdout.buffer.write({said!r}); sys.stdout.flush(); sys.stdin.read()"
    monkeypatch.setattr(reader, "_COMMAND", (sys.executable, "-c", script))
    with pytest.raises(VideoError) as caught:
        read_clip(Video(clip(frames=2)), limits=ClipLimits(seconds=5))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


def test_a_good_process_of_another_make_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the messages above bad is the part that differs from these."""
    said = message({"info": INFO}) + message({"frame": FRAME}, bytes(12)) + message({"done": True})
    script = f"import sys; sys.stdout.buffer.write({said!r}); sys.stdout.flush(); sys.stdin.read()"
    monkeypatch.setattr(reader, "_COMMAND", (sys.executable, "-c", script))
    (frame,) = read_clip(Video(clip(frames=2), frames=1)).frames
    assert frame.image.tobytes() == bytes(12)


# Damage


def damaged(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """One of the ways in which files break, and in which they are broken on purpose."""
    data, at, way = bytearray(whole), rng.randrange(len(whole)), rng.randrange(6)
    index = max(0, whole.find(b"moov"))
    if way == 0:
        for _ in range(rng.choice((1, 5, 50))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == 1:  # in the index, where sizes and counts stand
        for _ in range(rng.choice((1, 2, 4))):
            data[rng.randrange(index, len(data))] = rng.randrange(256)
    elif way == 2:
        del data[at:]
    elif way == 3:
        data[at:] = other[rng.randrange(len(other)) :]
    elif way == 4:
        place = rng.randrange(index, len(data))
        data[place : place + 4] = struct.pack(">I", rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)))
    else:
        del data[at : at + rng.randrange(1, 200)]
    return bytes(data)


def survive(runs: int, seed: int) -> int:
    """Read damaged clips; return how many gave frames. Each gives frames within its limits, or a refusal."""
    rng = random.Random(seed)
    whole = [
        clip(options={"bf": "2"}),
        clip("matroska"),
        clip("avi", "mpeg4"),
        clip("webm", "libvpx-vp9"),
        clip(container_options={"movflags": "frag_keyframe+empty_moov"}),
    ]
    read = 0
    for run in range(runs):
        data = damaged(rng, rng.choice(whole), rng.choice(whole))
        found, said = _read(data)
        assert said.isprintable(), (seed, run)
        assert "took longer" not in said, (seed, run)
        read += bool(found)
        assert all(frame.image.mode == "RGB" for frame in found), (seed, run)
        assert all(frame.image.width * frame.image.height <= 10**6 for frame in found), (seed, run)
    return read


def _read(data: bytes) -> tuple[tuple[ClipFrame, ...], str]:
    """The frames of a clip, or what is said against it."""
    try:
        return read_clip(Video(data, frames=4), limits=ClipLimits(seconds=60, memory=2**30, pixels=10**6)).frames, ""
    except VideoError as error:
        return (), error.message


def test_damaged_clips_end_in_frames_or_a_refusal() -> None:
    assert 0 < survive(24, seed=1) < 24


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2, 7))
def test_500_damaged_clips_end_in_frames_or_a_refusal(seed: int) -> None:
    assert 0 < survive(100, seed) < 100


def test_a_clip_that_says_to_be_enormous_is_refused() -> None:
    """The file says 64 x 48, and each keyframe of VP8 once more, here 16,383 x 16,383."""
    data = clip("webm", "libvpx", frames=2)
    start = b"\x9d\x01\x2a" + struct.pack("<HH", 64, 48)
    assert start in data
    error = refusal(data.replace(start, start[:3] + struct.pack("<HH", 0x3FFF, 0x3FFF)))
    assert "none of its frames can be decoded" in error.message


def test_a_clip_that_says_to_have_endless_frames_is_bounded() -> None:
    """An index of four billion frames of one byte each, in a file of some kilobytes."""
    data = bytearray(clip("mp4", "mpeg4", frames=3))
    for box in (b"stsz", b"stts"):
        place = data.index(box) + 8
        data[place : place + 8] = struct.pack(">II", 1, 0xFFFFFFFF)
    message = refusal(bytes(data), limits=ClipLimits(seconds=30)).message
    assert "no frames" in message or "damaged" in message or "memory" in message
