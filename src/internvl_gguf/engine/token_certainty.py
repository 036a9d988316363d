"""How likely each token of an answer was, and how sure the model was at its place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from internvl_gguf.types import TokenLogprobs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.llama.context import Context


class CertaintyLogprobs:
    """Tells of every token how likely it was, and how sure the model was of what stands there.

    A pass over a vocabulary of 150,000 takes 0.2 ms; only answers that are compared with others pay for it.
    """

    def of(self, token: int, context: Context | None, row: int = 0) -> TokenLogprobs:
        """Return both numbers of the next token of the answer; NaN where it had to follow and nothing was computed.

        Args:
            token: the token.
            context: holds the logits that it was chosen from, in this row of the last decode; None if there are none.
        """
        if context is None:
            return TokenLogprobs(token, math.nan)
        return certainty_of(context.logits(row), token)


def certainty_of(logits: NDArray[np.float32], token: int) -> TokenLogprobs:
    """Return how likely a token was, and the self-certainty of the distribution at its place.

    Self-certainty (arXiv 2502.18581) is the divergence of the distribution p from the uniform one u over the vocabulary
    V, in nats: KL(u || p) = -1/V sum_v log(V p_v) = log sum_v exp(l_v) - mean(l) - log V, by the logits l.

    Args:
        logits: float32 [n_vocab].
        token: the token.
    """
    import numpy as np

    highest = float(logits.max())
    normaliser = highest + math.log(np.exp(logits - highest).sum(dtype=np.float64))
    certainty = normaliser - float(logits.mean(dtype=np.float64)) - math.log(len(logits))
    return TokenLogprobs(token, float(logits[token]) - normaliser, certainty=max(0.0, certainty))
