"""Estimate the accuracy that a quant loses, before it was measured on the model at hand."""

from __future__ import annotations

import bisect
import math
from typing import Final

from internvl_gguf.gguf.filenames import Quant

# Mean KL divergence from F16 of Llama-3-8B over Wikitext, with an importance matrix where one was measured, and bits a
# weight of its files (8.03e9 weights): tools/perplexity/README.md of llama.cpp. Nothing is published for pictures, nor
# for Unsloth's Dynamic quants, which count as their plain neighbour. `internvl bench` measures a model's own.
_PUBLISHED: Final[dict[str, tuple[float, float]]] = {
    "Q8_0": (8.51, 0.0014),
    "Q6_K": (6.57, 0.0055),
    "Q5_K_M": (5.70, 0.0108),
    "Q5_K_S": (5.57, 0.0166),
    "Q5_1": (6.04, 0.0180),
    "Q5_0": (5.57, 0.0222),
    "Q4_K_M": (4.90, 0.0282),
    "Q4_K_S": (4.67, 0.0320),
    "IQ4_NL": (4.65, 0.0357),
    "IQ4_XS": (4.43, 0.0363),
    "Q4_1": (5.11, 0.0717),
    "Q4_0": (4.64, 0.0719),
    "Q3_K_L": (4.31, 0.0731),
    "Q3_K_M": (4.00, 0.0844),
    "IQ3_M": (3.78, 0.1025),
    "IQ3_S": (3.66, 0.1113),
    "IQ3_XS": (3.51, 0.1387),
    "IQ3_XXS": (3.26, 0.1836),
    "Q3_K_S": (3.65, 0.1998),
    "IQ2_M": (2.93, 0.3260),
    "Q2_K": (3.17, 0.3313),
    "Q2_K_S": (3.17, 0.4034),
    "IQ2_S": (2.74, 0.4392),
    "IQ2_XS": (2.60, 0.5463),
    "IQ2_XXS": (2.40, 0.8120),
    "IQ1_M": (2.15, 1.3931),
    "IQ1_S": (2.01, 2.2113),
}
# The kinds that lose least for their bits, fewest bits first.
_CURVE: Final = ("IQ1_S", "IQ2_XXS", "IQ2_M", "IQ3_XXS", "IQ3_M", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
_FALL_PER_BIT: Final = 1.0  # fall of the loss's logarithm a bit, between Q4_K_M and Q6_K
_MOST_CORRECTION: Final = 2.0
_LOSSLESS: Final = frozenset({"BF16", "F16", "F32"})
_NEIGHBOURS: Final = {
    "Q8_K_XL": "Q8_0",
    "Q6_K_L": "Q6_K",
    "Q6_K_XL": "Q6_K",
    "Q5_K_L": "Q5_K_M",
    "Q5_K_XL": "Q5_K_M",
    "Q4_K_L": "Q4_K_M",
    "Q4_K_XL": "Q4_K_M",
    "Q3_K_XL": "Q3_K_L",
    "Q2_K_L": "Q2_K",
    "Q2_K_XL": "Q2_K",
}


def expected_loss(quant: Quant | None, bits_per_weight: float) -> float:
    """Return the expected mean KL divergence of a quant from the published weights, in nats.

    This is the published figure of the quant or its plain neighbour, corrected for the difference in bits a weight of
    this file. For an unpublished kind it is interpolated between the kinds of the next fewer and more bits.
    """
    if quant is not None:
        if quant.label in _LOSSLESS:
            return 0.0
        label = _NEIGHBOURS.get(quant.label, quant.label)
        if label in _PUBLISHED:
            bits, loss = _PUBLISHED[label]
            correction = math.exp(_FALL_PER_BIT * (bits - bits_per_weight))
            return loss * min(max(correction, 1 / _MOST_CORRECTION), _MOST_CORRECTION)
    return _by_bits(bits_per_weight)


def _by_bits(bits: float) -> float:
    """Interpolate between published figures: the logarithm of the loss falls about linearly with the bits."""
    points = [_PUBLISHED[label] for label in _CURVE]
    if bits >= points[-1][0]:
        return 0.0 if bits > 15 else points[-1][1]
    place = max(1, bisect.bisect(points, (bits, 0.0)))
    (low, worse), (high, better) = points[place - 1], points[place]
    share = (bits - low) / (high - low) if high > low else 0.0
    return math.exp(math.log(worse) + share * (math.log(better) - math.log(worse)))
