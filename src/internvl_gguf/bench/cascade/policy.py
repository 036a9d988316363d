"""The answers of a cascade, found from the answers of each of its models to every question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from internvl_gguf.bench.cascade.answers import ModelAnswers


@dataclass(frozen=True)
class Ladder:
    """The answers of several models, the smallest first, to the same questions.

    Attributes:
        right: whether each answer is right, bool [models, questions].
        confidence: how sure each model is, 0 to 1, float64 [models, questions].
        alone: seconds of each model if it is asked alone, float64 [models, questions].
        after: seconds of each model if it is asked after those before it, float64 [models, questions]: without those
            of the vision encoder where an earlier model has the same one.
        pictures: a number for the pictures of each question, the same for the same ones, int64 [questions].
    """

    right: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    alone: NDArray[np.float64]
    after: NDArray[np.float64]
    pictures: NDArray[np.int64]

    @classmethod
    def of(cls, models: Sequence[ModelAnswers], pictures: Sequence[object]) -> Self:
        """Put the answers of models together; questions that one of them could not be asked are left out.

        Args:
            models: the smallest first.
            pictures: the pictures of each question of the set, by their place in it.
        """
        asked = [{each.item: each for each in model.answers} for model in models]
        items = sorted(set.intersection(*(set(answers) for answers in asked)))
        numbers: dict[object, int] = {}
        of_items = [numbers.setdefault(pictures[item], len(numbers)) for item in items]
        alone = np.array([[answers[item].seconds for item in items] for answers in asked], dtype=np.float64)
        encode = np.array([[answers[item].encode for item in items] for answers in asked], dtype=np.float64)
        known = [model.encoder in {each.encoder for each in models[:place]} for place, model in enumerate(models)]
        return cls(
            np.array([[answers[item].is_right for item in items] for answers in asked], dtype=np.bool_),
            np.array([[answers[item].confidence for item in items] for answers in asked], dtype=np.float64),
            alone,
            alone - np.where(np.array(known)[:, None], encode, 0.0),
            np.array(of_items, dtype=np.int64),
        )

    @property
    def n_models(self) -> int:
        """Number of models."""
        return len(self.right)

    @property
    def n_questions(self) -> int:
        """Number of questions."""
        return int(self.right.shape[1])

    def only(self, places: NDArray[np.int64]) -> Ladder:
        """Return the answers to some of the questions."""
        return Ladder(
            self.right[:, places],
            self.confidence[:, places],
            self.alone[:, places],
            self.after[:, places],
            self.pictures[places],
        )


@dataclass(frozen=True)
class Outcome:
    """The answer to every question, and its time.

    Attributes:
        right: bool [questions].
        seconds: float64 [questions].
        answered_by: place of the model that answers, int64 [questions].
    """

    right: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    answered_by: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Fraction of the answers that are right."""
        return float(self.right.mean())

    @property
    def mean_seconds(self) -> float:
        """Mean time of an answer."""
        return float(self.seconds.mean())


def single(ladder: Ladder, place: int) -> Outcome:
    """Return the outcome of asking one model alone."""
    answered_by = np.full(ladder.n_questions, place, dtype=np.int64)
    return Outcome(ladder.right[place], ladder.alone[place], answered_by)


def cascade(ladder: Ladder, thresholds: Sequence[float]) -> Outcome:
    """Return the outcome of asking the next model wherever the confidence is below the threshold.

    Args:
        ladder: the answers.
        thresholds: one for each model but the last.
    """
    asks_on = np.ones(ladder.n_questions, dtype=np.bool_)
    seconds = ladder.alone[0].copy()
    answered_by = np.zeros(ladder.n_questions, dtype=np.int64)
    for place, threshold in enumerate(thresholds, 1):
        asks_on = asks_on & (ladder.confidence[place - 1] < threshold)
        seconds = seconds + np.where(asks_on, ladder.after[place], 0.0)
        answered_by = np.where(asks_on, place, answered_by)
    right = ladder.right[answered_by, np.arange(ladder.n_questions)]
    return Outcome(right, seconds, answered_by)


def oracle(ladder: Ladder) -> Outcome:
    """Return the outcome of knowing for each question the fastest model that is right; the fastest where none is."""
    cost = np.where(ladder.right, ladder.alone, np.inf)
    none_right = ~ladder.right.any(axis=0)
    answered_by = np.where(none_right, ladder.alone.argmin(axis=0), cost.argmin(axis=0)).astype(np.int64)
    every = np.arange(ladder.n_questions)
    return Outcome(ladder.right[answered_by, every], ladder.alone[answered_by, every], answered_by)
