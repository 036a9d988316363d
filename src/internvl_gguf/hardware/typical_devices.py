"""Assumed speeds of devices that were not measured: typical values, as ranges wide enough for the whole class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from internvl_gguf.hardware.device_speed import BITS_PER_WEIGHT, ENCODER_KINDS, DeviceSpeed, Range, Roofline
from internvl_gguf.hardware.remote_device import RemoteDevice

DeviceKind = Literal["cpu", "gpu", "apple"]

_ASSUMED: Final = ", assumed"
GIGA: Final = 1e9
TERA: Final = 1e12
# PCIe 3.0 and 4.0 x16 carry 16 and 32 GB/s; from memory that is not pinned about half arrives, through x8 slots less.
ASSUMED_HOST_TO_GPU: Final = Range(6 * GIGA, 16 * GIGA)
# What one core of a 2.5 GHz server CPU was measured at (docs/speed-estimates.md): GB/s of the types whose unpacking
# takes longer than their reading, GB/s of keys and values, and GFLOP/s of attention.
_CORE_BANDWIDTH: Final = {
    "q2_k": 4.8,
    "q3_k": 4.2,
    "iq4_xs": 5.2,
    "iq3_s": 1.9,
    "iq3_xxs": 2.1,
    "iq2_s": 2.4,
    "iq2_xs": 2.0,
    "iq2_xxs": 1.9,
    "iq1_m": 1.7,
    "iq1_s": 1.5,
    "tq1_0": 3.3,
    "tq2_0": 5.2,
}
_CORE_ATTENTION_BANDWIDTH: Final = {
    "f32": 2.5,
    "f16": 1.4,
    "bf16": 1.3,
    "f32 flash": 1.5,
    "f16 flash": 0.8,
    "bf16 flash": 0.6,
    "q8_0 flash": 0.3,
    "q4_0 flash": 0.1,
}
_CORE_ATTENTION_RATE: Final = {
    "f32": 13.0,
    "f16": 32.0,
    "bf16": 28.0,
    "f32 flash": 43.0,
    "f16 flash": 36.0,
    "bf16 flash": 5.5,
    "q8_0 flash": 4.2,
    "q4_0 flash": 2.8,
}


def assumed_device(kind: DeviceKind) -> DeviceSpeed:
    """Return a typical device of a class; `measured` is False.

    Args:
        kind: "cpu", a desktop or laptop with two memory channels; "gpu", a consumer card; "apple", an M-series chip.
    """
    return _DEVICES[kind]


def completed(roofline: Roofline | None, gpus: int, remote: Sequence[RemoteDevice | None] = ()) -> Roofline:
    """Return a roofline with `gpus` GPUs: measured devices as far as there are any, assumed ones for the rest.

    Args:
        roofline: roofline of this machine; None if it was not measured.
        gpus: number of GPUs of the machine in question.
        remote: what is known of each GPU that belongs to another machine, None for each of this one; empty for none.
    """
    measured = roofline or Roofline(assumed_device("cpu"), (), ASSUMED_HOST_TO_GPU)
    places = remote or (None,) * gpus
    local = iter(measured.gpus)
    return replace(
        measured,
        gpus=tuple(
            next(local, None) or assumed_device("gpu") if place is None else _assumed_remote(place) for place in places
        ),
    )


def _assumed_remote(remote: RemoteDevice) -> DeviceSpeed:
    """Return a typical device of a server's kind; the network to it is counted apart."""
    typical = assumed_device(remote.kind)
    what = typical.description.removesuffix(_ASSUMED)
    return replace(typical, name="RPC", description=f"{what} at the RPC server{_ASSUMED}")


def _cores(per_core: float) -> Range:
    """Return the range from 4 cores of this speed to 16 that are twice as fast."""
    return Range(4 * per_core * GIGA, 32 * per_core * GIGA)


def _assumed_cpu() -> DeviceSpeed:
    """Return the assumed CPU: two channels of DDR4-2666 to DDR5-6000 carry 43 to 96 GB/s, two thirds reached."""
    memory = Range(25 * GIGA, 65 * GIGA)
    slow = {kind: _cores(rate) for kind, rate in _CORE_BANDWIDTH.items()}
    bandwidth = dict.fromkeys(BITS_PER_WEIGHT, memory) | {
        kind: Range(min(rate.low, memory.low), min(rate.high, memory.high)) for kind, rate in slow.items()
    }
    rate = Range(150 * GIGA, 1500 * GIGA)  # 40 to 100 GFLOP/s a core of the measured one, type by type
    return DeviceSpeed(
        name="CPU",
        description="a CPU of 4 to 16 cores with two channels of DDR4 or DDR5" + _ASSUMED,
        measured=False,
        bandwidth=bandwidth,
        matrix_rate=dict.fromkeys(BITS_PER_WEIGHT, rate),
        encoder_rate=dict.fromkeys(ENCODER_KINDS, rate),
        attention_bandwidth={kind: _cores(rate) for kind, rate in _CORE_ATTENTION_BANDWIDTH.items()},
        attention_rate={kind: _cores(rate) for kind, rate in _CORE_ATTENTION_RATE.items()},
        node_seconds=Range(1e-6, 6e-6),
    )


def _assumed_gpu(description: str, bandwidth: Range, rate: Range, node_seconds: Range) -> DeviceSpeed:
    """Return an assumed GPU: memory limits every type; attention and encoder reach less of its peak."""
    return DeviceSpeed(
        name="GPU",
        description=f"{description}{_ASSUMED}",
        measured=False,
        bandwidth=dict.fromkeys(BITS_PER_WEIGHT, bandwidth),
        matrix_rate=dict.fromkeys(BITS_PER_WEIGHT, rate),
        encoder_rate=dict.fromkeys(ENCODER_KINDS, rate.times(0.5, 1.0)),
        attention_bandwidth=dict.fromkeys(_CORE_ATTENTION_BANDWIDTH, bandwidth.times(0.4, 0.9)),
        attention_rate=dict.fromkeys(_CORE_ATTENTION_RATE, rate.times(0.2, 0.8)),
        node_seconds=node_seconds,
    )


_DEVICES: Final[dict[DeviceKind, DeviceSpeed]] = {
    "cpu": _assumed_cpu(),
    # RTX 3060 to 4070 Ti and their like: 360 to 504 GB/s of memory, the fastest 600, of which two thirds to nine tenths
    # are reached; of their tensor cores' peak about half.
    "gpu": _assumed_gpu(
        "a consumer GPU of 300 to 600 GB/s",
        Range(200 * GIGA, 520 * GIGA),
        Range(20 * TERA, 60 * TERA),
        Range(2e-6, 8e-6),
    ),
    # M1 to M4 Pro: 68 to 273 GB/s of memory, and 2.6 to 9 TFLOP/s of their GPU, a little less reached.
    "apple": _assumed_gpu(
        "an Apple M-series chip up to Pro",
        Range(50 * GIGA, 220 * GIGA),
        Range(1.5 * TERA, 7 * TERA),
        Range(3e-6, 15e-6),
    ),
}
