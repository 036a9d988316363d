"""The network's share of the time of a token, where layers lie on devices of other machines.

What travels is by ggml-rpc.cpp and `ggml_backend_sched_compute_splits`: on its way through the layers the hidden state
comes to each device and leaves it again, through this machine, also from one server to the next. The mask of the
attention is made here and sent along. With the output matrix on a device its logits come back in place of the hidden
state. Sending waits for nothing; fetching what a device has computed waits for one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from internvl_gguf.gguf.model_weights import TextWeights
from internvl_gguf.hardware.device_speed import Range
from internvl_gguf.hardware.remote_device import RemoteDevice
from internvl_gguf.memory.plan import Homes

_FLOAT32, _FLOAT16 = 4, 2
_TENSOR_BYTES: Final = 296  # `rpc_tensor`
_TENSORS_PER_LAYER: Final = 52  # operations, views and weights of `llm_build_qwen2`, counted
# Inputs that are sent one by one, the order to compute and the question for the result: counted. Each is handed to a
# thread, written in three pieces and read in as many; measured on loopback, the upper end beside other programs.
_MESSAGES: Final = 8
_MESSAGE_BYTES: Final = _TENSOR_BYTES + 18
_MESSAGE_SECONDS: Final = Range(20e-6, 200e-6)


@dataclass(frozen=True)
class Visit:
    """A stretch of the computation on a remote device.

    Attributes:
        device: the device.
        n_layers: layers, or parts of layers beside their experts, that are computed there.
        has_output: whether it ends with the logits.
    """

    device: RemoteDevice
    n_layers: int
    has_output: bool


def visits(homes: Homes, remote: Sequence[RemoteDevice | None]) -> tuple[Visit, ...]:
    """Return the stretches on remote devices, in the order of the computation.

    Args:
        homes: where the layers lie.
        remote: what is known of each GPU, None for those of this machine; empty where none is remote.
    """
    places = [*chain.from_iterable(zip(homes.layers, homes.experts, strict=True)), homes.output]
    found: list[Visit] = []
    start = 0
    for end in range(1, len(places) + 1):
        if end < len(places) and places[end] == places[start]:
            continue
        device = remote[places[start]] if places[start] < len(remote) else None
        if device is not None:
            is_last = end == len(places)
            found.append(Visit(device, (end - start - is_last + 1) // 2, is_last))
        start = end
    return tuple(found)


def network_seconds(
    found: Sequence[Visit],
    text: TextWeights,
    *,
    tokens: int,
    attended: int,
    flash_attn: bool,
    is_new_graph: bool,
) -> Range:
    """Return the seconds that a batch of tokens spends on the network.

    Args:
        found: the stretches on remote devices.
        text: the model.
        tokens: tokens of the batch; the logits of the last are wanted.
        attended: cells of the KV cache that they attend to.
        flash_attn: whether flash attention is used, whose mask is half as large.
        is_new_graph: whether the computation has to be described to the devices; that of the next single token is the
            same as before.
    """
    hidden = _FLOAT32 * text.n_embd * tokens
    mask = (_FLOAT16 if flash_attn else _FLOAT32) * attended * tokens
    seconds = Range(0, 0)
    for visit in found:
        received = _FLOAT32 * text.n_vocab if visit.has_output else hidden
        graph = _TENSOR_BYTES * _TENSORS_PER_LAYER * visit.n_layers if is_new_graph else 0
        sent = hidden + (mask if visit.n_layers else 0) + graph + _MESSAGES * _MESSAGE_BYTES
        seconds += visit.device.seconds(1, sent + received) + _MESSAGE_SECONDS.times(_MESSAGES)
    return seconds
