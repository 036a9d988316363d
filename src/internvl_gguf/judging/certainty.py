"""Borda voting over self-certainty (arXiv 2502.18581): it needs no final answer, so it judges free text, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from internvl_gguf.judging.answer_key import answer_key
from internvl_gguf.judging.ballot import counted, grouped, tally
from internvl_gguf.judging.judge import Candidate, JudgedQuestion, Verdict
from internvl_gguf.utils.arguments import number, wrong

POWER: Final = 0.5
"""The exponent p that the authors' code has by default (github.com/backprop07/Self-Certainty, voting_from_list.py)."""


def certainty(question: JudgedQuestion, candidates: Sequence[Candidate], *, power: float = POWER) -> Verdict:
    """Choose by self-certainty: the candidate of rank r of N, the most certain first, has (N - r + 1)^p votes.

    Votes of equal final answers are added up, and the most certain candidate of the group with the most votes is the
    best. A text without a final answer equals no other. Equal votes go to the group that came first, equal certainty
    to the candidate that came first. Candidates whose certainty is not known rank last; if none is known, all have one
    vote. Scores are shares of the votes.

    Args:
        question: the question.
        candidates: one or more.
        power: the exponent p; 0 is a plain majority, and the larger, the less agreement counts.

    Raises:
        InvalidRequestError: a power that is none.
    """
    power = number("power", power)
    if not 0 <= power < math.inf:
        raise wrong("power", power, "Give 0 or a positive number.")
    places = counted(candidates)
    ranked = sorted(places, key=lambda place: -_certainty(candidates[place]))
    is_known = any(_certainty(candidates[place]) > -math.inf for place in places)
    votes = {place: float(len(ranked) - rank) ** power if is_known else 1.0 for rank, place in enumerate(ranked)}
    keys = [answer_key(question, each.reply) for each in candidates]
    groups = grouped(places, keys)
    sums = [math.fsum(votes[place] for place in group.places) for group in groups]
    order = sorted(range(len(groups)), key=lambda place: -sums[place])
    total = math.fsum(votes.values())
    scores = [0.0] * len(candidates)
    for group, votes_of_group in zip(groups, sums, strict=True):
        for place in group.places:
            scores[place] = votes_of_group / total
    winner = groups[order[0]]
    best = min(winner.places, key=ranked.index)
    reason = _reason(len(winner.places), candidates, candidates[best].certainty if is_known else None)
    return Verdict(best, tuple(scores), scores[best], reason, tuple(tuple(groups[each].places) for each in order))


def _certainty(candidate: Candidate) -> float:
    known = candidate.certainty
    return -math.inf if known is None or math.isnan(known) else known


def _reason(n_agreed: int, candidates: Sequence[Candidate], best: float | None) -> str:
    how = "certainty is not known" if best is None else f"certainty {best:.2f}"
    return f"{how}, {tally(n_agreed, candidates)}"
