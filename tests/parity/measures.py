"""How far an output is from the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def divergence(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Kullback-Leibler divergence in nats of `other` from `reference`, both natural log-probabilities.

    Log-probabilities rounded to float32 carry an error of about 1e-8 nats into it; it is never less than zero.
    """
    expected, found = reference.astype(np.float64), other.astype(np.float64)
    return max(0.0, float((np.exp(expected) * (expected - found)).sum()))


def relative_error(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Norm of the difference over the norm of the reference."""
    return float(np.linalg.norm(other - reference) / np.linalg.norm(reference))


def worst_tile_error(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest relative error of any one tile; both are [tiles, tokens, width]."""
    return max(relative_error(expected, found) for expected, found in zip(reference, other, strict=True))
