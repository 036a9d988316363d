"""Four numbers of an answer to the corners of a box: mended where they can be, with a word for what was mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.types import BoxIssue

THOUSAND: Final = 1000
"""The model's coordinates of the right and lower edge of a picture, whatever its size."""

_DIGITS: Final = 20  # of a number that are read: an answer of a million digits is no number to compute with

Corners = tuple[int, int, int, int]


def mended_corners(numbers: Sequence[str]) -> tuple[Corners, list[BoxIssue]]:
    """Return left, top, right and bottom in thousandths, 0 <= left <= right <= 1000, and what was mended.

    Args:
        numbers: four numbers as the answer writes them, digits with perhaps a sign and a decimal point.
    """
    issues: list[BoxIssue] = []
    values = [float(number[:_DIGITS]) for number in numbers]
    if any("." in number for number in numbers):
        if all(0 <= value <= 1 for value in values):
            issues.append("fractions")
            values = [value * THOUSAND for value in values]
        else:
            issues.append("rounded")
    whole = [round(value) for value in values]
    clipped = [min(THOUSAND, max(0, value)) for value in whole]
    if clipped != whole:
        issues.append("clipped")
    left, top, right, bottom = clipped
    if left > right or top > bottom:
        issues.append("swapped")
    left, right = sorted((left, right))
    top, bottom = sorted((top, bottom))
    if left == right or top == bottom:
        issues.append("no area")
    return (left, top, right, bottom), issues


def in_pixels(corners: Corners, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return corners in pixels of an upright picture: thousandths times width or height, divided by 1000."""
    (left, top, right, bottom), (width, height) = corners, size
    return (
        left * width / THOUSAND,
        top * height / THOUSAND,
        right * width / THOUSAND,
        bottom * height / THOUSAND,
    )
