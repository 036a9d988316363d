"""The scale for losses: what a mean KL divergence from the unquantised model means to a reader of its answers.

The limits are a judgement, made from the published tables of llama.cpp (`expected_loss`) and the demo model's ladder
(docs/bench.md): Q8_0 loses about 0.001 and Q6_K 0.005, which users call lossless; Q4_K_M about 0.03; from Q3_K_S, 0.2,
downwards they complain. `internvl pick` and `internvl bench` use it alike.
"""

from __future__ import annotations

import math
from typing import Final

NO_LOSS: Final = 0.002
"""Nats up to which answers cannot be told apart."""
LITTLE_LOSS: Final = 0.05
"""Nats up to which a loss rarely shows in answers."""
CLEAR_LOSS: Final = 0.1
"""Nats from which a loss shows clearly in answers."""
USABLE_LOSS: Final = 0.12
"""Nats above which a quant is a makeshift: Q3_K_M loses 0.08, with a Q8_0 cache 0.1, Q3_K_S 0.2."""
SCALE: Final = f"up to {NO_LOSS} nobody sees it in answers, 0.01 rarely shows, {CLEAR_LOSS} clearly"

_NOTHING: Final = 1e-6
_STEPS: Final = (
    (_NOTHING, "nothing", "nobody sees"),
    (NO_LOSS, "hardly any", "nobody sees"),
    (0.015, "very little", "rarely shows"),
    (LITTLE_LOSS, "little", "rarely shows"),
    (CLEAR_LOSS, "some", "shows now and then"),
    (0.4, "much", "shows clearly"),
    (math.inf, "very much", "shows clearly"),
)


def loss_in_words(nats: float) -> str:
    """Return how much a loss is: "little"."""
    return next(amount for limit, amount, _ in _STEPS if nats <= limit)


def seen_in_answers(nats: float) -> str:
    """Return how a loss shows, as a predicate: "rarely shows"."""
    return next(shows for limit, _, shows in _STEPS if nats <= limit)
