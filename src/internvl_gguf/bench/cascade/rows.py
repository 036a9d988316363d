"""The rows of a report on cascades, made from the answers of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from internvl_gguf.bench.cascade.fit import FOLDS, cross_validated, fitted, frontier
from internvl_gguf.bench.cascade.intervals import gained_accuracy, saved_time, separation
from internvl_gguf.bench.cascade.policy import Ladder, Outcome, oracle, single
from internvl_gguf.bench.cascade.results import CascadeRow, Curve, CurvePoint, Kind
from internvl_gguf.bench.quality.accuracy import wilson_interval
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    from internvl_gguf.bench.cascade.answers import ModelAnswers

FEWEST: Final = 2 * FOLDS
"""Questions below which there is nothing to fit."""


def rows_of(
    models: Sequence[str], answers: Mapping[int, Sequence[ModelAnswers]], pictures: Sequence[object]
) -> tuple[tuple[CascadeRow, ...], tuple[Curve, ...]]:
    """Return the rows of a report: each model, its votes, the cascades, the oracle; and the curves of the cascades.

    Args:
        models: their names, the smallest first.
        answers: of each model, by the number of answers to a question, 1 among them.
        pictures: the pictures of each question of the set.

    Raises:
        InvalidRequestError: too few questions were answered.
    """
    ladders = {best_of: Ladder.of(found, pictures) for best_of, found in sorted(answers.items())}
    fewest = min(ladder.n_questions for ladder in ladders.values())
    if fewest < FEWEST:
        raise InvalidRequestError(
            f"{fewest} questions were answered: too few to fit a threshold to.",
            f"Give {FEWEST} or more; a hundred are few.",
        )
    last = single(ladders[1], len(models) - 1)
    rows = [
        _row("vote" if best_of > 1 else "model", _of_one(model, best_of), best_of, single(ladder, place), (), ladder)
        for best_of, ladder in ladders.items()
        for place, model in enumerate(models)
    ]
    for best_of, ladder in ladders.items():
        name = ", then ".join(models) + (f", votes of {best_of}" if best_of > 1 else "")
        rows.append(_row("cascade", name, best_of, cross_validated(ladder), fitted(ladder), ladder, last))
    rows.append(_row("oracle", "oracle", 1, oracle(ladders[1]), (), ladders[1]))
    return tuple(rows), tuple(_curve(best_of, ladder) for best_of, ladder in ladders.items())


def _of_one(model: str, best_of: int) -> str:
    return f"vote of {best_of} of {model}" if best_of > 1 else model


def _row(
    kind: Kind,
    name: str,
    best_of: int,
    outcome: Outcome,
    thresholds: tuple[float, ...],
    ladder: Ladder,
    last: Outcome | None = None,
) -> CascadeRow:
    questions, right = ladder.n_questions, int(outcome.right.sum())
    is_one = kind in ("model", "vote")
    counts = np.bincount(outcome.answered_by, minlength=ladder.n_models) / questions
    low, high = wilson_interval(right, questions)
    place = int(outcome.answered_by[0])
    is_comparable = last is not None and len(last.right) == questions
    return CascadeRow(
        kind,
        name,
        best_of,
        questions,
        right,
        low,
        high,
        outcome.mean_seconds,
        shares=() if is_one else tuple(map(float, counts)),
        thresholds=thresholds,
        separation=separation(ladder.confidence[place], outcome.right) if is_one else None,
        gained=gained_accuracy(outcome.right, last.right) if last and is_comparable else None,
        saved=saved_time(outcome.seconds, last.seconds, ladder.pictures) if last and is_comparable else None,
    )


def _curve(best_of: int, ladder: Ladder) -> Curve:
    points = (CurvePoint(each, outcome.accuracy, outcome.mean_seconds) for each, outcome in frontier(ladder))
    return Curve(best_of, tuple(points))
