"""Batches for the vision part alone: tiles of every kind of picture, and what lies under each patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.labels import cover_map, view_labels
from training.receipts import random_receipt
from training.scenes import Box, Scene, random_canvas, shapes_scene, text_scene, wall_scene

if TYPE_CHECKING:
    from random import Random

    from numpy.typing import NDArray

VIEWS_PER_SCENE = 5  # of those with many lines


def tile_views(scene: Scene, columns: int, rows: int) -> list[Box]:
    """The canvas boxes that the tiles of a grid show, row by row, then the thumbnail's."""
    width, height = scene.image.size
    boxes = [
        (width * c / columns, height * r / rows, width * (c + 1) / columns, height * (r + 1) / rows)
        for r in range(rows)
        for c in range(columns)
    ]
    return [*boxes, (0.0, 0.0, float(width), float(height))] if len(boxes) > 1 else boxes


def random_view(scene: Scene, rng: Random) -> Box:
    """A box with a quarter to nearly all of the canvas across and down, at any place."""
    width, height = scene.image.size
    across = rng.uniform(0.35, 0.95)
    down = min(0.95, max(0.2, across * rng.uniform(0.7, 1.4)))
    left, top = rng.uniform(0, 1 - across) * width, rng.uniform(0, 1 - down) * height
    return left, top, left + across * width, top + down * height


def random_scene(rng: Random) -> Scene:
    """A scene of any kind; shapes most often, of which fewer views are taken."""
    draw = rng.random()
    if draw < 0.08:
        return random_receipt(rng).scene
    if draw < 0.22:
        return wall_scene(rng, random_canvas(rng, 512))
    if draw < 0.86:
        return shapes_scene(rng, random_canvas(rng, 512), smallest=0.12, text=rng.random() < 0.3)
    if draw < 0.96:
        return text_scene(rng, random_canvas(rng, 640), smallest=0.1, largest=0.8, shapes=2)
    return text_scene(rng, random_canvas(rng, 1200), smallest=0.06, largest=0.13, shapes=4)


def vision_batch(rng: Random, tiles: int, tile_size: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Tiles uint8 [tiles, tile_size, tile_size, 3] and their targets int16 [tiles, targets, side, side]."""
    pixels: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int16]] = []
    while len(pixels) < tiles:
        scene = random_scene(rng)
        covers = cover_map(scene)
        whole = tile_views(scene, 1, 1)
        things = scene.boxes
        parts = VIEWS_PER_SCENE - 1 if len(scene.lines) > 1 else 1
        views = whole + [random_view(scene, rng) for _ in range(parts)]
        for view in views:
            seen = sum(b[0] < view[2] and b[2] > view[0] and b[1] < view[3] and b[3] > view[1] for b in things)
            if seen == 0 and rng.random() < 0.85:
                continue
            pixels.append(np.asarray(scene.image.resize((tile_size, tile_size), box=view)))
            labels.append(view_labels(scene, covers, view, tile_size, side))
    return np.stack(pixels[:tiles]), np.stack(labels[:tiles])
