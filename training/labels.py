"""What lies under each patch of a tile: the dense targets that teach the vision part to see before it is asked.

A view is a box of the canvas shown as one tile. Each patch of the view gets these class numbers, 0 for none:

    glyph1, glyph2   the first and second character whose centre lies in the patch; glyph1 also where the patch's
                     middle is in a large character's inner part (-1: too small, cut, or its outer part: not asked)
    centre           the kind of shape whose centre lies in the patch
    kind, colour     of the shape that covers the middle of the patch
    row, column      of a patch that holds something, from 1: else the encoder forgets where things are
    same kind, same colour, alike, shapes
                     where a shape covers the middle of the patch and the view is the whole canvas: how many shapes
                     are of its kind, of its colour, of both, and in all. The text part learns to count far slower.
    left, top, right, bottom
                     where a shape or a printed line lies: the edges of what is seen of it, 1 + fiftieths of the tile
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from training.scenes import CHARACTERS, COLOURS, EDGE_STEPS, SHAPES, Box, Glyph, Scene, Shape, draw_shape, extent

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGETS = (
    "glyph1", "glyph2", "centre", "kind", "colour", "row", "column", "same kind", "same colour", "alike", "shapes",
    "left", "top", "right", "bottom",
)  # fmt: skip
MOST_PATCHES = 12  # along a side
MOST_SHAPES = 7
CLASSES = (
    len(CHARACTERS) + 1,
    len(CHARACTERS) + 1,
    len(SHAPES) + 1,
    len(SHAPES) + 1,
    len(COLOURS) + 1,
    MOST_PATCHES + 1,
    MOST_PATCHES + 1,
    *4 * (MOST_SHAPES + 1,),
    *4 * (EDGE_STEPS + 2,),
)
IGNORE = -1
_MAP_SIDE = 128
_SMALLEST_CAP = 14.0  # pixels in the tile; below it a character is not asked about
_SMALLEST_SHAPE = 4.0
_LEAST_SEEN = 0.7


def shape_class(shape: Shape) -> int:
    """1 + shape * colours + colour."""
    return 1 + SHAPES.index(shape.kind) * len(COLOURS) + COLOURS.index(shape.colour)


def cover_map(scene: Scene) -> NDArray[np.uint8]:
    """The whole canvas as a small square map of shape classes, 0 where none covers it."""
    across, down = _MAP_SIDE / scene.image.width, _MAP_SIDE / scene.image.height
    side = max(scene.image.size)
    picture = Image.new("L", (_MAP_SIDE, _MAP_SIDE))
    for shape in scene.shapes:
        stamp_size = max(2, round(2.2 * shape.radius * _MAP_SIDE / side))
        stamp = Image.new("L", (stamp_size * 2, stamp_size * 2))
        draw_shape(ImageDraw.Draw(stamp), shape.kind, stamp_size, stamp_size, stamp_size / 1.1, 255)
        reach = 1.1 * shape.radius
        target = (max(1, round(2 * reach * across)), max(1, round(2 * reach * down)))
        corner = (round((shape.x - reach) * across), round((shape.y - reach) * down))
        # A soft mask would blend the class number with the one below it into a third.
        picture.paste(shape_class(shape), corner, stamp.resize(target).point(lambda cover: 255 * (cover > 127)))
    return np.asarray(picture)


def _part_inside(box: Box, view: Box) -> float:
    across = min(box[2], view[2]) - max(box[0], view[0])
    down = min(box[3], view[3]) - max(box[1], view[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(0.0, across) * max(0.0, down) / area


def _spread(labels: NDArray[np.int16], glyph: Glyph, view: Box, side: int, seen: bool) -> None:
    """Label the patches of a character larger than a patch: its class in the inner part, IGNORE in the outer."""
    across, down = side / (view[2] - view[0]), side / (view[3] - view[1])
    x0, x1 = (glyph.box[0] - view[0]) * across - 0.5, (glyph.box[2] - view[0]) * across - 0.5
    y0, y1 = (glyph.box[1] - view[1]) * down - 0.5, (glyph.box[3] - view[1]) * down - 0.5
    value = 1 + CHARACTERS.index(glyph.character)
    for margin, fill in ((0.0, IGNORE), (0.2, value if seen else IGNORE)):
        columns = slice(max(0, math.ceil(x0 + margin * (x1 - x0))), max(0, math.floor(x1 - margin * (x1 - x0)) + 1))
        rows = slice(max(0, math.ceil(y0 + margin * (y1 - y0))), max(0, math.floor(y1 - margin * (y1 - y0)) + 1))
        part = labels[rows, columns]
        part[part <= 0] = fill


def view_labels(scene: Scene, covers: NDArray[np.uint8], view: Box, tile_size: int, side: int) -> NDArray[np.int16]:
    """Targets of one view.

    Args:
        scene: what was drawn.
        covers: `cover_map(scene)`.
        view: the box of the canvas that the tile shows.
        tile_size: side of the tile, pixels.
        side: patches along a side.

    Returns:
        int16 [targets, side, side], in the order of TARGETS.
    """
    labels = np.zeros((len(TARGETS), side, side), np.int16)
    across, down = side / (view[2] - view[0]), side / (view[3] - view[1])
    pixels = tile_size / side
    count = np.zeros((side, side), np.int16)
    for line in scene.lines:
        row = int(((line.box[1] + line.box[3]) / 2 - view[1]) * down // 1)
        if not 0 <= row < side:
            continue
        readable = line.cap_height * down * pixels >= _SMALLEST_CAP
        for glyph in line.glyphs:
            column = int(((glyph.box[0] + glyph.box[2]) / 2 - view[0]) * across // 1)
            if not 0 <= column < side:
                continue
            slot = count[row, column]
            if slot == 0:
                _spread(labels[0], glyph, view, side, readable and _part_inside(glyph.box, view) >= _LEAST_SEEN)
            count[row, column] += 1
            if slot > 1:
                continue
            seen = readable and _part_inside(glyph.box, view) >= _LEAST_SEEN
            labels[slot, row, column] = 1 + CHARACTERS.index(glyph.character) if seen else IGNORE
    for shape in scene.shapes:
        row, column = int((shape.y - view[1]) * down // 1), int((shape.x - view[0]) * across // 1)
        if 0 <= row < side and 0 <= column < side:
            big = 2 * shape.radius * min(across, down) * pixels >= _SMALLEST_SHAPE
            labels[2, row, column] = 1 + SHAPES.index(shape.kind) if big else IGNORE
    middles = (np.arange(side) + 0.5) / side
    rows = (view[1] + middles * (view[3] - view[1])) * _MAP_SIDE / scene.image.height
    columns = (view[0] + middles * (view[2] - view[0])) * _MAP_SIDE / scene.image.width
    cover = covers[rows.astype(int).clip(0, _MAP_SIDE - 1)][:, columns.astype(int).clip(0, _MAP_SIDE - 1)].astype(
        np.int16
    )
    labels[3] = np.where(cover > 0, 1 + (cover - 1) // len(COLOURS), 0)
    labels[4] = np.where(cover > 0, 1 + (cover - 1) % len(COLOURS), 0)
    held = (labels[:5] != 0).any(0)
    labels[5:7] = np.where(held, np.indices((side, side)) + 1, IGNORE)
    labels[7:] = IGNORE
    if view == (0.0, 0.0, float(scene.image.width), float(scene.image.height)):
        labels[7:11] = _counts(scene, labels[3], labels[4])
    _tell_edges(labels[11:15], scene, view, side)
    return labels


def _tell_edges(labels: NDArray[np.int16], scene: Scene, view: Box, side: int) -> None:
    """Write the edges of each shape and line, cut by the view, on the patches whose middle it covers (one at least).

    Where lines are many, which no question asks the box of, theirs are not told.
    """
    lines = scene.lines if len(scene.lines) < 3 else ()
    left, top = view[0], view[1]
    across, down = 1 / (view[2] - left), 1 / (view[3] - top)
    for box in (*(extent(shape) for shape in scene.shapes), *(line.box for line in lines)):
        x0, x1 = (min(1.0, max(0.0, (edge - left) * across)) for edge in (box[0], box[2]))
        y0, y1 = (min(1.0, max(0.0, (edge - top) * down)) for edge in (box[1], box[3]))
        if x1 - x0 < 0.02 or y1 - y0 < 0.02:
            continue
        spans = []
        for low, high in ((y0 * side, y1 * side), (x0 * side, x1 * side)):
            first, last = math.ceil(low - 0.5), math.floor(high - 0.5)
            middle = min(side - 1, int((low + high) / 2))
            spans.append(slice(min(first, middle), max(last, middle) + 1))
        edges = np.array([1 + round(EDGE_STEPS * edge) for edge in (x0, y0, x1, y1)])
        labels[:, spans[0], spans[1]] = edges[:, None, None]


def _counts(scene: Scene, kinds: NDArray[np.int16], colours: NDArray[np.int16]) -> NDArray[np.int16]:
    """How many shapes are of the kind, of the colour, of both, and in all, for patches that a shape covers."""
    table = np.zeros((len(SHAPES) + 1, len(COLOURS) + 1), np.int16)
    for shape in scene.shapes:
        table[1 + SHAPES.index(shape.kind), 1 + COLOURS.index(shape.colour)] += 1
    counts = np.stack(
        [table.sum(1)[kinds], table.sum(0)[colours], table[kinds, colours], np.full_like(kinds, table.sum())]
    )
    return np.where(kinds > 0, counts.clip(0, MOST_SHAPES), IGNORE).astype(np.int16)
