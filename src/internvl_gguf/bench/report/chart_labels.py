"""Place names beside the points of a chart so that none covers another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DIRECTIONS: Final = 16
_DISTANCES: Final = (0.0, 5.0, 11.0, 19.0, 29.0, 41.0, 55.0, 72.0, 92.0)  # points from a marker's edge to the label
_GAP: Final = 1.5  # kept free around a label
_CLEARLY: Final = 4.0  # how much farther than its own point another one must be
_ROUNDS: Final = 4
# What a place costs; the distance in points is added as it is. A label must not cover another, should not cover a
# marker, and may lie over a line.
_COVERS_LABEL: Final = 20_000.0
_COVERS_MARKER: Final = 600.0
_COVERS_LINE: Final = 12.0
_CROSSES: Final = 150.0
_NEARER_TO_ANOTHER: Final = 45.0
_LEADS_OVER_MARKER: Final = 90.0
_LEADS_OVER: Final = 30.0  # the line to its point over a label, at each of these places
_ALONG: Final = (0.2, 0.35, 0.5, 0.65, 0.8)


def place_labels(
    points: NDArray[np.float64],
    sizes: NDArray[np.float64],
    markers: NDArray[np.float64],
    lines: NDArray[np.float64],
    bounds: tuple[float, float, float, float],
    radius: float = 4.0,
) -> NDArray[np.float64]:
    """Choose a place for the label of each point; all lengths in the same unit.

    Args:
        points: what is labelled, [n, 2].
        sizes: width and height of the labels, [n, 2].
        markers: centres of everything that is drawn, the points among it, [m, 2].
        lines: places on lines, a few units apart, [k, 2].
        bounds: left, bottom, right and top of where labels may be; a label larger than that lies at its edge.
        radius: of a marker.

    Returns:
        The labels' centres, [n, 2]: each at first in the best place beside what already lies there, then moved as long
        as another place is better.
    """
    n = len(points)
    candidates = [_candidates(points[index], sizes[index], bounds, radius) for index in range(n)]
    fixed = [
        _cost_of_place(candidates[index], points[index], sizes[index], markers, lines, radius)
        + _NEARER_TO_ANOTHER * nearer_to_another(candidates[index], sizes[index], points, index)
        for index in range(n)
    ]
    centres = np.full((n, 2), np.nan)
    crowd = [int((np.hypot(*(points - point).T) < 3 * sizes[:, 0].max(initial=1)).sum()) for point in points]
    order = sorted(range(n), key=lambda index: (-crowd[index], points[index][0]))
    for _ in range(_ROUNDS):
        before = centres.copy()
        for index in order:
            others = np.array(
                [place for place in range(n) if place != index and not math.isnan(centres[place][0])], int
            )
            costs = fixed[index] + _cost_of_others(
                candidates[index], points[index], sizes[index], centres[others], sizes[others], points[others]
            )
            centres[index] = candidates[index][int(np.argmin(costs))]
        if np.array_equal(before, centres):
            break
    return centres


def nearer_to_another(
    centres: NDArray[np.float64], size: NDArray[np.float64], points: NDArray[np.float64], index: int
) -> NDArray[np.bool_]:
    """Return for each place whether the label would lie about as near to another point as to its own; bool [places]."""
    gaps = np.hypot(*np.moveaxis(np.maximum(np.abs(centres[:, None] - points[None]) - size / 2, 0), 2, 0))
    others = np.delete(gaps, index, axis=1).min(axis=1, initial=math.inf)
    return np.asarray(others < gaps[:, index] + _CLEARLY)


def overlaps(centres: NDArray[np.float64], sizes: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the pairs of labels that cover each other."""
    n = len(centres)
    apart = [
        (np.abs(centres[one] - centres[other]) - (sizes[one] + sizes[other]) / 2).max() if one < other else 0.0
        for one in range(n)
        for other in range(n)
    ]
    return [(place // n, place % n) for place, gap in enumerate(apart) if gap < 0]


def _candidates(
    point: NDArray[np.float64], size: NDArray[np.float64], bounds: tuple[float, float, float, float], radius: float
) -> NDArray[np.float64]:
    """Return the possible centres of a label, the usual place at the upper right first; [places, 2]."""
    angles = math.pi / 4 - np.arange(_DIRECTIONS) * 2 * math.pi / _DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # From the centre to the edge of the label in each direction, so that the gap to the marker is the same in all.
    reach = np.min((size / 2) / np.maximum(np.abs(directions), 1e-9), axis=1)
    distances = radius + 1 + np.array(_DISTANCES)
    centres = (point + directions * (distances[:, None, None] + reach[:, None])).reshape(-1, 2)
    low, high = np.array(bounds[:2]) + size / 2, np.array(bounds[2:]) - size / 2
    return np.asarray(np.clip(centres, low, np.maximum(low, high)))


def _cost_of_place(
    centres: NDArray[np.float64],
    point: NDArray[np.float64],
    size: NDArray[np.float64],
    markers: NDArray[np.float64],
    lines: NDArray[np.float64],
    radius: float,
) -> NDArray[np.float64]:
    """Return the part of each place's cost that does not depend on other labels; [places]."""
    cost = np.asarray(np.hypot(*(np.maximum(np.abs(centres - point) - size / 2, 0)).T))
    cost = cost + _COVERS_MARKER * _inside(markers, centres, size / 2 + radius + 0.5).sum(axis=1)
    cost = cost + _COVERS_LINE * _inside(lines, centres, size / 2 + 0.5).sum(axis=1)
    others = markers[np.hypot(*(markers - point).T) > radius]
    return np.asarray(cost + _LEADS_OVER_MARKER * (_beside(others, point, centres) < radius).sum(axis=1), float)


def _cost_of_others(
    centres: NDArray[np.float64],
    point: NDArray[np.float64],
    size: NDArray[np.float64],
    others: NDArray[np.float64],
    other_sizes: NDArray[np.float64],
    other_points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the cost of each place due to the labels already placed and the lines to their points; [places]."""
    cost = _COVERS_LABEL * _inside(others, centres, (size + other_sizes) / 2 + _GAP).sum(axis=1)
    crossing = _cross(centres[:, None], point, others[None], other_points[None])
    cost = cost + _CROSSES * crossing.sum(axis=1)
    for step in _ALONG:
        cost = cost + _LEADS_OVER * _inside(others, point + (centres - point) * step, other_sizes / 2).sum(axis=1)
        cost = cost + _LEADS_OVER * _inside(other_points + (others - other_points) * step, centres, size / 2).sum(
            axis=1
        )
    return np.asarray(cost, float)


def _inside(things: NDArray[np.float64], centres: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which things lie inside the box of half-size `half` around each centre; bool [centres, things]."""
    return np.asarray((np.abs(centres[:, None] - things[None]) < half).all(axis=2))


def _beside(things: NDArray[np.float64], start: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances of things from the line segments from `start` to each of the ends; [ends, things]."""
    along = (ends - start)[:, None]
    share = ((things - start) * along).sum(axis=2) / np.maximum((along**2).sum(axis=2), 1e-9)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    return np.asarray(np.hypot(*np.moveaxis(things - nearest, 2, 0)))


def _cross(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return whether the lines from a to b and from c to d cross."""

    def side(p: NDArray[np.float64], q: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64]:
        along, away = q - p, r - p
        return np.asarray(along[..., 0] * away[..., 1] - along[..., 1] * away[..., 0])

    return np.asarray((side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0))
