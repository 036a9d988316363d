"""Rank the quants that fit: expected loss weighed against seconds of an answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from internvl_gguf.hardware.device_speed import Roofline
from internvl_gguf.planning.candidates import Candidate
from internvl_gguf.planning.loss_scale import LITTLE_LOSS, NO_LOSS, USABLE_LOSS
from internvl_gguf.planning.planner import Configuration, Cost, Planner, geometric_mean
from internvl_gguf.planning.task_scores import POINTS_PER_COST, Task
from internvl_gguf.planning.workload import MemoryBudget, Preference, Workload

# An answer within half a minute is soon enough; each doubling beyond it costs as much as a loss of 0.1.
_SOON: Final = 30.0
_PER_LOSS: Final = 10.0
# Twice the weights are worth as much as half of that: an 8B in 5 bits goes before a 14B in 3, a 14B in 4 before both.
_PER_DOUBLING: Final = 0.5
# Costs of one model's quants that differ by less are alike: seconds are known within a factor, and this is 7% of them.
_ALIKE: Final = 0.1


def cost_of(preference: Preference, task: Task | None = None) -> Cost:
    """Return the cost function of a preference; the configuration of the least cost is the best.

    balanced: configurations that lie on the GPUs whole and lose at most 0.12 come first; then the least
    10 x loss + log2(max(answer seconds, 30) / 30) - 0.5 x log2(billions of weights).
    quality: the same without GPUs and time, and each loss counts. speed: the seconds alone, in doublings, among
    configurations that lose little.

    Of a task, published points / 5 stand in place of the weights' term, and models of which none are published come
    behind those of which they are. With speed alone the points do not count.
    """
    if preference == "speed":
        return lambda found: (float(found.loss > LITTLE_LOSS), math.log2(geometric_mean(found.answer_seconds)))
    if preference == "quality":
        return lambda found: (
            _is_unknown(found, task),
            _worth(found, task, least=0.0),
            geometric_mean(found.answer_seconds),
        )
    return lambda found: (
        2 * float(not found.is_full or found.loss > USABLE_LOSS) + _is_unknown(found, task),
        _worth(found, task) + _waiting(found),
        geometric_mean(found.answer_seconds),
    )


def _worth(found: Configuration, task: Task | None, least: float = NO_LOSS) -> float:
    points = _points(found, task)
    if points is None:
        value = _PER_DOUBLING * math.log2(found.candidate.text.parameters / 1e9)
    else:
        value = points / POINTS_PER_COST
    return _PER_LOSS * max(found.loss, least) - value


def _points(found: Configuration, task: Task | None) -> float | None:
    """Return the published points of a model for a task; None without a task, and where none were published."""
    return None if task is None else found.candidate.scores.points.get(task)


def _is_unknown(found: Configuration, task: Task | None) -> float:
    """Return 1 for a model without published points for a task, else 0."""
    return float(task is not None and _points(found, task) is None)


def _waiting(found: Configuration) -> float:
    return math.log2(max(geometric_mean(found.answer_seconds), _SOON) / _SOON)


def rank(
    candidates: Iterable[Candidate],
    budget: MemoryBudget,
    workload: Workload,
    roofline: Roofline | None,
    preference: Preference = "balanced",
    task: Task | None = None,
) -> list[Configuration]:
    """Return every quant that fits, each in its best configuration, the best first.

    Args:
        candidates: the quants.
        budget: bytes that may be taken.
        workload: the work to be done.
        roofline: how fast the devices are; None assumes typical ones.
        preference: the user's preference.
        task: what the model is for: published scores for it are weighed, too.
    """
    cost = cost_of(preference, task)
    planner = Planner(budget, workload, roofline, cost)
    found = [configuration for candidate in candidates if (configuration := planner.best(candidate))]
    ranked = sorted(found, key=lambda each: (*cost(each), each.candidate.size))
    return ranked if preference == "quality" else _most_exact_first(ranked, cost)


def _most_exact_first(ranked: list[Configuration], cost: Cost) -> list[Configuration]:
    """Put first what loses least of the quants of the best model whose costs are like the best's."""
    if not ranked:
        return ranked
    best = ranked[0]
    (tier, least, *_) = cost(best)
    alike = [
        each
        for each in ranked
        if each.candidate.model == best.candidate.model and cost(each)[0] == tier and cost(each)[1] - least < _ALIKE
    ]
    first = min(alike, key=lambda each: max(each.loss, NO_LOSS))  # the earliest of several
    return [first, *(each for each in ranked if each is not first)]
