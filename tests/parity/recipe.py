"""The model card's picture recipe, written out directly and apart from `internvl_gguf.tiling`.

Source: `dynamic_preprocess` and `build_transform` of the InternVL3 model card. Grids are found by listing every one
with its distance and choosing afterwards; tiles are cut as numpy slices. Nothing here imports the package under test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def grids_of_card(min_tiles: int, max_tiles: int) -> list[tuple[int, int]]:
    """The card's list of (columns, rows): a set filled count by count, then sorted by the number of tiles only."""
    pairs = set()
    for count in range(min_tiles, max_tiles + 1):
        for columns in range(1, count + 1):
            for rows in range(1, count + 1):
                if min_tiles <= columns * rows <= max_tiles:
                    pairs.add((columns, rows))
    return sorted(pairs, key=lambda pair: pair[0] * pair[1])


def grid_of_card(width: int, height: int, tile_size: int, min_tiles: int = 1, max_tiles: int = 12) -> tuple[int, int]:
    """(columns, rows) for a picture: of the grids at the least distance the first, unless the picture is large.

    A later grid of the same distance is taken when the picture has more than half of that grid's pixels.
    """
    grids = grids_of_card(min_tiles, max_tiles)
    distances = [abs(width / height - columns / rows) for columns, rows in grids]
    nearest = [grid for grid, distance in zip(grids, distances, strict=True) if distance == min(distances)]
    large_enough = [g for g in nearest[1:] if width * height > 0.5 * tile_size * tile_size * g[0] * g[1]]
    return (large_enough or nearest[:1])[-1]


def tiles_of_card(
    picture: Image.Image, tile_size: int, min_tiles: int = 1, max_tiles: int = 12, thumbnail: bool = True
) -> NDArray[np.uint8]:
    """The tiles of a picture, uint8 [tiles, tile_size, tile_size, 3], the thumbnail last if there is one."""
    picture = picture.convert("RGB")
    columns, rows = grid_of_card(*picture.size, tile_size, min_tiles, max_tiles)
    canvas = np.asarray(picture.resize((columns * tile_size, rows * tile_size), Image.Resampling.BICUBIC))
    cut = canvas.reshape(rows, tile_size, columns, tile_size, 3).swapaxes(1, 2)
    tiles = list(cut.reshape(rows * columns, tile_size, tile_size, 3))
    if thumbnail and len(tiles) > 1:
        tiles.append(np.asarray(picture.resize((tile_size, tile_size), Image.Resampling.BICUBIC)))
    return np.stack(tiles)


def pixel_values(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the encoder is given: float32 [tiles, 3, side, side], 0..1, less ImageNet's mean, over its deviation."""
    scaled = (tiles.astype(np.float32) / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)
