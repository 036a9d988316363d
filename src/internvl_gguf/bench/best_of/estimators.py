"""What fewer answers to a question would have got, from more that are there: one run serves every number of answers.

Answers that are sampled alike are exchangeable, so any n of them stand for n that were sampled by themselves. The mean
over all subsets of n is an unbiased estimate with the least variance (a U-statistic: Hoeffding 1948); over some of
them, drawn at random, it is unbiased still (Blom 1976). For "is any of them right" the mean has a closed form, which is
pass@k of the Codex paper (arXiv 2107.03374, section 2.1). What a judge chooses has none, since its choice depends on
which others are there: it judges the subsets.

A first answer that is greedy is not exchangeable with the sampled ones. It is in every subset, as it is in every
best_of; the others are drawn beside it.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Final

from internvl_gguf.bench.quality.accuracy import Z_95

MOST_SUBSETS: Final = 128
"""Subsets that are judged for each question and number; where there are no more than that, all are."""


def pass_at(right: Sequence[bool], n: int, *, first_stays: bool) -> float:
    """Return the probability that at least one of n answers is right: 1 - C(wrong, n) / C(all, n).

    Args:
        right: for each answer whether it is right; n or more.
        n: number of answers.
        first_stays: whether the first is always among them; the others are then n - 1 of the rest.
    """
    if first_stays:
        return 1.0 if right[0] else pass_at(right[1:], n - 1, first_stays=False)
    wrong = len(right) - sum(right)
    return 1 - math.comb(wrong, n) / math.comb(len(right), n)


def subsets(count: int, n: int, *, first_stays: bool, draw: random.Random) -> list[tuple[int, ...]]:
    """Return subsets of n of the places 0 to count - 1, each in ascending order: all of them, or `MOST_SUBSETS`.

    Args:
        count: number of answers, n or more.
        n: number of places in each, 1 or more.
        first_stays: whether place 0 is in each.
        draw: draws them where there are too many to take all; each is as likely as any other.
    """
    kept = (0,) if first_stays else ()
    others, wanted = range(len(kept), count), n - len(kept)
    if math.comb(len(others), wanted) <= MOST_SUBSETS:
        return [(*kept, *chosen) for chosen in itertools.combinations(others, wanted)]
    return [(*kept, *sorted(draw.sample(others, wanted))) for _ in range(MOST_SUBSETS)]


def mean_sum(values: Sequence[float], n: int, *, first_stays: bool) -> float:
    """Return the mean over all subsets of n of the sum of their values, such as the tokens of n answers."""
    if not first_stays:
        return n * math.fsum(values) / len(values)
    others = values[1:]
    return values[0] + ((n - 1) * math.fsum(others) / len(others) if n > 1 else 0.0)


def paired_gain(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Return by how much the second is above the first in the mean, and the ends of its 95% interval.

    Both are about the same questions, so that what is hard in the questions counts on neither side: the interval is
    that of the mean of the differences, by the normal distribution. It is narrower than intervals of each suggest.

    Args:
        one, other: a value for each question, in the same order; (0, -1, 1) without questions.
    """
    differences = [after - before for before, after in zip(one, other, strict=True)]
    if not differences:
        return 0.0, -1.0, 1.0
    mean = math.fsum(differences) / len(differences)
    if len(differences) == 1:
        return mean, -1.0, 1.0
    variance = math.fsum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
    half = Z_95 * math.sqrt(variance / len(differences))
    return mean, max(-1.0, mean - half), min(1.0, mean + half)
