"""Clips whose pictures are damaged at known places."""

from __future__ import annotations

import io
import random
from typing import Final

import av

GROUPS: Final = {"g": "10", "bf": "0", "sc_threshold": "0"}
"""Options of groups of ten frames, each coded as a change of the one before."""


def packets(data: bytes, container: str = "mp4") -> list[tuple[int, int]]:
    """Where each packet of the pictures of a clip begins in its file, and its bytes."""
    with av.open(io.BytesIO(data), format=container) as file:
        found = [packet for packet in file.demux(file.streams.video[0]) if packet.size]
        return [(packet.pos or 0, packet.size) for packet in found]


def spoilt(data: bytes, number: int) -> bytes:
    """A clip of which the packet with this number has noise behind its header of a slice."""
    at, size = packets(data)[number]
    begin = at + 4 + min(8, size // 3)  # behind the length of the unit and its first bytes
    return data[:begin] + random.Random(1).randbytes(at + size - begin) + data[at + size :]
