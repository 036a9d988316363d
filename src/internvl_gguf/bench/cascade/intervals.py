"""How certain differences between two ways of answering the same questions are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Z: Final = 1.959963984540054  # of a normal distribution, for 95% two-sided
_RESAMPLES: Final = 2000
_SEED: Final = 1


@dataclass(frozen=True)
class Interval:
    """A number with its 95% confidence interval.

    Attributes:
        value: the number.
        low, high: the ends.
    """

    value: float
    low: float
    high: float


def gained_accuracy(right: NDArray[np.bool_], before: NDArray[np.bool_]) -> Interval:
    """Return the fraction of right answers gained over another way of answering the same questions.

    The interval is the adjusted one of Wald for matched pairs (Agresti and Min, 2005), which does not shrink to a point
    where both are right on the same questions.

    Args:
        right, before: which answers are right now and before, bool [questions].
    """
    n = len(right)
    gained, lost = int((right & ~before).sum()), int((~right & before).sum())
    more, fewer, all_ = gained + 0.5, lost + 0.5, n + 2
    centre = (more - fewer) / all_
    half = _Z * math.sqrt(more + fewer - (more - fewer) ** 2 / all_) / all_
    return Interval((gained - lost) / n, max(-1.0, centre - half), min(1.0, centre + half))


def saved_time(seconds: NDArray[np.float64], before: NDArray[np.float64], pictures: NDArray[np.int64]) -> Interval:
    """Return the fraction of the time that is saved, by a bootstrap over pictures (Efron, 1979), percentiles.

    Args:
        seconds, before: of each question now and before, float64 [questions].
        pictures: a number for the pictures of each question.
    """
    numbers = np.unique(pictures, return_inverse=True)[1]
    n = int(numbers.max()) + 1
    now, then = np.bincount(numbers, seconds, n), np.bincount(numbers, before, n)
    drawn = np.random.default_rng(_SEED).integers(0, n, (_RESAMPLES, n))
    saved = 1 - now[drawn].sum(axis=1) / then[drawn].sum(axis=1)
    low, high = np.quantile(saved, (0.025, 0.975))
    return Interval(float(1 - now.sum() / then.sum()), float(low), float(high))


def separation(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """Return how often a right answer is surer than a wrong one, 0.5 for chance (area under the ROC curve).

    Args:
        confidence: float64 [questions].
        right: bool [questions].

    Returns:
        None where all answers are right, or all are wrong.
    """
    high, low = confidence[right], confidence[~right]
    if not len(high) or not len(low):
        return None
    surer = (high[:, None] > low[None, :]).mean()
    return float(surer + (high[:, None] == low[None, :]).mean() / 2)
