"""Pack a next-token distribution into two bytes a token.

Log-probabilities are kept in 65,535 steps over their whole range, from the least likely token to the likeliest, so that
none is cut off. Each is at most half a step off, h = range / 65535 / 2, so the distribution read back is
p * exp(e) / sum(p * exp(e)) with |e| <= h. Its KL divergence from p is the integral of t * Var(e) under the
distributions p * exp(t * e), t from 0 to 1; no variance of such an e is above h * h (Popoviciu), so it is at most
h * h / 2. A range of 40 nats gives 5e-8 nats: a divergence below that is the format's, not the model's.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from internvl_gguf.bench.quality.divergence import normalised
from internvl_gguf.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_HEAD: Final = struct.Struct("<ffI16s")  # minimum, step, likeliest token, checksum
_PLACE: Final = struct.Struct("<QffI")
_STEPS: Final = 65535


@dataclass(frozen=True)
class ReferenceRow:
    """One distribution of the reference.

    Attributes:
        log_probs: natural-log probabilities, float64 [n_vocab].
        top: the likeliest token; by the rounded `log_probs` alone, two could be it.
    """

    log_probs: NDArray[np.float64]
    top: int


@dataclass(frozen=True)
class PackedRow:
    """A packed distribution: log-probabilities are minimum + step * steps.

    Attributes:
        minimum, step: float32 values.
        top: the likeliest token.
        steps: uint16 [n_vocab], little-endian.
    """

    minimum: float
    step: float
    top: int
    steps: NDArray[np.uint16]

    @classmethod
    def of(cls, log_probs: NDArray[np.float64]) -> Self:
        """Pack natural-log probabilities, float64 [n_vocab], all finite."""
        least, most = log_probs.min(), log_probs.max()
        minimum = np.float32(least)
        if minimum > least:  # rounded up, which would leave the least likely token outside
            minimum = np.nextafter(minimum, np.float32(-np.inf))
        step = np.float32((most - minimum) / _STEPS)
        if _STEPS * np.float64(step) < most - minimum:
            step = np.nextafter(step, np.float32(np.inf))
        steps = log_probs - np.float64(minimum)
        if step:
            steps /= np.float64(step)
        return cls(float(minimum), float(step), int(log_probs.argmax()), np.rint(steps).astype("<u2"))

    def unpacked(self) -> ReferenceRow:
        """Return the distribution, normalised."""
        return ReferenceRow(normalised(self.steps.astype(np.float64) * self.step + self.minimum), self.top)

    def write(self, write: Callable[[bytes | memoryview], object], key: bytes, number: int) -> None:
        """Write `row_bytes` bytes.

        Args:
            write: called with the bytes, in parts.
            key: key of the checksum; 32 bytes.
            number: the row's place, which is part of the checksum.
        """
        write(_HEAD.pack(self.minimum, self.step, self.top, self._digest(key, number)))
        write(self.steps.data)

    @classmethod
    def read(cls, data: memoryview, key: bytes, number: int) -> Self:
        """Read a row that `write` wrote.

        Raises:
            BenchmarkError: the bytes are no such row, or damaged.
        """
        minimum, step, top, digest = _HEAD.unpack_from(data)
        row = cls(minimum, step, top, np.frombuffer(data, "<u2", offset=_HEAD.size))
        if row._digest(key, number) != digest:
            raise BenchmarkError(
                f"The reference logits are damaged: the checksum of row {number} does not hold.",
                "Measure the reference configuration again.",
            )
        return row

    def _digest(self, key: bytes, number: int) -> bytes:
        digest = hashlib.blake2b(_PLACE.pack(number, self.minimum, self.step, self.top), key=key, digest_size=16)
        digest.update(self.steps.data)
        return digest.digest()


def row_bytes(n_vocab: int) -> int:
    """Return the bytes of a packed row."""
    return _HEAD.size + 2 * n_vocab
