"""Every source of a clip, and all that is no clip: two lines each."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.types import Video
from internvl_gguf.video import ClipLimits, probe_clip, read_clip
from tests.support.clips import clip, decoded, refusal, sound_alone
from tests.support.pictures import encoded, noise

MP4 = clip(frames=12)


def test_every_kind_of_source_gives_the_same_frames(tmp_path: Path) -> None:
    path = tmp_path / "a clip #1 100%.txt"  # its name does not say what it is
    path.write_bytes(MP4)
    expected = [image.tobytes() for _, image in decoded(MP4)]
    uri = "data:video/mp4;base64," + base64.b64encode(MP4).decode()
    for source in (path, str(path), path.as_uri(), MP4, bytearray(MP4), memoryview(MP4), uri):
        found = read_clip(Video(source, frames=2))
        assert [frame.image.tobytes() for frame in found.frames] == [expected[frame.index] for frame in found.frames]
        assert probe_clip(Video(source)) == found.info


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(MP4,))
    writer.start()
    found = read_clip(Video(path))
    writer.join()
    assert found.info.n_frames == 12


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("missing.mp4", "there is no such file", "Check the path"),
        ("", "no file without a name", "Give the path of a clip."),
        ("https://example.org/a.mp4", "never fetched from a network", "Download it"),
        ("rtsp://camera/1", "never fetched from a network", "Download it"),
        ("file://elsewhere/a.mp4", "never fetched from a network", "Download it"),
        ("concat:a.mp4|b.mp4", "there is no such file", "Check the path"),
        ("data:video/mp4;base64", "no comma", "data:video/mp4;base64"),
        ("data:video/mp4;base64,####", "base64 is damaged", "data:video/mp4;base64"),
        (b"", "it is empty", "again"),
        (b"hello", "not a clip of a known format", "Use MP4"),
        (b"#EXTM3U\nhttp://example.org/1.ts\n", "a list of other files", "one of those files"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "a list of other files", "one of those files"),
        (b"file '/etc/passwd'\n", "a list of other files", "one of those files"),
        (b"<?xml version='1.0'?><MPD></MPD>", "a list of other files", "one of those files"),
        (b"\x47" + bytes(187) + b"\x47" + bytes(187), "a format that is not read", "MP4"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a sound", "with pictures"),
        (encoded(noise(1), "JPEG"), "a picture, not a clip", "without Video"),
        (encoded(noise(1), "AVIF"), "a picture, not a clip", "without Video"),
        (3.5, "not a kind of clip source", "Give a path"),
        (None, "not a kind of clip source", "Give a path"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_clip_is_refused_in_two_lines(source: Any, message: str, hint: str) -> None:
    error = refusal(source)
    assert message in error.message
    assert hint in error.hint
    assert error.is_missing == (message == "there is no such file")


def test_a_folder_and_a_device_are_refused(tmp_path: Path) -> None:
    assert "it is a folder" in refusal(tmp_path).message
    if Path("/dev/zero").exists():
        assert "a device or socket" in refusal("/dev/zero").message


def test_sound_without_pictures_is_refused() -> None:
    assert "it has sound and no moving pictures" in refusal(sound_alone()).message


def test_an_encrypted_clip_is_refused() -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "01" * 16, "encryption_kid": "02" * 16}
    error = refusal(clip(frames=3, container_options=key))
    assert "its pictures are encrypted" in error.message
    assert error.hint == "Give a clip without copy protection."


def test_an_unknown_codec_is_refused() -> None:
    assert "an unknown codec" in refusal(MP4.replace(b"avc1", b"zz9y")).message


def test_a_codec_that_is_seldom_used_is_not_decoded() -> None:
    """FFmpeg has hundreds of decoders, most of them old; only those that clips have today may run."""
    error = refusal(clip("avi", "asv1", frames=3))
    assert "asv1" in error.message
    assert "MP4" in error.hint


def test_a_clip_that_is_cut_off_has_its_first_frames(tmp_path: Path) -> None:
    """An MP4 whose index comes first says how many frames are missing; a Matroska file just ends."""
    whole_file = tmp_path / "whole.mp4"
    data = clip(container_options={"movflags": "+faststart"}, options={"g": "5", "bf": "0"}, path=whole_file)
    cut = data[: len(data) * 3 // 4]
    found = read_clip(Video(cut, frames=6))
    assert 20 < found.info.n_frames < 40
    assert found.info.n_frames + found.info.n_missing == 40
    assert "is cut off" in found.notices[0]
    whole = decoded(data)
    assert all(frame.image.tobytes() == whole[frame.index][1].tobytes() for frame in found.frames)
    matroska = clip("matroska", options={"g": "5", "bf": "0"})
    found = read_clip(Video(matroska[: len(matroska) * 3 // 4], frames=6))
    assert 20 < found.info.n_frames < 40
    whole = decoded(matroska)
    assert all(frame.image.tobytes() == whole[frame.index][1].tobytes() for frame in found.frames)


def test_an_mp4_without_its_index_is_refused() -> None:
    assert "it is damaged or cut off" in refusal(MP4[: len(MP4) // 2]).message


def test_one_frame_is_a_clip() -> None:
    found = read_clip(Video(clip(frames=1)))
    assert [frame.index for frame in found.frames] == [0] * 8
    assert len({frame.image.tobytes() for frame in found.frames}) == 1
    assert "1 frame;" in found.notices[0]


def test_a_clip_without_frames_is_refused() -> None:
    assert refusal(clip("matroska", frames=0)).message


def test_limits_are_kept(tmp_path: Path) -> None:
    assert "the limit of 0.0 megapixels" in refusal(MP4, limits=ClipLimits(pixels=1000)).message
    assert "more than the limit of 0 MiB" in refusal(MP4, limits=ClipLimits(held_bytes=100)).message
    path = tmp_path / "clip.mp4"
    path.write_bytes(MP4)
    assert "more than the limit of 0 MiB" in refusal(path, limits=ClipLimits(file_bytes=100)).message
    assert "longer than the limit of 0 s" in refusal(MP4, limits=ClipLimits(seconds=0)).message
    assert "more than the limit of 4" in refusal(MP4, frames=5, limits=ClipLimits(frames=4)).message
    assert refusal(clip(sound=True), limits=ClipLimits(streams=1)).message


def test_without_the_extra_a_clip_says_how_to_install_it(tmp_path: Path) -> None:
    """In a process in which PyAV cannot be found; an animation needs only Pillow."""
    script = (
        "import sys, importlib.metadata as known; sys.modules['av'] = None\n"
        "def version(name): raise known.PackageNotFoundError(name)\n"
        "known.version = version\n"
        "from internvl_gguf.video import Video, read_clip\n"
        "from internvl_gguf.errors import VideoError\n"
        "try: read_clip(Video(sys.argv[1]))\n"
        "except VideoError as error: print(error.message, error.hint, sep='\\n')\n"
        "print(len(read_clip(Video(sys.argv[2], frames=3)).frames))"
    )
    moving = tmp_path / "a.gif"
    noise(1).save(moving, save_all=True, append_images=[noise(2)])
    film = tmp_path / "clip.mp4"
    film.write_bytes(MP4)
    result = subprocess.run([sys.executable, "-c", script, film, moving], capture_output=True, text=True, check=True)
    message, hint, count = result.stdout.splitlines()
    assert message.endswith("clips are decoded by PyAV, which is not installed.")
    assert "internvl-gguf[video]" in hint
    assert count == "3"
