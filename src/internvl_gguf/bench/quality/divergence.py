"""Divergence of next-token distributions from a reference's, recorded token by token and summarised at the end."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from internvl_gguf.bench.results import Divergence

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PERCENTS: Final = tuple(range(0, 101, 5))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return natural-log probabilities of finite logits, float64 [n_vocab]."""
    return normalised(logits.astype(np.float64))


def normalised(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise log-probabilities in place, so that their exponentials sum to one; return the same array."""
    logits -= logits.max()  # so that no exponential overflows
    logits -= math.log(np.exp(logits).sum())
    return logits


def kl_divergence(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the sum of p * (ln p - ln q) in nats, p the reference; both are log-probabilities, float64 [n_vocab].

    A result that rounding puts below zero is returned as zero.
    """
    weighted = reference - other
    weighted *= np.exp(reference)
    return max(0.0, float(weighted.sum()))


class DivergenceSum:
    """Accumulates four numbers for each scored token; no distribution is kept."""

    def __init__(self) -> None:
        self._divergences = array("d")
        self._losses = array("d")
        self._reference_losses = array("d")
        self._same_top = 0

    @property
    def tokens(self) -> int:
        """Number of scored tokens."""
        return len(self._divergences)

    def add(
        self,
        reference: NDArray[np.float64],
        reference_top: int,
        log_probs: NDArray[np.float64],
        token: int,
    ) -> None:
        """Score one token.

        Args:
            reference: log-probabilities by the reference, float64 [n_vocab].
            reference_top: its likeliest token.
            log_probs: log-probabilities by the configuration being measured.
            token: the token that follows in the text.
        """
        self._divergences.append(kl_divergence(reference, log_probs))
        self._losses.append(-float(log_probs[token]))
        self._reference_losses.append(-float(reference[token]))
        self._same_top += int(log_probs.argmax()) == reference_top

    def result(self) -> Divergence:
        """Return the summary, which does not depend on the order of the tokens.

        Percentiles between two values are interpolated linearly, as llama-perplexity does.

        Raises:
            ValueError: no token was scored.
        """
        if not self.tokens:
            raise ValueError("no token was scored")
        values = np.sort(np.frombuffer(self._divergences))
        mean = _mean(values)
        quantiles = np.percentile(values, _PERCENTS)
        return Divergence(
            tokens=self.tokens,
            mean=mean,
            mean_error=_error_of_mean(values, mean),
            median=float(np.median(values)),
            p99=float(np.percentile(values, 99)),
            maximum=float(values[-1]),
            top1=self._same_top / self.tokens,
            perplexity=_exp(_mean(self._losses)),
            reference_perplexity=_exp(_mean(self._reference_losses)),
            quantiles=tuple(map(float, quantiles)),
        )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)  # rounded once, so the order does not matter


def _error_of_mean(values: NDArray[np.float64], mean: float) -> float:
    """Return the standard error of a mean: sample standard deviation / sqrt(n); 0 for one value."""
    n = len(values)
    return math.sqrt(math.fsum((values - mean) ** 2) / (n - 1) / n) if n > 1 else 0.0


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(np.float64).max) else math.inf
