"""Whether two answers name the same boxes: the same labels, in the same places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.judging.normalise import caseless
from internvl_gguf.types import Box

LEAST_OVERLAP: Final = 0.5
"""Intersection over union from which on two boxes are the same: that of RefCOCO and of PASCAL VOC."""


def are_same_boxes(first: Sequence[Box], second: Sequence[Box]) -> bool:
    """Return whether each box has one of its own among the others, of its label and picture, that lies in its place.

    Letter case does not count, nor does the order. The relation is symmetric but not transitive.
    """
    if len(first) != len(second):
        return False
    parts, others = _by_label(first), _by_label(second)
    if {key: len(boxes) for key, boxes in parts.items()} != {key: len(boxes) for key, boxes in others.items()}:
        return False
    return all(_are_matched(boxes, others[key]) for key, boxes in parts.items())


def overlap(first: Box, second: Box) -> float:
    """Return intersection over union of two boxes in one picture; 1 for equal ones without area."""
    if first.thousandths == second.thousandths:
        return 1.0
    left, top, right, bottom = first.thousandths
    other_left, other_top, other_right, other_bottom = second.thousandths
    width = min(right, other_right) - max(left, other_left)
    height = min(bottom, other_bottom) - max(top, other_top)
    shared = max(0, width) * max(0, height)
    union = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top) - shared
    return shared / union if union else 0.0


def _by_label(boxes: Sequence[Box]) -> dict[tuple[str, int], list[Box]]:
    found: dict[tuple[str, int], list[Box]] = {}
    for box in boxes:
        found.setdefault((caseless(box.label), box.image), []).append(box)
    return found


def _are_matched(first: Sequence[Box], second: Sequence[Box]) -> bool:
    """Return whether all can be paired, one to one: a perfect matching, by augmenting paths."""
    near = [[place for place, other in enumerate(second) if overlap(box, other) >= LEAST_OVERLAP] for box in first]
    partner: dict[int, int] = {}  # of the second's boxes, those of the first
    taken: dict[int, int] = {}  # the other way
    for start in range(len(first)):
        came_from: dict[int, int] = {}
        place = _free_place(start, near, partner, came_from)
        if place is None:
            return False
        while place is not None:  # along the path each box takes the next place
            box = came_from[place]
            partner[place] = box
            before, taken[box] = taken.get(box), place
            place = before
    return True


def _free_place(start: int, near: list[list[int]], partner: dict[int, int], came_from: dict[int, int]) -> int | None:
    """Return a place without a partner that a path from a box ends at; `came_from` gets the way there."""
    waiting = [start]
    for box in waiting:  # grows as it is walked
        for place in near[box]:
            if place not in came_from:
                came_from[place] = box
                if place not in partner:
                    return place
                waiting.append(partner[place])
    return None
