"""Seconds and memory for the frames of short and long clips: what grows with the length of a clip, and what does not.

Method. A group of 250 frames, ten seconds, is drawn and encoded once as H.264; its packets are repeated for clips of
ten seconds, ten minutes and two hours, as MP4, which has an index of its frames, and as Matroska, which has none. Of
each clip 8 and 32 frames are read as the model card takes them, one at a time, as a question does. Measured are the
seconds until the clip's facts are known and until the last frame is there, and the most memory of the process that
decodes (Linux; elsewhere what it has at the end).

    python benchmarks/clip_frames.py [--rounds N] [--quick]

--quick takes a small picture, and clips of ten and twenty seconds. Run with nothing else on the machine. The last line
of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
import psutil

import measure
from internvl_gguf import Video
from internvl_gguf.video import open_clip
from internvl_gguf.video.choice import choose_frames

SIZE, QUICK_SIZE = (1280, 720), (64, 48)
SECONDS: Final = {"10 s": 10, "10 min": 600, "2 h": 7200}
QUICK_SECONDS: Final = {"10 s": 10, "20 s": 20}
CONTAINERS: Final = {"MP4": "mp4", "Matroska": "matroska"}
FRAMES: Final = (8, 32)
RATE, GROUP, TICKS = 25, 250, 1000
MIB: Final = 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=measure.positive, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of small and short clips, to see that it runs")
    args = parser.parse_args()
    lengths = QUICK_SECONDS if args.quick else SECONDS
    size = QUICK_SIZE if args.quick else SIZE
    group = encoded_group(size)
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = {
            f"{name} {length}": write_clip(Path(folder) / f"{seconds}.{container}", container, size, group, seconds)
            for name, container in CONTAINERS.items()
            for length, seconds in lengths.items()
        }
        for _ in range(measure.rounds_of(args) + 1):  # the first round warms up
            for name, path in clips.items():
                for frames in FRAMES:
                    for what, value in read_frames(path, frames).items():
                        found.setdefault(f"{name}, {frames}", {}).setdefault(what, []).append(value)
    spreads = {
        name: {what: measure.Spread(tuple(values[1:])) for what, values in several.items()}
        for name, several in found.items()
    }
    names = list(next(iter(spreads.values())))
    print(measure.table(["clip, frames", *names], [[name, *map(str, each.values())] for name, each in spreads.items()]))
    shown = {name: {what: spread.as_json() for what, spread in each.items()} for name, each in spreads.items()}
    print(json.dumps({"benchmark": "clip_frames", "clips": shown}))


def encoded_group(size: tuple[int, int]) -> list[tuple[bytes, bool]]:
    """The packets of GROUP frames in which two waves move, with whether each is a keyframe; no B-frames."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = (*size, "yuv420p")
    context.time_base, context.framerate = Fraction(1, RATE), Fraction(RATE)
    context.options = {"g": str(GROUP), "bf": "0", "preset": "veryfast"}
    across, down = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    packets = []
    for number in range(GROUP):
        waves = [np.sin(across / 40 + number / 5), np.cos(down / 30 + number / 7), np.sin((across + down) / 50)]
        frame = av.VideoFrame.from_ndarray((np.stack(waves, axis=2) * 127 + 128).astype(np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    return [(bytes(packet), packet.is_keyframe) for packet in packets]


def write_clip(
    path: Path, container: str, size: tuple[int, int], group: list[tuple[bytes, bool]], seconds: int
) -> Path:
    """A clip of a length, the group again and again."""
    with av.open(path, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = (*size, "yuv420p")
        for number in range(seconds * RATE):
            data, is_key = group[number % GROUP]
            packet = av.Packet(data)
            packet.pts = packet.dts = number * TICKS // RATE
            packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, TICKS), is_key, stream
            out.mux(packet)
    return path


def read_frames(path: Path, frames: int) -> dict[str, float]:
    """Seconds and memory for so many frames of a clip."""
    started = time.perf_counter()
    video = Video(path, frames=frames)
    with open_clip(video) as reader:
        opened = time.perf_counter() - started
        taken = sum(1 for _ in reader.frames(choose_frames(video, reader.info).indices))
        seconds = time.perf_counter() - started
        memory = peak_bytes(reader.process_id)
    assert taken == frames
    return {"opened, s": opened, "frames, s": seconds, "MiB": memory / MIB}


def peak_bytes(process: int) -> int:
    """The most memory that a process has had, where Linux says so; else what it has."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return int(psutil.Process(process).memory_info().rss)


if __name__ == "__main__":
    main()
