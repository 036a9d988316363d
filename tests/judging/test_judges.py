"""Judges by name and of the caller's own: what they return is checked, and what they raise is said."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from internvl_gguf.errors import InvalidRequestError, ServerError
from internvl_gguf.judging import (
    Candidate,
    JudgedQuestion,
    Verdict,
    certainty,
    judge_of,
    judged,
    verdict_of,
    vote,
)
from tests.judging.answers import FREE, candidates


def longest(question: JudgedQuestion, given: Sequence[Candidate]) -> list[float]:
    return [len(each.reply.text) for each in given]


def test_a_function_is_a_judge() -> None:
    verdict = judged(judge_of(longest), FREE, candidates("one", "eleven", "two"))
    assert verdict.best == 1
    assert verdict.scores == (3.0, 6.0, 3.0)
    assert verdict.reason == "score 6 (next 3)"
    assert 0 < verdict.confidence <= 1


def test_judges_have_names() -> None:
    assert judge_of("vote") is vote
    assert judge_of("certainty") is certainty
    for given in ("critic", 3, None, "Vote"):
        with pytest.raises(InvalidRequestError, match="judge is") as raised:
            judge_of(given)
        assert "'vote' or 'certainty'" in raised.value.hint


@pytest.mark.parametrize("scores", [[0.2, 0.9], (0.2, 0.9), np.array([0.2, 0.9], np.float64), [Fraction(1, 5), 0.9]])
def test_scores_are_a_verdict(scores: Any) -> None:
    verdict = verdict_of(scores, 2)
    assert (verdict.best, verdict.confidence) == (1, 0.9)
    assert all(type(score) is float for score in verdict.scores)


def test_of_equal_scores_the_first_is_the_best() -> None:
    verdict = verdict_of([-5, 1000, 1000], 3)
    assert (verdict.best, verdict.confidence) == (1, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (None, "None"),
        ("0.5", "'0.5'"),
        (0.5, "0.5"),
        ({0: 0.5, 1: 0.2}, "a dict"),
        ([0.5], "1 scores for 2"),
        ([0.5, 0.2, 0.1], "3 scores for 2"),
        ([0.5, float("nan")], "nan"),
        ([0.5, float("inf")], "inf"),
        ([0.5, "high"], "'high'"),
        ([0.5, None], "None"),
        ([0.5, True], "True"),
        (np.zeros((2, 2)), "ndarray"),
        (Verdict(2, (0.1, 0.2), 0.5, ""), "best"),
        (Verdict(-1, (0.1, 0.2), 0.5, ""), "best"),
        (Verdict(0, (0.1,), 0.5, ""), "1 scores"),
        (Verdict(0, (0.1, float("nan")), 0.5, ""), "nan"),
        (Verdict(0, (0.1, 0.2), 1.5, ""), "confidence"),
        (Verdict(0, (0.1, 0.2), float("nan"), ""), "confidence"),
    ],
)
def test_anything_else_is_refused_by_its_name(output: Any, named: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        verdict_of(output, 2)
    assert named in raised.value.message
    assert raised.value.hint
    assert "\n" not in raised.value.message + raised.value.hint


def test_a_judge_that_raises_is_named_and_its_error_is_kept() -> None:
    def broken(question: JudgedQuestion, given: Sequence[Candidate]) -> list[float]:
        raise KeyError("score")

    with pytest.raises(InvalidRequestError, match=r"The judge raised KeyError: 'score'\.") as raised:
        judged(broken, FREE, candidates("1", "2"))
    assert isinstance(raised.value.__cause__, KeyError)


def test_an_error_of_this_package_stays_what_it_is() -> None:
    def far(question: JudgedQuestion, given: Sequence[Candidate]) -> list[float]:
        raise ServerError("The server is away.", "Start it.")

    with pytest.raises(ServerError, match="away"):
        judged(far, FREE, candidates("1", "2"))


def test_ctrl_c_in_a_judge_is_no_error_of_its() -> None:
    def waiting(question: JudgedQuestion, given: Sequence[Candidate]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(waiting, FREE, candidates("1", "2"))
