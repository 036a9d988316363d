"""The vote: who wins, what ties do, who counts, and when nothing can change any more."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internvl_gguf.judging import Candidate, is_decided, vote
from internvl_gguf.types import Reply
from tests.judging.answers import FREE, box, candidates, reply

LONG = "There are many of them on the table, and some more lie under it where one does not see them at once, number {}."


def test_most_candidates_win_over_the_greedy_one() -> None:
    verdict = vote(FREE, candidates("4", "5", "There are some.\nAnswer: 5", "5.0", "6"))
    assert verdict.best == 1
    assert verdict.reason == "3 of 5 agree"
    assert verdict.confidence == pytest.approx(0.6)
    assert verdict.scores == pytest.approx((0.2, 0.6, 0.6, 0.6, 0.2))
    assert verdict.groups == ((1, 2, 3), (0,), (4,))


def test_a_confident_answer_outweighs_two_guesses() -> None:
    verdict = vote(FREE, candidates("4", "5", "5", logprobs=[math.log(0.9), math.log(0.4), math.log(0.4)]))
    assert verdict.best == 0
    assert verdict.confidence == pytest.approx(0.9 / 1.7)


def test_the_most_confident_of_the_winners_is_returned() -> None:
    assert vote(FREE, candidates("5", "5", "5", "4", logprobs=[-0.3, -0.1, -0.2, 0.0])).best == 1


def test_a_tie_goes_to_the_answer_that_came_first() -> None:
    assert vote(FREE, candidates("4", "5", "5", "4")).best == 0
    assert vote(FREE, candidates("5", "4", "4", "5", logprobs=[-0.1, -0.2, -0.1, -0.2])).best == 0


@pytest.mark.parametrize("logprobs", [[None] * 3, [math.nan] * 3, [-math.inf] * 3])
def test_without_confidence_the_count_decides(logprobs: list[float | None]) -> None:
    verdict = vote(FREE, candidates("5", "5", "4", logprobs=logprobs))
    assert verdict.best == 0
    assert 0 <= verdict.confidence <= 1


def test_a_candidate_that_was_cut_off_does_not_win_by_being_short() -> None:
    cut = reply("5", reason="length")
    verdict = vote(FREE, candidates(cut, cut, "6", reply("5", reason="aborted")))
    assert verdict.best == 2
    assert verdict.reason == "1 of 4 agree (2 cut off, 1 unfinished)"
    assert verdict.scores == (0.0, 0.0, 1.0, 0.0)


def test_if_all_were_cut_off_they_vote() -> None:
    verdict = vote(FREE, candidates(*[reply(text, reason="length") for text in ("4", "5", "5")]))
    assert verdict.best == 1


def test_long_texts_are_judged_by_certainty_and_the_reason_says_so() -> None:
    texts = [LONG.format(number) for number in range(3)]
    judged = [Candidate(place, reply(text), certainty=[3.0, 5.0, 4.0][place]) for place, text in enumerate(texts)]
    verdict = vote(FREE, judged)
    assert verdict.best == 1
    assert verdict.reason == "free text, so by certainty 5.00, 1 of 3 agree"


def test_a_short_answer_does_not_win_over_many_long_ones() -> None:
    long = [Candidate(place, reply(LONG.format(place)), certainty=float(place)) for place in range(4)]
    assert vote(FREE, [*long, Candidate(4, reply("Many."), certainty=0.5)]).best == 3


def test_one_candidate_is_the_best_one() -> None:
    verdict = vote(FREE, candidates("4"))
    assert (verdict.best, verdict.confidence, verdict.reason) == (0, 1.0, "the only answer")


def test_boxes_are_grouped_by_the_first_of_each_group() -> None:
    """Each lies near the one before it, and the last not near the first: they are not all one answer."""
    chain = [reply(boxes=(box("cat", 0, start, 100, start + 100),)) for start in (0, 25, 50, 75)]
    assert vote(FREE, candidates(*chain)).groups == ((0, 1), (2, 3))


def test_a_vote_is_decided_once_the_rest_cannot_change_it() -> None:
    sure = [0.0] * 8
    assert not is_decided(FREE, candidates("5", "5", "5", "5", logprobs=sure), 8)
    assert is_decided(FREE, candidates("5", "5", "5", "5", "5", logprobs=sure), 8)
    assert not is_decided(FREE, candidates("5", "5", "5", "5", "5", logprobs=[-0.7] * 5), 8)
    assert not is_decided(FREE, candidates("5", "4", "5", "5", "5", logprobs=sure), 8)
    assert is_decided(FREE, candidates("5", "4"), 2)


def test_nothing_is_decided_by_those_that_were_cut_off_or_have_no_answer() -> None:
    assert not is_decided(FREE, candidates(*[reply("5", reason="length")] * 7), 8)
    assert not is_decided(FREE, candidates(*[LONG] * 7), 8)


def test_nothing_is_decided_while_too_few_have_an_answer_for_a_vote() -> None:
    """If the last one has none either, certainty judges, and chooses another."""
    there = candidates("5", "5", "5", *[LONG] * 4, logprobs=[0.0] * 7)
    assert not is_decided(FREE, there, 8)
    assert is_decided(FREE, candidates("5", "5", "5", "5", *[LONG] * 3, logprobs=[0.0] * 7), 8)


def test_boxes_behind_a_missing_candidate_are_not_settled() -> None:
    """The missing first one may take half of a group with it: the boxes that lie near it."""
    starts = [65, 40, 20, 20, 40, 20, 40]
    everyone = candidates(
        *[reply(boxes=(box("cat", 0, start, 100, start + 100),)) for start in starts], logprobs=[0.0] * 7
    )
    assert vote(FREE, everyone[1:]).groups == ((0, 1, 2, 3, 4, 5),)
    assert vote(FREE, everyone).groups == ((0, 1, 4, 6), (2, 3, 5))
    assert not is_decided(FREE, everyone[1:], 7)
    assert is_decided(FREE, candidates(*[everyone[1].reply] * 5, logprobs=[0.0] * 5), 7)


answers = st.tuples(
    st.sampled_from(["1", "2", "3", "Answer: 1", LONG]),
    st.sampled_from([0.0, -0.1, -0.5, -1.0, -3.0]),
    st.sampled_from(["stop", "stop", "stop", "length"]),
)
places = st.builds(
    lambda start, logprob: (reply(boxes=(box("cat", 0, start, 100, start + 100),)), logprob, "stop"),
    st.sampled_from([0, 20, 40, 60, 80]),
    st.sampled_from([0.0, -0.05, -0.3]),
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.lists(answers, min_size=1, max_size=10), st.lists(places, min_size=1, max_size=8)), st.randoms())
def test_the_winner_of_a_decided_vote_is_the_winner_of_all(given_answers: list[Any], random: Any) -> None:
    """Candidates end in any order; the others are aborted as soon as the vote is decided."""
    everyone = [
        Candidate(index, each if isinstance(each, Reply) else reply(each, reason=reason), logprob=logprob)
        for index, (each, logprob, reason) in enumerate(given_answers)
    ]
    whole = vote(FREE, everyone)
    for n_ended in range(1, len(everyone)):
        order = random.sample(everyone, len(everyone))
        there = sorted(order[:n_ended], key=lambda each: each.index)
        if is_decided(FREE, there, len(everyone)):
            stopped = [each if each in there else Candidate(each.index, reply(reason="aborted")) for each in everyone]
            early = vote(FREE, stopped)
            assert early.best in whole.groups[0]
            assert early.scores[early.best] == max(early.scores)


@given(st.lists(answers, min_size=1, max_size=10), st.randoms())
def test_the_order_of_candidates_changes_no_clear_vote(given_answers: list[Any], random: Any) -> None:
    everyone = candidates(
        *[reply(text, reason=reason) for text, _, reason in given_answers], logprobs=[each[1] for each in given_answers]
    )
    verdict = vote(FREE, everyone)
    best = sorted(set(verdict.scores), reverse=True)
    if len(verdict.groups) > 1 and sum(score == best[0] for score in verdict.scores) == len(verdict.groups[0]):
        shuffled = random.sample(everyone, len(everyone))
        other = vote(FREE, shuffled)
        if "certainty" not in verdict.reason:
            assert shuffled[other.best].index in verdict.groups[0]


def test_an_aborted_answer_counts_only_where_none_was_cut_by_its_limit() -> None:
    given = [reply("4", reason="aborted"), reply("4", reason="aborted"), reply("5", reason="length")]
    verdict = vote(FREE, candidates(*given))
    assert verdict.best == 2
    assert "2 unfinished" in verdict.reason
    assert vote(FREE, candidates(*given[:2])).best == 0
