"""Right and wrong answers in one sequence behind their pictures: what a critic is trained on.

The conversation is the one in which the demo model answers, and an answer sees no other answer. So the demo's layers
compute for each token of an answer what they computed when it was written, and what they expected in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from training.critic_cases import spoiled
from training.packing import answer_cue
from training.scoring import JSON_SUITES, values_right

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from numpy.typing import NDArray

    from training.questions import Question
    from training.tokenizer import Tokenizer

RIGHT, WRONG = "+", "-"
"""The tokens of its verdict, told behind the last token of an answer."""
MOST_WRONG, MOST_PLACES = 3, 16
Others = tuple[tuple[int, int], ...]
"""Wrong tokens, each with the place in the right answer that it stands in."""


@dataclass(frozen=True)
class Judged:
    """A question with several answers, and for each whether it is right."""

    question: Question
    answers: tuple[str, ...]
    right: tuple[bool, ...]


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer is right as the exam counts it: to the letter, or the values of its JSON."""
    if question.kind in JSON_SUITES:
        return values_right(question.answer, answer) == 1
    return answer == question.answer


def can_be_judged(question: Question) -> bool:
    """Whether a critic is shown the tokens that the model wrote; special ones in an answer are shown as text."""
    return not question.marked and "<" not in question.answer


def judged(question: Question, said: Sequence[str], likely: Sequence[str], rng: Random) -> Judged:
    """The right answer, what the model said, and made-up mistakes where it said less wrong than two answers.

    Args:
        question: what was asked.
        said: the model's answers; "" is passed over.
        likely: mistakes that the model is likely to make, if it said none.
        rng: draws.
    """
    others = [answer for answer in dict.fromkeys(said) if answer not in ("", question.answer)]
    rng.shuffle(others)
    made_up = [spoiled(question.answer, rng), *likely]
    rng.shuffle(made_up)
    wrong = [answer for answer in others if not is_right(question, answer)][:MOST_WRONG]
    wrong += [answer for answer in dict.fromkeys(made_up) if answer not in wrong and not is_right(question, answer)]
    answers = (question.answer, *wrong[: max(2, min(len(others), MOST_WRONG))])
    return Judged(question, answers, tuple(is_right(question, answer) for answer in answers))


def mistaken(answer: Sequence[int], expected: NDArray[np.float32], end: int, rng: Random) -> list[int]:
    """An answer with a token that the model expects put for one that it does not expect.

    Args:
        answer: the right one's tokens.
        expected: probabilities of all tokens in the place of each of them [tokens, vocabulary].
        end: the token that ends an answer; put for another one, it cuts the answer there.
        rng: draws.
    """
    own = expected[np.arange(len(answer)), answer]
    at = rng.choices(range(len(answer)), weights=(1.001 - own).tolist())[0]
    other = _another(answer[at], expected[at], rng)
    return list(answer[:at]) if other == end else [*answer[:at], other, *answer[at + 1 :]]


def other_tokens(answer: Sequence[int], expected: NDArray[np.float32], end: int, rng: Random) -> Others:
    """For tokens of a right answer others that the model expects most in their place; arguments as of `mistaken`."""
    places = range(len(answer)) if len(answer) <= MOST_PLACES else rng.sample(range(len(answer)), MOST_PLACES)
    drawn = ((at, _another(answer[at], expected[at], rng)) for at in places for _ in range(2))
    return tuple(dict.fromkeys((at, other) for at, other in drawn if other != end))


def _another(token: int, expected: NDArray[np.float32], rng: Random) -> int:
    """Another token, as likely as the model finds it in this place [vocabulary]."""
    others = expected.copy()
    others[token] = 0
    others[others < 0.02 * others.max()] = 0
    return rng.choices(range(len(others)), weights=others.tolist())[0]


@dataclass(frozen=True)
class JudgedRow:
    """The sequence of a case.

    Attributes:
        ids: token ids; context tokens hold the visual tokens' places [tokens].
        branch: 0 in the shared beginning, then 1, 2, ...: a question or an answer [tokens].
        stem: the question's branch that an answer goes on from, else 0 [tokens].
        parent: the right answer's branch, of a token that goes on from the beginning of that, else 0 [tokens].
        positions: rotary positions [tokens].
        before: index of the token that an answer's token follows, -1 elsewhere [tokens].
        truth: 1 at tokens of an answer up to the first wrong one, which has 0; -1 elsewhere [tokens].
        ends: index of the last token of each answer, where the verdict is told [answers].
        right: whether the answer is right [answers].
        asked: the number of its question [answers].
        kinds: kind of each question.
    """

    ids: NDArray[np.int64]
    branch: NDArray[np.int64]
    stem: NDArray[np.int64]
    parent: NDArray[np.int64]
    positions: NDArray[np.int64]
    before: NDArray[np.int64]
    truth: NDArray[np.int64]
    ends: NDArray[np.int64]
    right: NDArray[np.bool_]
    asked: NDArray[np.int64]
    kinds: tuple[str, ...]


def judged_row(
    tokenizer: Tokenizer, shared: list[int], questions: Sequence[Judged], others: Sequence[Others] = ()
) -> JudgedRow:
    """Lay out questions with their answers behind a shared beginning, as `packing.beginning` gives it.

    Args:
        tokenizer: the model's.
        shared: the beginning.
        questions: their right answers come first.
        others: for each question, wrong tokens in the place of tokens of its right answer; each is a branch.
    """
    columns: list[tuple[int, int, int, int, int, int, int]] = [
        (token, 0, 0, 0, position, -1, -1) for position, token in enumerate(shared)
    ]
    ends: list[tuple[int, bool, int]] = []
    branches = 0
    for number, each in enumerate(questions):
        branches += 1
        stem = branches
        asked = [*tokenizer.encode(each.question.text), *answer_cue(tokenizer)]
        columns += [(token, stem, 0, 0, len(shared) + at, -1, -1) for at, token in enumerate(asked)]
        last, position = len(columns) - 1, len(shared) + len(asked)
        wanted = tokenizer.encode(each.question.answer)
        for answer, right in zip(each.answers, each.right, strict=True):
            branches += 1
            told = tokenizer.encode(answer)
            truth = _truth(told, wanted, right)
            for at, token in enumerate(told):
                before = len(columns) - 1 if at else last
                columns.append((token, branches, stem, 0, position + at, before, truth[at]))
            ends.append((len(columns) - 1, right, number))
        for at, token in others[number] if others else ():
            branches += 1
            before = last + at  # the right answer stands behind its question
            columns.append((token, branches, stem, stem + 1, position + at, before, 0))
    ids, branch, stems, parents, positions, befores, truths = map(np.array, zip(*columns, strict=True))
    where, right_ones, numbers = map(np.array, zip(*ends, strict=True))
    kinds = tuple(each.question.kind for each in questions)
    return JudgedRow(ids, branch, stems, parents, positions, befores, truths, where, right_ones, numbers, kinds)


def _truth(told: list[int], wanted: list[int], right: bool) -> list[int]:
    if right:
        return [1] * len(told)
    same = [told[at : at + 1] == wanted[at : at + 1] for at in range(len(told))]
    first = same.index(False) if False in same else len(told)
    return ([1] * first + [0] + [-1] * len(told))[: len(told)]
