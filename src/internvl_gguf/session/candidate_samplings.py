"""How several answers to one question are sampled, so that they differ."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

from internvl_gguf.config import MAX_SEED, SamplingParams

SAMPLED_TEMPERATURE: Final = 0.7
SAMPLED_TOP_P: Final = 0.95
"""How candidates beside the first are sampled where nothing else is said: the published best-of-8 of InternVL3, whose
first answer is greedy (VLMEvalKit)."""


def samplings_of(sampling: SamplingParams) -> list[SamplingParams]:
    """Return how each candidate of a question is sampled: with seeds that follow one another.

    Where no temperature is given, the first is greedy and the others are sampled as in the published best-of-8; with
    thinking, all are sampled as thoughts are.
    """
    first = secrets.randbelow(MAX_SEED + 1) if sampling.seed is None else sampling.seed
    seeded = [replace(sampling, seed=(first + index) % (MAX_SEED + 1), best_of=1) for index in range(sampling.best_of)]
    if sampling.temperature is not None or sampling.thinks:
        return seeded
    top_p = SAMPLED_TOP_P if sampling.top_p is None else sampling.top_p
    others = [replace(each, temperature=SAMPLED_TEMPERATURE, top_p=top_p) for each in seeded[1:]]
    return [replace(seeded[0], temperature=0.0, seed=None), *others]
