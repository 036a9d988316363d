"""The tokens that an answer may go on with."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TokenMask:
    """A set of tokens of a vocabulary.

    Args:
        bits: one bit for each token, the lowest of a byte first; what lies beyond the vocabulary is ignored.
        n_vocab: number of tokens.
    """

    def __init__(self, bits: bytes, n_vocab: int) -> None:
        self._bits = bits
        self._n_vocab = n_vocab

    def __contains__(self, token: int) -> bool:
        return bool(self._bits[token >> 3] >> (token & 7) & 1)

    @cached_property
    def tokens(self) -> NDArray[np.intp]:
        """Their ids in order, intp [tokens]."""
        bits = np.unpackbits(np.frombuffer(self._bits, np.uint8), count=self._n_vocab, bitorder="little")
        return bits.view(np.bool_).nonzero()[0]  # of numbers instead of booleans it takes ten times as long
