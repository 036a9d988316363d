"""Self-certainty of a next-token distribution: how far it is from knowing nothing (arXiv 2502.18581)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def self_certainty(logprobs: NDArray[Any]) -> float:
    """Return KL(uniform || p) in nats, the paper's -(1/V) sum_v log(V p_v): 0 for a uniform p, the larger the surer.

    With logits l in place of logprobs it is logsumexp(l) - mean(l) - log V, which adding a number to all of them does
    not change; so logits may be given as they are, and are read twice instead of being normalised first.

    Args:
        logprobs: natural-log probabilities or logits of all V tokens, finite, float [V].
    """
    import numpy as np

    highest = logprobs.max()
    spread = math.log(np.exp(logprobs - highest).sum(dtype=np.float64))
    certainty = spread + float(highest) - float(logprobs.mean(dtype=np.float64)) - math.log(logprobs.size)
    return max(0.0, certainty)  # rounding may leave a uniform one a little below
