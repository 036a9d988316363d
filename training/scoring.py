"""How right an answer is: to the letter, by the values of its JSON, or by where its boxes lie."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training.boxes import boxes_in, overlap

if TYPE_CHECKING:
    from training.exam import Item

JSON_SUITES = ("json", "receipts")
BOX_SUITES = ("boxes", "boxes of writing", "boxes of several", "detection")
LEAST_OVERLAP = 0.5


def score(item: Item, said: str) -> float:
    """How much of the answer is right, 0 to 1.

    Of JSON the part of the values, of boxes the part of the things whose box overlaps the right one by half of their
    union at least (boxes too many count against it), of other answers all or nothing.
    """
    if item.suite in JSON_SUITES:
        return values_right(item.answer, said)
    if item.suite in BOX_SUITES:
        return boxes_right(item.answer, said)
    return float(said == item.answer)


def values_right(wanted: str, said: str) -> float:
    """The part of the values of the wanted JSON that the answer has under the same keys."""
    try:
        found = dict(_leaves(json.loads(said)))
    except json.JSONDecodeError:
        return 0.0
    right = dict(_leaves(json.loads(wanted)))
    both = right.keys() | found.keys()
    if not both:
        return 1.0
    return sum(key in found and key in right and found[key] == right[key] for key in both) / len(both)


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [leaf for index, inner in enumerate(value) for leaf in _leaves(inner, f"{path}[{index}]")]
    return [(path, value)]


def boxes_right(wanted: str, said: str) -> float:
    """The part of the labelled boxes that are found, of those there are or of those said if that is more."""
    right, found = boxes_in(wanted), boxes_in(said)
    if not right:
        return float(said == wanted)
    hit = 0
    left = list(found)
    for label, box in right:
        matches = [other for other in left if other[0] == label and overlap(box, other[1]) >= LEAST_OVERLAP]
        if matches:
            left.remove(matches[0])
            hit += 1
    return hit / max(len(right), len(found))
