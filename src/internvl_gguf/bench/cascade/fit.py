"""Thresholds fitted to questions with known answers, and tried on questions that they were not fitted to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from internvl_gguf.bench.cascade.policy import Ladder, Outcome, cascade, single

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS: Final = 5
_MOST_TRIED: Final = 4000
"""Most combinations of thresholds that are tried."""
_DIGITS: Final = 4
"""Digits of a threshold behind the point."""


def fitted(ladder: Ladder) -> tuple[float, ...]:
    """Return the thresholds that take least time with no fewer right answers than the last model alone has.

    Where none has as many, they are those with the most right answers. Of thresholds that do the same the lowest are
    taken.
    """
    target = single(ladder, ladder.n_models - 1).right.sum()
    tried = [(thresholds, cascade(ladder, thresholds)) for thresholds in candidates(ladder)]
    enough = [each for each in tried if each[1].right.sum() >= target]
    if not enough:
        most = max(outcome.right.sum() for _, outcome in tried)
        enough = [each for each in tried if each[1].right.sum() == most]
    return min(enough, key=lambda each: (each[1].seconds.sum(), each[0]))[0]


def cross_validated(ladder: Ladder) -> Outcome:
    """Return the outcome of a cascade whose thresholds are fitted to other questions than those they decide on.

    The questions are dealt into `FOLDS` parts, those about the same pictures into one; the answers of each part are
    decided by thresholds that were fitted to the other parts.
    """
    right = np.zeros(ladder.n_questions, dtype=np.bool_)
    seconds = np.zeros(ladder.n_questions, dtype=np.float64)
    answered_by = np.zeros(ladder.n_questions, dtype=np.int64)
    for fold in folds(ladder.pictures):
        others = np.setdiff1d(np.arange(ladder.n_questions), fold)
        outcome = cascade(ladder.only(fold), fitted(ladder.only(others)))
        right[fold], seconds[fold], answered_by[fold] = outcome.right, outcome.seconds, outcome.answered_by
    return Outcome(right, seconds, answered_by)


def folds(pictures: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Deal questions into parts: those about the same pictures together, unless there are fewer pictures than parts.

    Args:
        pictures: a number for the pictures of each question, int64 [questions].

    Returns:
        Places of the questions of each part; no part is empty where there are `FOLDS` questions or more.
    """
    order = {number: place for place, number in enumerate(dict.fromkeys(pictures.tolist()))}
    dealt = np.array([order[number] for number in pictures.tolist()], dtype=np.int64)
    if len(order) < FOLDS:
        dealt = np.arange(len(pictures), dtype=np.int64)
    return [found for part in range(FOLDS) if len(found := np.flatnonzero(dealt % FOLDS == part))]


def candidates(ladder: Ladder) -> Iterator[tuple[float, ...]]:
    """Yield the thresholds worth trying: between the confidences there are, in every combination."""
    n_steps = ladder.n_models - 1
    most = max(2, int(_MOST_TRIED ** (1 / n_steps)))
    yield from itertools.product(*(_between(ladder.confidence[place], most) for place in range(n_steps)))


def frontier(ladder: Ladder) -> list[tuple[tuple[float, ...], Outcome]]:
    """Return the thresholds that no others beat in both time and right answers, the fastest first."""
    tried = [(thresholds, cascade(ladder, thresholds)) for thresholds in candidates(ladder)]
    tried.sort(key=lambda each: (each[1].mean_seconds, -each[1].accuracy))
    found: list[tuple[tuple[float, ...], Outcome]] = []
    for each in tried:
        if not found or each[1].accuracy > found[-1][1].accuracy:
            found.append(each)
    return found


def _between(confidence: NDArray[np.float64], most: int) -> Sequence[float]:
    values = np.unique(np.clip(confidence, 0.0, 1.0))
    middles = (values[1:] + values[:-1]) / 2
    if len(middles) > most - 2:
        middles = np.quantile(middles, np.linspace(0, 1, most - 2)) if most > 2 else middles[:0]
    return sorted({0.0, 1.0, *(round(float(value), _DIGITS) for value in middles)})
