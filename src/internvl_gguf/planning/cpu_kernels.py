"""Choose the kernels of a text model on the CPU: for weights in layouts of the CPU's own, or as they lie in the file.

llama.cpp copies some types of weights into other layouts ("repacking", AMX tiles). Which kernels are faster depends on
the CPU, the type and the phase: with AVX-512 the copied Q4_K reads a prompt at 0.6 times the speed and writes as fast;
the copied Q4_0 wins at both (docs/performance.md). One choice holds for all weights of a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from internvl_gguf.gguf.model_weights import Matrices, TextWeights
from internvl_gguf.hardware.device_speed import DeviceSpeed, rate_of
from internvl_gguf.hardware.identity import cpu_flags
from internvl_gguf.memory.plan import REPACKED_X86

_WORTH_IT: Final = 0.95  # share of the time of llama.cpp's own choice
_SLOW_LAYOUT: Final = "q4_k"  # the type whose copied layout reads slowly with AVX-512
_TIMES_AS_MANY: Final = 4  # tokens read to each one written from which on reading decides


def plain_is_faster(text: TextWeights, host: DeviceSpeed | None, *, n_prompt: int, n_answer: int) -> bool:
    """Return whether a text model is faster on the CPU with its weights as they lie in the file.

    Args:
        text: the model.
        host: the CPU as measured; None decides by its features, from measurements of two others.
        n_prompt: tokens read.
        n_answer: tokens written.
    """
    matrices = _together(text)
    if host is None or not host.measured:
        return _is_slow_layout(matrices) and n_prompt > _TIMES_AS_MANY * n_answer
    if not any(each.kind in host.plain_bandwidth for each in matrices):
        return False
    plain, own = (_seconds(matrices, each, n_prompt, n_answer) for each in (host.plain, host))
    return plain < _WORTH_IT * own


def _together(text: TextWeights) -> tuple[Matrices, ...]:
    return tuple(each for layer in text.layer_matrices for each in layer)


def _is_slow_layout(matrices: Iterable[Matrices]) -> bool:
    """Return whether most of what llama.cpp would copy is Q4_K, on a CPU with AVX-512 and without AMX."""
    flags = cpu_flags()
    if "avx512f" not in flags or any(flag.startswith("amx") for flag in flags):
        return False
    elements = {True: 0, False: 0}
    for each in matrices:
        if each.kind in REPACKED_X86:
            elements[each.kind == _SLOW_LAYOUT] += each.elements
    return elements[True] > elements[False]


def _seconds(matrices: Iterable[Matrices], host: DeviceSpeed, n_prompt: int, n_answer: int) -> float:
    """Return seconds of all products, by the fastest rates that were measured."""
    seconds = 0.0
    for each in matrices:
        bits = 8 * each.n_bytes / each.elements
        read = rate_of(host.matrix_rate, each.kind, bits).high
        written = rate_of(host.bandwidth, each.kind, bits).high
        seconds += each.used * (2 * each.elements * n_prompt / read + each.n_bytes * n_answer / written)
    return seconds


def measured_gains(host: DeviceSpeed) -> dict[str, tuple[float, float]]:
    """Return how many times as fast each type is read and written where its weights lie as in the file, if measured."""
    return {
        kind: (rate.high / host.matrix_rate[kind].high, host.plain_bandwidth[kind].high / host.bandwidth[kind].high)
        for kind, rate in host.plain_matrix_rate.items()
        if kind in host.plain_bandwidth and kind in host.matrix_rate and kind in host.bandwidth
    }
