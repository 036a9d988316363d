"""Borda voting over self-certainty: ranks, equal answers, and candidates whose certainty is not known."""

from __future__ import annotations

import math

import pytest

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.judging import Candidate, certainty
from internvl_gguf.types import FinishReason
from tests.judging.answers import FREE, reply

LONG = "It is a long description of what one sees there, with many words but no answer in it, number {}."


def candidates(*given: tuple[str, float | None], reasons: list[FinishReason] | None = None) -> list[Candidate]:
    return [
        Candidate(place, reply(text, reason=reasons[place] if reasons else "stop"), certainty=known)
        for place, (text, known) in enumerate(given)
    ]


def test_free_text_goes_to_the_most_certain() -> None:
    verdict = certainty(FREE, candidates((LONG.format(1), 3.0), (LONG.format(2), 7.5), (LONG.format(3), 5.0)))
    assert verdict.best == 1
    assert verdict.reason == "certainty 7.50, 1 of 3 agree"
    assert verdict.groups == ((1,), (2,), (0,))


def test_equal_long_texts_are_one_answer() -> None:
    assert len(certainty(FREE, candidates((LONG, 1.0), (LONG.upper(), 2.0), (f"{LONG} Indeed.", 1.0))).groups) == 2


def test_votes_of_equal_answers_add_up_by_rank() -> None:
    given = candidates(("5", 9.0), ("4", 8.0), ("4", 7.0))
    verdict = certainty(FREE, given, power=1.0)
    assert verdict.scores == pytest.approx((3 / 6, 3 / 6, 3 / 6))
    assert verdict.best == 0  # the votes are equal, and it came first
    assert certainty(FREE, given, power=0.0).best == 1
    assert certainty(FREE, given, power=2.0).best == 0


def test_those_cut_off_have_no_votes() -> None:
    verdict = certainty(FREE, candidates(("5", 9.0), ("4", 1.0), reasons=["length", "stop"]))
    assert (verdict.best, verdict.scores) == (1, (0.0, 1.0))


def test_unknown_certainty_ranks_last_and_if_none_is_known_the_majority_decides() -> None:
    assert certainty(FREE, candidates((LONG, None), (LONG, math.nan), (LONG, 0.1))).best == 2
    verdict = certainty(FREE, candidates(("4", None), ("5", None), ("5", None)))
    assert (verdict.best, verdict.reason) == (1, "certainty is not known, 2 of 3 agree")
    assert certainty(FREE, candidates((LONG.format(1), None), (LONG.format(2), None))).best == 0


@pytest.mark.parametrize("power", [-1.0, math.nan, math.inf, "1"])
def test_a_power_that_is_none_is_refused(power: float) -> None:
    with pytest.raises(InvalidRequestError, match="power"):
        certainty(FREE, candidates(("4", 1.0)), power=power)
