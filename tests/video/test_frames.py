"""Frames are those that a decoder gives one after another, whichever of them are asked for, in whatever file."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from internvl_gguf.types import Video
from internvl_gguf.video import open_clip, read_clip
from internvl_gguf.video.containers import ContainerDecoder, open_container
from internvl_gguf.video.limits import ClipLimits
from tests.support.clips import clip, decoded, picture, turned

FRAMES = 40
DEMUXERS = {"mp4": "mov", "mov": "mov", "matroska": "matroska", "webm": "matroska", "avi": "avi"}
OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0", "bf": "3"}


def uneven(frames: int = FRAMES) -> list[int]:
    """Time stamps with gaps from 10 to 333 ms, as of a phone or of a recorded screen."""
    rng, now, stamps = random.Random(1), 0, []
    for _ in range(frames):
        stamps.append(now)
        now += rng.choice((10, 20, 40, 100, 333))
    return stamps


CLIPS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "B-frames": ("mp4", lambda: clip(options={"bf": "3"})),
    "open groups": ("mp4", lambda: clip(options=OPEN_GROUPS)),
    "open groups in Matroska": ("matroska", lambda: clip("matroska", options=OPEN_GROUPS)),
    "one group": ("mp4", lambda: clip(options={"g": "1000"})),
    "uneven": ("mp4", lambda: clip(times=uneven(), options={"bf": "2"})),
    "uneven in Matroska": ("matroska", lambda: clip("matroska", times=uneven(), options={"bf": "2"})),
    "late start": ("mp4", lambda: clip(times=[5000 + 40 * n for n in range(FRAMES)])),
    "late start in Matroska": ("matroska", lambda: clip("matroska", times=[5000 + 40 * n for n in range(FRAMES)])),
    "sound": ("mp4", lambda: clip(sound=True)),
    "fragments": ("mp4", lambda: clip(container_options={"movflags": "frag_keyframe+empty_moov"})),
    "no edit list": ("mp4", lambda: clip(options={"bf": "3"}, container_options={"use_editlist": "0"})),
    "QuickTime": ("mov", lambda: clip("mov")),
    "HEVC": ("mp4", lambda: clip(codec="libx265", options={"x265-params": "log-level=none:keyint=12"})),
    "VP9": ("webm", lambda: clip("webm", "libvpx-vp9", options={"lag-in-frames": "10", "auto-alt-ref": "1"})),
    "VP8": ("webm", lambda: clip("webm", "libvpx")),
    "AV1": ("mp4", lambda: clip(codec="libsvtav1", options={"preset": "12", "svtav1-params": "keyint=12"})),
    "AVI": ("avi", lambda: clip("avi", "mpeg4", options={"bf": "2"})),
    "Motion JPEG": ("avi", lambda: clip("avi", "mjpeg", pixel_format="yuvj420p")),
    "odd size": ("mp4", lambda: clip(size=(63, 47), pixel_format="yuv444p")),
    "odd size in WebM": ("webm", lambda: clip("webm", "libvpx-vp9", size=(63, 47))),
    "10 bits": ("mp4", lambda: clip(pixel_format="yuv420p10le")),
    "ProRes": ("mov", lambda: clip("mov", "prores_ks", pixel_format="yuv422p10le")),
}


def decoder(data: bytes, container: str, file: io.BytesIO | None = None) -> ContainerDecoder:
    """The decoder in this process, which tests can look into."""
    limits = {"size": len(data), "pixels": 10**7, "streams": 64, "counted_bytes": ClipLimits.counted_bytes}
    return open_container(file or io.BytesIO(data), DEMUXERS[container], limits, threads=2)


@pytest.mark.parametrize("kind", CLIPS)
def test_every_frame_is_the_decoders_own(kind: str) -> None:
    """Alone, after a seek, and in a row; with the number and the time that it has in the file."""
    container, make = CLIPS[kind]
    data = make()
    expected = decoded(data)
    row = decoder(data, container)
    assert row.facts()["n_frames"] == len(expected) == FRAMES
    for number, frame in enumerate(row.frames(range(FRAMES))):
        assert (frame.index, frame.stands_for) == (number, number)
        assert frame.pixels == expected[number][1].tobytes(), number
        # The last frames of an AVI come out of FFmpeg with one time stamp.
        assert frame.time == pytest.approx(number / 25 if container == "avi" else expected[number][0], abs=1e-6)
    for number in range(0, FRAMES, 3):
        (frame,) = decoder(data, container).frames([number])
        assert frame.index == number
        assert frame.pixels == expected[number][1].tobytes(), number


@pytest.mark.parametrize("kind", CLIPS)
def test_the_process_gives_the_same_frames(kind: str) -> None:
    _, make = CLIPS[kind]
    data = make()
    expected = decoded(data)
    found = read_clip(Video(data, frames=5))
    assert [frame.image.tobytes() for frame in found.frames] == [
        expected[frame.index][1].tobytes() for frame in found.frames
    ]
    assert found.notices == ()
    assert found.info.fps == pytest.approx(25) or "uneven" in kind


def test_more_frames_of_the_same_clip_are_read_by_the_same_process() -> None:
    data = clip()
    expected = decoded(data)
    with open_clip(Video(data)) as reader:
        for wanted in ((30, 31), (2,), (39,), (0, 0, 12), ()):
            frames = list(reader.frames(wanted))
            assert [frame.index for frame in frames] == list(wanted)
            assert all(frame.image.tobytes() == expected[frame.index][1].tobytes() for frame in frames)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), None),
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
        ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
    ],
)
def test_a_phones_clip_is_upright(matrix: tuple[int, int, int, int], turn: Image.Transpose | None) -> None:
    """MP4 gives the matrix by rows, so that (0, 1, -1, 0) is a quarter clockwise."""
    data = turned(clip(), matrix)
    expected = [image if turn is None else image.transpose(turn) for _, image in decoded(data)]
    found = read_clip(Video(data, frames=3))
    assert found.info.size == expected[0].size
    for frame in found.frames:
        assert frame.image.size == expected[0].size
        assert frame.image.tobytes() == expected[frame.index].tobytes()


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (64, 48), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 32, 48))
    data = clip("mov", "prores_ks", frames=[clear] * 3, pixel_format="yuva444p10le")
    found = np.asarray(read_clip(Video(data, frames=1)).frames[0].image).astype(int)
    assert found[24, 60].min() > 250
    assert found[24, 5, 2] > 240
    assert found[24, 5, :2].max() < 16


def test_frames_are_those_that_were_drawn() -> None:
    """Not one before or after: the lines of `picture` are where the number says."""
    found = read_clip(Video(clip("matroska", "ffv1", pixel_format="bgr0"), frames=7))
    assert [frame.image.tobytes() for frame in found.frames] == [
        picture(frame.index).tobytes() for frame in found.frames
    ]


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def test_a_long_clip_is_not_read_whole() -> None:
    """Groups of 25 frames; 8 frames of 2,000 are in 8 groups of 80, and more is read than their bytes."""
    noise = [Image.frombytes("RGB", (64, 48), random.Random(n).randbytes(64 * 48 * 3)) for n in range(8)]
    data = clip(codec="mpeg4", frames=noise * 250, options={"g": "25", "b": "4000k"})
    file = Counted(data)
    long = decoder(data, "mp4", file)
    frames = list(long.frames(range(125, 2000, 250)))
    assert [frame.index for frame in frames] == list(range(125, 2000, 250))
    assert file.read_bytes < len(data) / 2


def test_a_file_that_is_too_large_to_count_has_frames_by_their_times() -> None:
    data = clip("matroska", options={"bf": "3"})
    expected = decoded(data)
    found = read_clip(Video(data, frames=5), limits=ClipLimits(counted_bytes=100))
    assert not found.info.is_counted
    assert (found.info.n_frames, found.info.fps) == (FRAMES, 25)
    assert "numbered by time" in found.notices[0]
    assert [frame.image.tobytes() for frame in found.frames] == [
        expected[frame.index][1].tobytes() for frame in found.frames
    ]


def test_frames_that_an_edit_list_leaves_out_are_not_counted() -> None:
    """Five frames before time 0, needed for the others and not shown."""
    stamps = [40 * number - 200 for number in range(FRAMES)]
    data = clip(times=stamps, options={"bf": "3"}, container_options={"avoid_negative_ts": "disabled"})
    expected = decoded(data)
    cut = decoder(data, "mp4")
    assert cut.facts()["n_frames"] == len(expected) == FRAMES - 5
    assert [frame.pixels for frame in cut.frames(range(len(expected)))] == [image.tobytes() for _, image in expected]
