"""Speed of a device at reading and multiplying weights: the numbers that speed estimates are based on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Self

# Bits a weight of the types that published files hold, block scales included (`GGML_QUANT_SIZES` of gguf-py).
BITS_PER_WEIGHT: Final[Mapping[str, float]] = MappingProxyType(
    {
        "f32": 32.0,
        "f16": 16.0,
        "bf16": 16.0,
        "q8_0": 8.5,
        "q6_k": 6.5625,
        "q5_k": 5.5,
        "q5_1": 6.0,
        "q5_0": 5.5,
        "q4_k": 4.5,
        "q4_1": 5.0,
        "q4_0": 4.5,
        "iq4_nl": 4.5,
        "iq4_xs": 4.25,
        "q3_k": 3.4375,
        "iq3_s": 3.4375,
        "iq3_xxs": 3.0625,
        "q2_k": 2.625,
        "iq2_s": 2.5625,
        "iq2_xs": 2.3125,
        "iq2_xxs": 2.0625,
        "tq2_0": 2.0625,
        "iq1_m": 1.75,
        "tq1_0": 1.6875,
        "iq1_s": 1.5625,
    }
)
ENCODER_KINDS: Final = ("f16", "bf16", "f32", "q8_0")
TABLES: Final = ("bandwidth", "matrix_rate", "encoder_rate", "attention_bandwidth", "attention_rate")
PLAIN_TABLES: Final = ("plain_bandwidth", "plain_matrix_rate")
_LOG_BITS: Final = {kind: math.log(bits) for kind, bits in BITS_PER_WEIGHT.items()}
_ALIKE: Final = math.log(1.15)  # types that differ by less in bits a weight may be mixed in a file's average


@dataclass(frozen=True, slots=True)
class Range:
    """A range of values, both ends included.

    Attributes:
        low: the smallest.
        high: the largest.

    Raises:
        ValueError: ends that are negative, infinite or the wrong way round.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < math.inf:
            raise ValueError(f"{self.low} to {self.high} is no range")

    def __add__(self, other: Self) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> Range:
        """Return both ends multiplied, by the same number or each by its own."""
        return Range(self.low * low, self.high * (low if high is None else high))

    def joined(self, other: Range) -> Range:
        """Return the range from the smaller low end to the larger high end."""
        return Range(min(self.low, other.low), max(self.high, other.high))

    def amount_over(self, amount: float) -> Range:
        """Return `amount` divided by this range: seconds from rates, or rates from seconds."""
        return Range(amount / self.high, amount / self.low)


@dataclass(frozen=True)
class DeviceSpeed:
    """Speed of one device. Types are named as in `Weight.kind`, in lower case.

    Attributes:
        name: "CPU", or a GPU's short name such as "CUDA0".
        description: the name that its maker gave it, or what was assumed.
        measured: False for assumed rates.
        bandwidth: bytes/s of weights at which one token is multiplied with a matrix, by the weights' type.
        matrix_rate: FLOP/s (two for each multiplication) of a matrix with 512 tokens, by the weights' type.
        encoder_rate: FLOP/s of the vision encoder, by the type of its matrices.
        attention_bandwidth: bytes/s of keys and values at which one token attends, by `attention_kind`.
        attention_rate: FLOP/s of the attention of 512 tokens, by `attention_kind`.
        node_seconds: seconds that even the smallest operation takes.
        plain_bandwidth, plain_matrix_rate: `bandwidth` and `matrix_rate` with weights as they lie in the file, of the
            types that this CPU stores in a layout of its own otherwise; empty if unmeasured.

    Raises:
        ValueError: a table without a rate, or a rate that may be 0.
    """

    name: str
    description: str
    measured: bool
    bandwidth: Mapping[str, Range] = field(repr=False)
    matrix_rate: Mapping[str, Range] = field(repr=False)
    encoder_rate: Mapping[str, Range] = field(repr=False)
    attention_bandwidth: Mapping[str, Range] = field(repr=False)
    attention_rate: Mapping[str, Range] = field(repr=False)
    node_seconds: Range = field(repr=False)
    plain_bandwidth: Mapping[str, Range] = field(repr=False, default_factory=dict)
    plain_matrix_rate: Mapping[str, Range] = field(repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*TABLES, *PLAIN_TABLES):
            rates = getattr(self, name).values()
            if not (rates or name in PLAIN_TABLES) or not all(rate.low > 0 for rate in rates):
                raise ValueError(f"{self.name} has no {name.replace('_', ' ')}")

    @property
    def plain(self) -> DeviceSpeed:
        """The same device with weights as they lie in the file."""
        return replace(
            self,
            bandwidth={**self.bandwidth, **self.plain_bandwidth},
            matrix_rate={**self.matrix_rate, **self.plain_matrix_rate},
        )


@dataclass(frozen=True)
class Roofline:
    """Speed of a machine.

    Attributes:
        host: its CPU.
        gpus: its GPUs, in llama.cpp's order.
        host_to_gpu: bytes/s from host memory to a GPU; as measured as the GPUs are.
        measured_at: time of the measurement, in ISO 8601 with the offset from UTC; None for assumptions.
        disturbed: number of measurements that are too slow because other programs took the CPU all the time.
    """

    host: DeviceSpeed
    gpus: tuple[DeviceSpeed, ...]
    host_to_gpu: Range
    measured_at: str | None = None
    disturbed: int = 0


def attention_kind(kv_type: str, *, flash_attn: bool) -> str:
    """Return the key of the attention tables: "f16", or "f16 flash" with flash attention."""
    return f"{kv_type} flash" if flash_attn else kv_type


def rate_of(table: Mapping[str, Range], kind: str, bits: float) -> Range:
    """Return the rate of a weight type.

    Args:
        table: rates by type, not empty.
        kind: the type. A type that the table lacks takes the rate of the type nearest in bits a weight. For
            "unknown", the type of a listing, the range covers all types of about as many bits.
        bits: bits a weight.
    """
    known = table.get(kind)
    if known is not None:
        return known

    wanted = math.log(bits)

    def distance(other: str) -> float:
        return abs(_LOG_BITS[other] - wanted)

    nearest = min(table, key=distance)
    rate = table[nearest]
    if kind not in BITS_PER_WEIGHT:
        for other in table:
            if distance(other) < _ALIKE:
                rate = rate.joined(table[other])
    return rate
