"""Compute the size of the CPU backend's work buffer, which holds operands converted to another type.

Follows `ggml_graph_plan` of llama.cpp's `ggml/src/ggml-cpu/ggml-cpu.c`; llama.cpp does not log this size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from internvl_gguf.memory.ggml_graph import Tensor, row_bytes

_CACHE_LINE: Final = 64
_ROW: Final = 8  # of the lists of rows that each expert gets
_FLASH_TILE: Final = 64  # GGML_FA_TILE_Q and GGML_FA_TILE_KV
_TILED_SLOT: Final = 512 * 1024  # TILED_WS_SLOT in ggml-cpu/tiled, a thread, for K-quants

_KEPT: Final = 32 * 2**20  # DEFAULT_MMAP_THRESHOLD_MAX of glibc on 64 bits

_PLAIN: Final = frozenset({"f32", "f16", "bf16"})
_AS_Q8_0: Final = frozenset({"q4_0", "q5_0", "q8_0", "iq4_nl", "mxfp4", "nvfp4", "q1_0"})
_AS_Q8_1: Final = frozenset({"q4_1", "q5_1", "unknown"})


def work_buffer(nodes: Iterable[Tensor], n_threads: int) -> int:
    """Return the bytes of the work buffer for these nodes: the largest need of a single node."""
    largest = max((_wanted(node, n_threads) for node in nodes), default=0)
    return largest + _CACHE_LINE * n_threads if largest else 0


def kept_beside(*work_buffers: int) -> int:
    """Return the bytes of freed work buffers that the C library keeps beside larger ones.

    A work buffer grows with the context, and each time the old one is freed before a larger one is allocated. glibc
    keeps what is freed for the next block, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD), and a buffer above that has no
    use for it. An upper bound: 27 to 28 of the 32 MiB were measured.
    """
    return _KEPT if max(work_buffers) > _KEPT else 0


def _wanted(node: Tensor, n_threads: int) -> int:
    if node.op == "mul_mat":
        return _converted(*node.sources, n_threads=n_threads)
    if node.op == "mul_mat_id":
        experts, activations, chosen = node.sources
        rows = _ROW * (experts.shape[2] * (chosen.elements + 1) + 3) + _CACHE_LINE * (experts.shape[2] + 1)
        return rows + _converted(experts, activations, n_threads=n_threads)
    if node.op in ("soft_max", "rope"):
        return 4 * node.shape[0] * n_threads
    if node.op == "flash_attn":
        return _flash_attention(node, n_threads)
    return 0


def _converted(matrix: Tensor, activations: Tensor, *, n_threads: int) -> int:
    """Return the bytes of activations converted to the matrix's operand type (`vec_dot_type` in `type_traits_cpu`)."""
    kind = _operand_kind(matrix.kind)
    size = 0 if activations.kind == kind else row_bytes(kind, activations.elements)
    return size + -size % _CACHE_LINE + (_TILED_SLOT * n_threads if kind == "q8_K" else 0)


def _operand_kind(kind: str) -> str:
    if kind in _PLAIN:
        return kind
    if kind in _AS_Q8_0:
        return "q8_0"
    return "q8_1" if kind in _AS_Q8_1 else "q8_K"


def _flash_attention(node: Tensor, n_threads: int) -> int:
    query, key = node.sources[:2]
    head, heads = key.shape[0], query.shape[2]
    prefill = 4 * (4 * _FLASH_TILE * head + 2 * _FLASH_TILE**2) * n_threads
    decode = 4 * (heads * n_threads * (2 + head) + 3 * head * n_threads)
    return max(prefill, decode)
