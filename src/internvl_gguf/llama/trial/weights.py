"""Random matrices of every element type, in the form that a model file stores, with the numbers they stand for.

The numbers come from gguf-py's own dequantisation in numpy. Nothing here is computed by llama.cpp, which is on trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDED: Final = tuple(
    GGMLQuantizationType[name]
    for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
)
"""Types that gguf-py can quantise to."""

# Of the others gguf-py only reads the blocks: these are random bytes around half-precision scales. For each type where
# the scale lies in a block, where the scale of the minimum lies, and the middle of the numbers the minimum is taken
# from (ggml/src/ggml-common.h), so that the weights have a mean near 0.
_BLOCKS: Final[dict[GGMLQuantizationType, tuple[int, int | None, float]]] = {
    GGMLQuantizationType.Q2_K: (80, 82, 1.5),
    GGMLQuantizationType.Q3_K: (108, None, 0.0),
    GGMLQuantizationType.Q4_K: (0, 2, 7.5),
    GGMLQuantizationType.Q5_K: (0, 2, 15.5),
    GGMLQuantizationType.Q6_K: (208, None, 0.0),
    GGMLQuantizationType.IQ1_S: (0, None, 0.0),
    GGMLQuantizationType.IQ2_XXS: (0, None, 0.0),
    GGMLQuantizationType.IQ2_XS: (0, None, 0.0),
    GGMLQuantizationType.IQ2_S: (0, None, 0.0),
    GGMLQuantizationType.IQ3_XXS: (0, None, 0.0),
    GGMLQuantizationType.IQ3_S: (0, None, 0.0),
    GGMLQuantizationType.IQ4_NL: (0, None, 0.0),
    GGMLQuantizationType.IQ4_XS: (0, None, 0.0),
}
# Its scale is the four highest bits of the last four 16-bit words of a block.
_SPLIT_SCALE: Final = GGMLQuantizationType.IQ1_M
KINDS: Final = (*ROUNDED, *_BLOCKS, _SPLIT_SCALE)
"""Every element type that is tried."""

_SAMPLE: Final = 64  # blocks from which the spread of the others is estimated
_LEAST_SCALE: Final = 0.6  # of the scales within a matrix, which differ so that a mix-up of blocks shows
_MOST_SCALE: Final = 1.4


@dataclass(frozen=True)
class Matrix:
    """A matrix of a model.

    Attributes:
        kind: element type.
        stored: as GGUFWriter takes it: float32 or float16 [rows, columns], or the bytes of blocks [rows, bytes].
        values: the numbers that are stored, float32 [rows, columns].
    """

    kind: GGMLQuantizationType
    stored: NDArray[np.generic]
    values: NDArray[np.float32]


def random_matrix(
    random: np.random.Generator, kind: GGMLQuantizationType, rows: int, columns: int, deviation: float
) -> Matrix:
    """Make a random matrix with a mean near 0.

    Args:
        random: source of random numbers.
        kind: one of `KINDS`.
        rows: outputs.
        columns: inputs, a multiple of the type's block.
        deviation: standard deviation of the weights.
    """
    if kind in ROUNDED:
        normal = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(deviation)
        stored = quants.quantize(normal, kind)
    else:
        stored = _random_blocks(random, kind, rows, columns, deviation)
    return Matrix(kind, stored, np.asarray(quants.dequantize(stored, kind), dtype=np.float32))


def _random_blocks(
    random: np.random.Generator, kind: GGMLQuantizationType, rows: int, columns: int, deviation: float
) -> NDArray[np.uint8]:
    """Make valid blocks of a type that gguf-py does not quantise to, uint8 [rows, bytes]."""
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    factors = random.uniform(_LEAST_SCALE, _MOST_SCALE, len(blocks))
    _set_scales(blocks, kind, factors)
    spread = float(quants.dequantize(blocks[:_SAMPLE], kind).std())
    _set_scales(blocks, kind, factors * deviation / spread)
    return blocks.reshape(rows, -1)


def _set_scales(blocks: NDArray[np.uint8], kind: GGMLQuantizationType, scales: NDArray[np.float64]) -> None:
    """Write the scale of each block, in half precision."""
    halves = scales.astype("<f2")
    if kind == _SPLIT_SCALE:
        words = blocks[:, -8:].copy().view("<u2")
        nibbles = halves.view("<u2")[:, None] >> np.array([0, 4, 8, 12], dtype="<u2")
        blocks[:, -8:] = ((words & 0x0FFF) | (nibbles << 12)).astype("<u2").view(np.uint8)
        return
    scale_at, minimum_at, middle = _BLOCKS[kind]
    blocks[:, scale_at : scale_at + 2] = halves[:, None].view(np.uint8)
    if minimum_at is not None:
        blocks[:, minimum_at : minimum_at + 2] = (scales * middle).astype("<f2")[:, None].view(np.uint8)
