"""Pictures drawn by integer arithmetic alone, so that they are the same with every version of every library."""

from __future__ import annotations

import numpy as np
from PIL import Image


def draw(seed: int, width: int, height: int) -> Image.Image:
    """An RGB picture: a slanted gradient in colours of the seed's, patches on three scales, and a little grain.

    No two tiles of it look alike, it is not symmetric, it has both flat areas and sharp edges, and another seed gives
    it another colour as a whole.
    """
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint32)
    channels = []
    for channel in range(3):
        tint, slope = (
            int(number) for number in _hash(np.arange(2, dtype=np.uint32), np.full(2, channel, dtype=np.uint32), seed)
        )
        gradient = (columns * (1 + channel) * 80 // width + rows * (3 - channel) * 60 // height).astype(np.int64)
        level = tint % 160 + gradient % (20 + slope % 120)
        for scale, strength in ((37, 150), (13, 90), (5, 40)):
            cells = _hash(columns // scale, rows // scale, seed * 64 + channel * 8 + scale)
            level = np.where(cells % 3 == 0, level + (cells // 3 % strength).astype(np.int64) - strength // 2, level)
        grain = _hash(columns, rows, seed * 64 + channel).astype(np.int64) % 9 - 4
        channels.append(np.clip(level + grain, 0, 255).astype(np.uint8))
    return Image.fromarray(np.stack(channels, axis=-1))


def _hash(columns: np.ndarray, rows: np.ndarray, salt: int) -> np.ndarray:
    """Well mixed uint32 for every cell: two rounds of multiply and shift."""
    mixed = columns * np.uint32(0x9E3779B1) ^ rows * np.uint32(0x85EBCA77) ^ np.uint32(salt * 0xC2B2AE35 & 0xFFFFFFFF)
    for _ in range(2):
        mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    return mixed ^ (mixed >> np.uint32(13))
