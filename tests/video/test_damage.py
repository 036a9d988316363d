"""Clips that are damaged or cut off: what the decoder hides is told in a line, and a whole clip is called whole."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from internvl_gguf.errors import VideoError
from internvl_gguf.types import Video
from internvl_gguf.video import ClipLimits, read_clip
from internvl_gguf.video.clip import Clip
from internvl_gguf.video.damage import Damage
from internvl_gguf.video.reader import damage_notices
from tests.support.clips import clip, decoded, picture, refusal
from tests.support.damaged_clips import GROUPS, packets, spoilt


def about_damage(found: Clip) -> list[str]:
    return [line for line in found.notices if "is damaged" in line]


def test_frames_behind_damage_are_counted_up_to_the_next_keyframe() -> None:
    """Packet 15 of groups of 10: frames 15 to 19 are coded as changes of it, and those from 20 on are not."""
    data = spoilt(clip(size=(320, 240), options=GROUPS), 15)
    found = read_clip(Video(data, frames=40))
    bad = {frame.index for frame in found.frames if frame.is_damaged}
    assert {16, 17, 18, 19} <= bad
    assert bad.isdisjoint((*range(10), *range(24, 40)))  # threads report late, by a few packets
    (line,) = about_damage(found)
    assert line.startswith("the clip given as bytes is damaged: ")
    assert f"{sum(frame.is_damaged for frame in found.frames)} of the 40 frames shown may look wrong." in line


def test_a_clip_whose_only_shown_frame_is_damaged_says_so() -> None:
    data = spoilt(clip(size=(320, 240), frames=20, options={**GROUPS, "g": "1000"}), 3)
    assert about_damage(read_clip(Video(data, frames=1))) == [
        "the clip given as bytes is damaged: the frame shown may look wrong."
    ]
    (line,) = about_damage(read_clip(Video(data, frames=3, start=0.5)))
    assert "all 3 frames shown may look wrong" in line


def test_damage_that_no_shown_frame_has_is_told_as_that() -> None:
    whole = read_clip(Video(clip(frames=8), frames=2))
    assert not about_damage(whole)
    reader: Any = SimpleNamespace(info=whole.info, found_damage=True)
    (line,) = damage_notices(reader, whole.frames)
    assert line.endswith("is damaged in places; the decoder found nothing wrong with the frames that are shown.")


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_are_never_hidden(seed: int) -> None:
    """300 bytes of the pictures: the grey that a decoder fills in is no frame of the clip."""
    rng = random.Random(seed)
    data = bytearray(clip(size=(320, 240), frames=60, options={**GROUPS, "g": "250"}))
    places = [at + n for at, size in packets(bytes(data)) for n in range(size)]
    for place in rng.sample(places, 300):
        data[place] ^= rng.randrange(1, 256)
    try:
        found = read_clip(Video(bytes(data)))
    except VideoError:
        return
    assert any(word in line for line in found.notices for word in ("is damaged", "cannot be decoded"))


class Log:
    """A log that grows when a test says so."""

    bytes_logged = 0

    def size(self) -> int:
        return self.bytes_logged

    def too_large(self) -> None:
        return None


class Fed:
    """A packet that goes to the decoder."""

    is_discard = False

    def __init__(self, pts: int, *, is_keyframe: bool = False) -> None:
        self.pts: int | None = pts
        self.dts: int | None = pts
        self.is_keyframe = is_keyframe


def test_an_error_counts_for_packets_before_it_as_threads_report_late() -> None:
    log = Log()
    damage = Damage(log, 2, 0, by_decoding=False)
    for number in range(12):
        damage.feed(Fed(number, is_keyframe=number in (0, 8)))
        log.bytes_logged += number == 5
        damage.look(failed=False)
    assert [number for number in range(12) if damage.reaches(number)] == [3, 4, 5, 6, 7]
    assert damage.is_found


def test_errors_of_frames_shown_before_the_first_keyframe_say_nothing() -> None:
    """An open group: what is shown before its keyframe needs the group before, which was not decoded."""
    log = Log()
    damage = Damage(log, 1, 100, by_decoding=False)
    for stamp in (100, 80, 90, 110, 120):
        damage.feed(Fed(stamp, is_keyframe=stamp == 100))
        log.bytes_logged += stamp < 100
        damage.look(failed=False)
    assert not damage.is_found


def cut_matroska(known_size: bool) -> bytes:
    data = clip("matroska", options=GROUPS)
    if not known_size:
        at = data.index(b"\x18\x53\x80\x67") + 4
        data = data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]
    return data[: len(data) * 3 // 4]


def test_a_matroska_file_that_is_cut_off_says_about_how_many_frames_are_missing() -> None:
    found = read_clip(Video(cut_matroska(known_size=True)))
    assert found.info.n_missing == 40 - found.info.n_frames
    assert f"is cut off: about {found.info.n_missing} frames at its end are missing." in found.notices[-1]
    whole = read_clip(Video(clip("matroska", options=GROUPS)))
    assert (whole.info.n_missing, whole.notices) == (0, ())


def test_a_streamed_matroska_file_cannot_say_that_it_is_cut_off() -> None:
    found = read_clip(Video(cut_matroska(known_size=False)))
    assert found.info.n_missing == 0


def test_an_avi_that_is_cut_off_counts_by_its_header() -> None:
    data = clip("avi", "mjpeg", pixel_format="yuvj420p")
    found = read_clip(Video(data[: len(data) // 3]))
    assert found.info.n_frames < 40
    assert found.info.n_frames + found.info.n_missing == 40
    without_index = read_clip(Video(data[: data.index(b"idx1")]))
    assert [each.info.n_missing for each in (read_clip(Video(data)), without_index)] == [0, 0]


def test_a_start_behind_what_is_left_names_what_is_left(tmp_path: Path) -> None:
    """It lasts 1.6 s by its index, which a start of 1.4 s would not contradict."""
    options = {"movflags": "+faststart"}
    data = clip(container_options=options, options=GROUPS, path=tmp_path / "a.mp4")
    error = refusal(data[: len(data) * 3 // 4], start=1.4)
    found = read_clip(Video(data[: len(data) * 3 // 4]))
    assert f"it is cut off, only its first {found.info.duration:.1f} s are there, and start is 1.4 s." in error.message
    assert found.info.duration == pytest.approx(found.info.n_frames / 25)
    assert found.info.fps == 25


def uneven_end() -> list[int]:
    """Twenty frames of 40 ms, then twenty of 200 ms."""
    return [40 * n for n in range(20)] + [800 + 200 * n for n in range(20)]


@pytest.mark.parametrize("frames", [1, 2])
def test_a_clip_whose_last_frames_are_the_longest_lasts_to_their_end(frames: int) -> None:
    """An MP4 with B-frames states the sum of the times between decodings, which is less."""
    data = clip(times=uneven_end(), options={"bf": "3"})
    last = decoded(data)[-1][0]
    found = read_clip(Video(data, frames=frames, start=last - 0.1))
    assert found.info.duration >= last
    assert found.frames[-1].time >= last - 0.5


def test_a_picture_that_is_too_large_is_told_by_its_size_in_every_container() -> None:
    """FFmpeg forgets the size in the header of an AVI when it may not decode the first picture."""
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: clip("avi", "mjpeg", frames=2, pixel_format="yuvj420p"),
        lambda: clip("matroska", frames=2),
        lambda: clip(frames=2),
    )
    for make in kinds:
        message = refusal(make(), limits=ClipLimits(pixels=3000)).message
        assert "its frames of 64 x 48 are more than the limit of 0.0 megapixels" in message


def test_a_file_without_tracks_has_no_sound() -> None:
    """An MP4 to which nothing was written."""
    empty = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")
    header = struct.pack(">I4sIIIII", 108, b"mvhd", 0, 0, 0, 1000, 0) + struct.pack(">IHH", 0x10000, 0x100, 0)
    header += bytes(108 - len(header) - 4) + struct.pack(">I", 2)
    data = empty + struct.pack(">I4s", 8 + len(header), b"moov") + header
    assert "it has neither moving pictures nor sound" in refusal(data).message


def test_a_clip_with_every_frame_wanted_says_how_many_are_different() -> None:
    """The recipe shows 39 of 40 frames when 40 are wanted: the middles of two segments round to the same one."""
    for frames in (40, "auto"):
        found = read_clip(Video(clip(), frames=frames), most=40)
        different = len({frame.index for frame in found.frames})
        assert different < 40
        assert found.notices == (
            f"Of the 40 frames of the clip given as bytes that are shown, {different} are different.",
        )


def test_a_clip_of_one_frame_says_so_in_words() -> None:
    found = read_clip(Video(clip(frames=1), frames="auto"))
    assert found.notices == ("the clip given as bytes has 1 frame, which is shown.",)


def test_an_open_file_is_read_as_often_as_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(clip(frames=[picture(n) for n in range(12)]))
    with path.open("rb") as file:
        first, second = (read_clip(Video(file, frames=2)) for _ in range(2))
        assert not file.closed
    assert first.info.name == str(path)
    assert [frame.index for frame in first.frames] == [frame.index for frame in second.frames] == [2, 8]
    with path.open("r", encoding="latin-1") as text:
        assert "it is open as text" in refusal(text).message
    assert "reading it failed" in refusal(file).message
