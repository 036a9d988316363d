"""Bounds on what a clip may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipLimits:
    """Bounds on the reading of one clip. A clip that needs more is refused.

    Attributes:
        seconds: time from opening it to its last frame, as far as this process waits for it.
        memory: bytes of address space of the process that decodes it. Only Linux keeps to it.
        pixels: width x height of a frame; 8K has 33 million.
        frames: most frames taken of it.
        all_pixels: width x height of all frames taken of it together: they are held until they are cut into tiles.
        streams: most streams in its file: pictures, sounds, subtitles.
        file_bytes: bytes of its file on a disk.
        held_bytes: bytes of a clip that comes by a pipe, in a `data:` URI or as bytes.
        counted_bytes: bytes of a file that is read whole to count its frames, where the container does not say how many
            there are; in a larger one they are estimated from its duration and rate.
    """

    seconds: float = 300.0
    memory: int = 3 * 2**30
    pixels: int = 36_000_000
    frames: int = 1024
    all_pixels: int = 2**31
    streams: int = 64
    file_bytes: int = 64 * 2**30
    held_bytes: int = 2 * 2**30
    counted_bytes: int = 2**30
