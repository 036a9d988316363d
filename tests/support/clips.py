"""Small clips for tests, written by PyAV, their frames decoded one after another, and the check of a refusal."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image

from internvl_gguf.errors import VideoError
from internvl_gguf.types import Video
from internvl_gguf.video import ClipLimits, read_clip

TICKS = 1000
"""Time stamps a second."""


def picture(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A frame in which its number shows: two lines and the brightness move."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = number * 4 % 256
    pixels[number % height, :, 1] = 255
    pixels[:, number % width, 2] = 255
    return Image.fromarray(pixels)


def clip(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    frames: Sequence[Image.Image] | int = 40,
    size: tuple[int, int] = (64, 48),
    pixel_format: str = "yuv420p",
    times: Sequence[int] | None = None,
    sound: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    path: Path | None = None,
) -> bytes:
    """The bytes of a clip.

    Args:
        container: FFmpeg's name of the format.
        codec: its name of the encoder.
        frames: the pictures, or how many of `picture`.
        size: of the frames.
        pixel_format: FFmpeg's name.
        times: time stamp of each frame in TICKS a second; None for 25 frames a second.
        sound: whether half a second of silence goes with it.
        options: of the encoder; groups of 12 frames otherwise.
        container_options: of the container.
        path: file to write, for containers that are read again while they are written; None to write in memory.
    """
    pictures = [picture(number, size) for number in range(frames)] if isinstance(frames, int) else frames
    stamps = [number * 40 for number in range(len(pictures))] if times is None else times
    file = io.BytesIO()
    with av.open(path or file, "w", format=container, options=container_options or {}) as out:
        stream = cast("VideoStream", out.add_stream(codec, rate=25, options={"g": "12", **(options or {})}))
        stream.width, stream.height, stream.pix_fmt = (*size, pixel_format)
        stream.codec_context.time_base = Fraction(1, TICKS)
        silence = out.add_stream("aac", rate=8000) if sound else None
        for each, stamp in zip(pictures, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(np.asarray(each), format="rgba" if each.mode == "RGBA" else "rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = stamp, Fraction(1, TICKS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if silence is not None:
            _be_silent(out, silence)
    return path.read_bytes() if path else file.getvalue()


def sound_alone() -> bytes:
    """The bytes of an MP4 with sound and nothing else."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        _be_silent(out, out.add_stream("aac", rate=8000))
    return file.getvalue()


def _be_silent(out: OutputContainer, stream: AudioStream) -> None:
    quiet = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
    quiet.sample_rate = 8000
    out.mux(stream.encode(quiet))
    out.mux(stream.encode(None))


def decoded(data: bytes) -> list[tuple[float, Image.Image]]:
    """Times and pictures of all frames, by PyAV alone, one after another."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = [(frame.pts or 0, frame.to_image()) for frame in container.decode(stream)]
        base = float(stream.time_base or 1)
    return [((stamp - frames[0][0]) * base, image) for stamp, image in frames]


def turned(data: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """An MP4 with another display matrix (a, b, c, d) in the header of its only track."""
    place = data.index(b"tkhd") + 4 + 40  # version 0: times, number, duration, layer, group, volume
    a, b, c, d = (each * 65536 for each in matrix)
    return data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :]


def refusal(source: Any, *, limits: ClipLimits | None = None, **wishes: Any) -> VideoError:
    """The error that reading a clip raises; both its parts are one line each."""
    with pytest.raises(VideoError) as caught:
        read_clip(Video(source, **wishes), limits=limits or ClipLimits())
    error = caught.value
    for part in (error.message, error.hint):
        assert part == part.strip()
        assert part.endswith((".", "?"))
        assert "\n" not in part
        assert len(part) < 300
    return error
