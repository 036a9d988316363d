"""Self-consistency: the answer that most candidates give, weighted by how confident they are.

The vote is that of self-consistency (arXiv 2203.11171); the weights are confidences, as in DeepConf (arXiv 2508.15260).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Final

from internvl_gguf.judging.answer_key import AnswerKey, answer_key
from internvl_gguf.judging.ballot import Group, counted, grouped, tally
from internvl_gguf.judging.certainty import certainty
from internvl_gguf.judging.judge import Candidate, JudgedQuestion, Verdict

_ROUNDING: Final = 1e-9
"""More than sums of weights are rounded by."""


def vote(question: JudgedQuestion, candidates: Sequence[Candidate]) -> Verdict:
    """Choose the most confident candidate of the answer with the largest weight.

    A candidate weighs exp(logprob), the geometric mean of the probabilities of its tokens; 1 where that is not known.
    Equal weights go to the answer that came first. Those that were cut off or aborted count only if all were. If fewer
    than half have an answer that can be compared, `certainty` judges, and the reason says so. Scores are shares of the
    weight, of which candidates without such an answer have theirs.

    Args:
        question: the question.
        candidates: one or more.
    """
    places = counted(candidates)
    keys = [answer_key(question, each.reply) for each in candidates]
    voters = [place for place in places if _votes(keys[place])]
    if 2 * len(voters) < len(places):
        verdict = certainty(question, candidates)
        return replace(verdict, reason=f"free text, so by {verdict.reason}")
    groups = grouped(voters, keys)
    weights = [_weight_of(group, candidates) for group in groups]
    order = sorted(range(len(groups)), key=lambda place: -weights[place])
    total = math.fsum(_weight(candidates[place]) for place in places)
    scores = [0.0] * len(candidates)
    for group, weight in zip(groups, weights, strict=True):
        for place in group.places:
            scores[place] = min(1.0, weight / total) if total else 0.0
    winner = groups[order[0]]
    best = max(winner.places, key=lambda place: _weight(candidates[place]))
    reason = tally(len(winner.places), candidates)
    return Verdict(best, tuple(scores), scores[best], reason, tuple(tuple(groups[each].places) for each in order))


def is_decided(question: JudgedQuestion, candidates: Sequence[Candidate], n: int) -> bool:
    """Return whether the vote cannot change any more, whatever the candidates that are still missing answer.

    It is decided when the answer that leads is ahead of every other, and of any that is not there yet, by more than the
    missing candidates can weigh, 1 each. The winning answer is then the same as with all of them; which candidate is
    chosen for it may differ, since a later one may be more confident.

    Args:
        question: the question.
        candidates: those that are there, in any order; their `index` says which they are.
        n: number of all candidates.
    """
    if len(candidates) >= n:
        return True
    ended = sorted((each for each in candidates if each.reply.finish_reason == "stop"), key=lambda each: each.index)
    keys = [answer_key(question, each.reply) for each in ended]
    settled = ended
    if any(key is not None and key.kind == "boxes" for key in keys):
        # Which group boxes join depends on those before them: what comes behind a gap is not settled.
        gap = _first_missing(candidates)
        settled = [each for each in ended if each.index < gap]
    n_missing = n - len(candidates) + len(ended) - len(settled)
    voters = [place for place in range(len(settled)) if _votes(keys[place])]
    if not voters or 2 * len(voters) < n:
        return False
    weights = sorted((_weight_of(group, settled) for group in grouped(voters, keys)), reverse=True)
    return weights[0] > (weights[1] if len(weights) > 1 else 0.0) + n_missing + _ROUNDING


def _votes(key: AnswerKey | None) -> bool:
    """Return whether an answer can be voted on: two long texts are hardly ever equal."""
    return key is not None and key.kind != "long text"


def _first_missing(candidates: Sequence[Candidate]) -> int:
    there = {each.index for each in candidates}
    return next(index for index in count() if index not in there)


def _weight_of(group: Group, candidates: Sequence[Candidate]) -> float:
    # Exactly rounded, so that the order in which candidates come does not matter.
    return math.fsum(_weight(candidates[place]) for place in group.places)


def _weight(candidate: Candidate) -> float:
    logprob = candidate.logprob
    return 1.0 if logprob is None or math.isnan(logprob) else math.exp(min(0.0, logprob))
