"""Where the labels of boxes stand: beside the box they name, and over as little of other boxes and labels as can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rect = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

_OVER_LABEL: Final = 8.0  # cost of covering a label, by its share of this one
_OVER_OWN: Final = 3.0  # of covering the box that it names, by the share of the box
_OVER_BOX: Final = 1.5  # of covering another box, by the share of that box
_FARTHER: Final = 0.02  # of each place that is less usual than the one before it


def place_labels(boxes: Sequence[Rect], sizes: Sequence[tuple[int, int]], room: tuple[int, int]) -> list[Rect]:
    """Return the rectangles of labels, each beside or in its box and inside the picture.

    Above the box is the usual place; below it, beside it and in its corners come next. The place with the least cost is
    taken: what it covers of labels placed before, of its own box and of other boxes. Small boxes choose first, as
    they have the fewest places.

    Args:
        boxes: the boxes.
        sizes: (width, height) of the label of each.
        room: (width, height) of the picture.
    """
    edges = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    areas = np.maximum(1.0, _areas(edges))
    order = sorted(range(len(boxes)), key=lambda index: areas[index])
    labels = np.zeros((len(boxes), 4))
    for n_placed, index in enumerate(order):
        best, least = (0.0, 0.0, 0.0, 0.0), np.inf
        for number, place in enumerate(_places(boxes[index], sizes[index], room)):
            over_labels = _covered(place, labels[order[:n_placed]]).sum() / max(1.0, sizes[index][0] * sizes[index][1])
            over_boxes = _covered(place, edges) / areas
            own = over_boxes[index]
            cost = _FARTHER * number + _OVER_LABEL * over_labels
            cost += _OVER_OWN * own + _OVER_BOX * (float(over_boxes.sum()) - own)
            if cost < least:
                best, least = place, cost
        labels[index] = best
    return [(float(left), float(top), float(right), float(bottom)) for left, top, right, bottom in labels]


def _places(box: Rect, size: tuple[int, int], room: tuple[int, int]) -> Iterator[Rect]:
    """Yield the places of a label, the most usual first; what would leave the picture is moved into it."""
    (left, top, right, bottom), (width, height) = box, size
    corners = (
        (left, top - height),
        (right - width, top - height),
        (left, bottom),
        (right - width, bottom),
        (right, top),
        (left - width, top),
        (right, bottom - height),
        (left - width, bottom - height),
        (left, top),
        (right - width, top),
        (left, bottom - height),
        (right - width, bottom - height),
    )
    for x, y in corners:
        x = max(0.0, min(x, room[0] - width))
        y = max(0.0, min(y, room[1] - height))
        yield (x, y, x + width, y + height)


def _covered(place: Rect, others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area that a rectangle covers of each of others, float64 [n]."""
    left, top, right, bottom = place
    width = np.minimum(right, others[:, 2]) - np.maximum(left, others[:, 0])
    height = np.minimum(bottom, others[:, 3]) - np.maximum(top, others[:, 1])
    covered: NDArray[np.float64] = np.maximum(0.0, width) * np.maximum(0.0, height)
    return covered


def _areas(rects: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (rects[:, 2] - rects[:, 0]) * (rects[:, 3] - rects[:, 1])
    return areas
