"""Keep experts in host memory while the rest of their layers is on a GPU: llama.cpp's `--cpu-moe` and `--n-cpu-moe`."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from internvl_gguf.llama.library import ggml_function

_EXPERTS: Final = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # LLM_FFN_EXPS_REGEX in llama.cpp's common/arg.h


class _Override(ctypes.Structure):
    """`struct llama_model_tensor_buft_override` of llama.h."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def expert_overrides(n_cpu_moe: int) -> ctypes.Array[Any]:
    """Return `tensor_buft_overrides` of a model's parameters, which must live as long as the call that reads them.

    Args:
        n_cpu_moe: layers, from the first on, whose experts stay in host memory; -1 for all.
    """
    layers = [""] if n_cpu_moe == -1 else [rf"blk\.{layer}" for layer in range(n_cpu_moe)]
    host = ggml_function("ggml_backend_cpu_buffer_type", ctypes.c_void_p)() if layers else None
    found = [_Override((layer + _EXPERTS).encode(), host) for layer in layers]
    return (_Override * (len(found) + 1))(*found)  # ends in one without a pattern
