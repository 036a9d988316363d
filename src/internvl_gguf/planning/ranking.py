"""Which quant is the best of those that fit: what it loses weighed against what one waits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from internvl_gguf.hardware.device_speed import Roofline
from internvl_gguf.planning.candidates import Candidate
from internvl_gguf.planning.planner import Configuration, Cost, Planner, geometric_mean
from internvl_gguf.planning.workload import MemoryBudget, Preference, Workload

# Below this nobody tells the answers apart: Q8_0 loses 0.0014 (planning.quality).
NO_LOSS: Final = 0.002
# Above it answers suffer visibly: Q3_K_M loses 0.08, Q3_K_S 0.2.
USABLE_LOSS: Final = 0.12
# An answer within half a minute is soon enough; each doubling beyond it costs as much as a loss of 0.1.
_SOON: Final = 30.0
_PER_LOSS: Final = 10.0
# Twice the weights are worth as much as half of that: an 8B in 5 bits goes before a 14B in 3, a 14B in 4 before both.
_PER_DOUBLING: Final = 0.5


def cost_of(preference: Preference) -> Cost:
    """How configurations are compared: the least cost is the best.

    balanced: those first that lie on the GPUs whole and lose less than 0.12; of them the least of 10 x loss + log2 of
    the seconds of an answer by 30 (faster ones count as 30) - 0.5 x log2 of the billions of weights.
    quality: the same without GPUs and time. speed: the seconds alone, of those that lose less than 0.12.
    """
    if preference == "speed":
        return lambda found: (float(found.loss > USABLE_LOSS), geometric_mean(found.answer_seconds))
    if preference == "quality":
        return lambda found: (_worth(found), geometric_mean(found.answer_seconds))
    return lambda found: (
        float(not found.is_full or found.loss > USABLE_LOSS),
        _worth(found) + _waiting(found),
        geometric_mean(found.answer_seconds),
    )


def _worth(found: Configuration) -> float:
    billions = found.candidate.text.parameters / 1e9
    return _PER_LOSS * max(found.loss, NO_LOSS) - _PER_DOUBLING * math.log2(billions)


def _waiting(found: Configuration) -> float:
    return math.log2(max(geometric_mean(found.answer_seconds), _SOON) / _SOON)


def rank(
    candidates: Iterable[Candidate],
    budget: MemoryBudget,
    workload: Workload,
    roofline: Roofline | None,
    preference: Preference = "balanced",
) -> list[Configuration]:
    """Every quant that fits, each in its best configuration, the best first.

    Args:
        candidates: the quants.
        budget: bytes that may be taken.
        workload: what is to be done.
        roofline: how fast the devices are; None assumes it.
        preference: what counts.
    """
    cost = cost_of(preference)
    planner = Planner(budget, workload, roofline, cost)
    found = [configuration for candidate in candidates if (configuration := planner.best(candidate))]
    return sorted(found, key=lambda each: (*cost(each), each.candidate.size))
