"""The two tokens that a critic chooses from behind a step, and the score that their logits make."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.session.model_runtime import ModelRuntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.models.critic_description import CriticDescription

ROLE = "assistant\n"  # the text behind which a marker stands that the assistant answers


@dataclass(frozen=True)
class VerdictTokens:
    """Ids of a critic's tokens.

    Attributes:
        marker: what stands behind each step; one id where it is read before, mostly one where it is read at.
        positive, negative: the two that are compared.
    """

    marker: tuple[int, ...]
    positive: int
    negative: int

    def score(self, logits: NDArray[np.float32]) -> float:
        """Return the probability of the positive token in its softmax with the negative one, from float32 [n_vocab]."""
        apart = float(logits[self.negative]) - float(logits[self.positive])
        # Of a large difference the exponential overflows; the other way round it only vanishes.
        return 1 / (1 + math.exp(apart)) if apart < 0 else math.exp(-apart) / (1 + math.exp(-apart))


def verdict_tokens(runtime: ModelRuntime, description: CriticDescription) -> VerdictTokens:
    """Return the ids that a description means in a model's vocabulary.

    Raises:
        InvalidRequestError: a word that is not exactly one token where it stands in the prompt.
    """
    tokenize = runtime.engine.model.tokenize
    before = ROLE if description.steps == "user" else ""
    after = "" if description.read == "at" else before
    return VerdictTokens(
        (_single(tokenize, description, "marker", before),),
        _single(tokenize, description, "positive", after),
        _single(tokenize, description, "negative", after),
    )


def _single(tokenize: Callable[[str], tuple[int, ...]], description: CriticDescription, key: str, before: str) -> int:
    """Return the only token of one of a description's words, behind the text before it."""
    word = getattr(description, key)
    opening, whole = tokenize(before), tokenize(before + word)
    added = whole[len(opening) :]
    if whole[: len(opening)] != opening or len(added) != 1:
        count = len(added) if whole[: len(opening)] == opening else "no tokens of its own"
        found = f"{count} tokens" if isinstance(count, int) else count
        raise InvalidRequestError(
            f"{key} of the critic {description.name}, {word!r}, has {found} in this model's vocabulary, not one.",
            "Give a critic's model, or the description that it was trained for.",
        )
    return added[0]
