"""Embeddings computed from a number, so that every process knows what another should have written; loads quickly."""

from __future__ import annotations

import hashlib

import numpy as np


def key(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def values(number: int, shape: tuple[int, int] = (4, 500)) -> np.ndarray:
    """Embeddings that belong to a number; two blocks on disk unless a shape is given."""
    return np.random.default_rng(number).standard_normal(shape, dtype=np.float32)


def assert_same_bits(found: np.ndarray | None, expected: np.ndarray) -> None:
    assert found is not None
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert found.tobytes() == expected.tobytes()
