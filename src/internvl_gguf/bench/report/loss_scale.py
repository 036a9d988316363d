"""A scale for KL divergences: how much of a loss readers of answers notice.

The limits are a judgement, made from the published tables of llama.cpp (planning.expected_loss) and the demo model's
ladder (docs/bench.md): Q8_0 loses about 0.001 and Q6_K 0.005, which users call lossless; Q4_K_M about 0.03; from
Q3_K_S, 0.2, downwards they complain.
"""

from __future__ import annotations

from typing import Final

from internvl_gguf.planning.ranking import NO_LOSS

CLEAR_LOSS: Final = 0.1
"""Nats from which a loss shows clearly in answers."""
TEXT_SHARE: Final = 0.2
"""How much a loss on running text counts beside one in answers about pictures, which are what the model is for."""
SCALE: Final = f"Reading a KLD: up to {NO_LOSS} nobody sees it in answers, 0.01 rarely shows, {CLEAR_LOSS} clearly."

_RARE_LOSS: Final = 0.03  # between 0.01 and 0.1, by their geometric mean


def seen_in_answers(nats: float) -> str:
    """How a loss shows, as a predicate: "rarely shows"."""
    if nats <= NO_LOSS:
        return "nobody sees"
    if nats < _RARE_LOSS:
        return "rarely shows"
    return "shows now and then" if nats < CLEAR_LOSS else "shows clearly"
