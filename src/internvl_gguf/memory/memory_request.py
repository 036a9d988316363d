"""A configuration to predict the memory of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from internvl_gguf.config import (
    DEFAULT_N_CTX,
    DEFAULT_N_UBATCH,
    KV_TYPES,
    MAX_BATCH,
    MAX_CANDIDATES,
    MAX_DRAFT,
    MAX_SEQUENCES,
    MAX_THREADS,
    EncoderKind,
    EngineConfig,
    KVType,
    check_kv_heads,
    is_quantised,
    sequence_count,
)
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.model_weights import ModelShape

CELL_STEP: Final = 256  # llama_context rounds the cache up to this
MAX_GPUS: Final = 15  # GGML_SCHED_MAX_BACKENDS, less the CPU
_MAX_CELLS: Final = 2**27


@dataclass(frozen=True)
class MemoryRequest:
    """The settings to run a model with, as far as memory depends on them.

    Attributes:
        n_ctx: positions of one conversation.
        n_parallel: conversations kept at once.
        n_candidates: answers to one question written at once.
        n_batch: most positions decoded in one call.
        n_ubatch: most positions computed at once.
        n_draft: most tokens drafted and verified at once; each takes one more row of logits.
        kv_type: element type of the KV cache.
        flash_attn: flash attention in the text model.
        gpus: one number for each GPU of the machine, the share of the layers it gets, in any unit; llama.cpp takes the
            free memory of each. Empty where there is none. A GPU takes memory even with no layer on it: it computes
            large batches with weights of the host.
        offload_gpu: number of the GPU that does so; None where none does, as devices of other machines.
        n_gpu_layers: layers on GPUs, counted from the end: 1 is the output matrix alone, the number of layers + 1 all,
            -1 all too.
        n_cpu_moe: layers, from the first on, whose experts stay in host memory; -1 for all.
        mmproj_gpu: number of the GPU that the vision encoder lies on; None for the CPU.
        encoder: what encodes pictures on the CPU.
        tiles_per_batch: tiles encoded at once.
        pictures: pictures in the conversation.
        tiles: tiles of all these pictures, thumbnails included.
        n_threads: CPU threads.
        extra_buffers: whether the CPU backend may reorder weights (llama.cpp's extra buffer types).

    Raises:
        InvalidRequestError: a value outside its range.
    """

    n_ctx: int
    n_parallel: int = 1
    n_candidates: int = EngineConfig.n_candidates
    n_batch: int = EngineConfig.n_batch
    n_ubatch: int = DEFAULT_N_UBATCH
    n_draft: int = EngineConfig.n_draft
    kv_type: KVType = EngineConfig.kv_type
    flash_attn: bool = False
    gpus: tuple[float, ...] = ()
    offload_gpu: int | None = 0
    n_gpu_layers: int = 0
    n_cpu_moe: int = 0
    mmproj_gpu: int | None = None
    encoder: EncoderKind = "llama.cpp"
    tiles_per_batch: int = 1
    pictures: int = 0
    tiles: int = 0
    n_threads: int = 1
    extra_buffers: bool = True

    def __post_init__(self) -> None:
        _within("n_ctx", self.n_ctx, 1, _MAX_CELLS)
        _within("n_parallel", self.n_parallel, 1, MAX_SEQUENCES)
        _within("n_candidates", self.n_candidates, 1, MAX_CANDIDATES)
        _within("n_batch", self.n_batch, 1, MAX_BATCH)
        _within("n_ubatch", self.n_ubatch, 1, self.n_batch)
        _within("n_draft", self.n_draft, 0, MAX_DRAFT)
        _within("n_gpu_layers", self.n_gpu_layers, -1, 2**16)
        _within("n_cpu_moe", self.n_cpu_moe, -1, 2**16)
        _within("tiles_per_batch", self.tiles_per_batch, 1, 4096)
        _within("tiles", self.tiles, 0, 2**20)
        _within("pictures", self.pictures, 1 if self.tiles else 0, self.tiles)
        _within("n_threads", self.n_threads, 1, MAX_THREADS)
        _within("the cache in positions", self.cells, 1, _MAX_CELLS)
        if self.kv_type not in KV_TYPES:
            raise InvalidRequestError(f"kv_type is {self.kv_type!r}.", f"Use one of {', '.join(KV_TYPES)}.")
        if is_quantised(self.kv_type) and not self.flash_attn:
            raise InvalidRequestError(
                f"A {self.kv_type} KV cache needs flash attention, which is off.",
                "Use flash_attn=True, or kv_type f16.",
            )
        if len(self.gpus) > MAX_GPUS or not all(math.isfinite(share) and share > 0 for share in self.gpus):
            raise InvalidRequestError(
                f"gpus is {self.gpus}.", f"Give one number above 0 for each of at most {MAX_GPUS} GPUs."
            )
        if not self.gpus and (self.n_gpu_layers or self.mmproj_gpu is not None):
            raise InvalidRequestError(
                "Layers or the mmproj are to lie on a GPU, but there is none.",
                "Name the GPUs, or use n_gpu_layers=0 and mmproj_gpu=None.",
            )
        for name in ("mmproj_gpu", "offload_gpu"):
            number = getattr(self, name)
            if self.gpus and number is not None:
                _within(name, number, 0, len(self.gpus) - 1)

    @property
    def mmproj_on_gpu(self) -> bool:
        """Whether the vision encoder lies on a GPU."""
        return self.mmproj_gpu is not None

    @property
    def offloads(self) -> bool:
        """Whether a GPU computes large batches with weights of the host, which are then in memory it can access."""
        return bool(self.gpus) and self.offload_gpu is not None

    @property
    def reorders(self) -> bool:
        """Whether the CPU backend reorders weights; it does not if a GPU computes with them, too."""
        return self.extra_buffers and not self.offloads

    @property
    def cells(self) -> int:
        """Positions of the KV cache."""
        wanted = self.n_ctx * self.n_parallel
        return wanted + -wanted % CELL_STEP

    @property
    def ubatch(self) -> int:
        """Positions that a graph is reserved for: at most the size of the cache, and equally many for each sequence."""
        tokens = min(self.n_ubatch, self.n_batch, self.cells)
        return tokens + -tokens % self.n_sequences

    @property
    def n_sequences(self) -> int:
        """Sequences of the KV cache, as in `llama.context.Context`."""
        return sequence_count(self.n_parallel, self.n_candidates, self.n_draft, self.n_batch)

    @property
    def rows(self) -> int:
        """Rows of logits that are kept: one for each sequence and each guess."""
        return min(self.n_sequences + self.n_draft, self.n_batch, self.cells)

    @property
    def outputs(self) -> int:
        """Rows of logits that a graph is reserved for (`n_outputs_pp` in `llama_context::sched_reserve`)."""
        return min(self.n_ubatch, self.rows)

    def check(self, shape: ModelShape) -> None:
        """Check that a model can be run with these settings.

        Raises:
            InvalidRequestError: a context beyond the model's, more layers than it has, experts of a model without any,
                or heads that a quantised cache cannot hold.
        """
        text = shape.text
        check_context(self.n_ctx, text.n_ctx_train)
        if self.n_gpu_layers > text.n_layers + 1:
            raise InvalidRequestError(
                f"n_gpu_layers is {self.n_gpu_layers}; this model has {text.n_layers} layers and an output matrix.",
                f"Use -1 to {text.n_layers + 1}.",
            )
        if self.n_cpu_moe and not text.n_expert:
            raise InvalidRequestError(
                "Experts are to stay in host memory; this model has none.", "Leave n_cpu_moe and cpu_moe out."
            )
        check_kv_heads(self.kv_type, text.head_dim)

    def host_experts(self, n_layers: int) -> int:
        """Return the layers whose experts stay in host memory, for a model of `n_layers` layers."""
        return n_layers if self.n_cpu_moe == -1 else min(self.n_cpu_moe, n_layers)

    def gpu_layers(self, n_layers: int) -> int:
        """Return the layers on GPUs for a model of `n_layers` layers; the output matrix counts as one."""
        return n_layers + 1 if self.n_gpu_layers == -1 else self.n_gpu_layers


def check_context(n_ctx: int, n_ctx_train: int | None, option: str = "n_ctx=") -> None:
    """Refuse a context longer than a model was trained for.

    Args:
        n_ctx: requested positions.
        n_ctx_train: positions it was trained for; None if unknown, which allows any.
        option: how the user writes the option, up to its value.

    Raises:
        InvalidRequestError: it is longer.
    """
    if n_ctx_train is not None and n_ctx > n_ctx_train:
        raise InvalidRequestError(
            f"A context of {n_ctx:,} tokens is more than the {n_ctx_train:,} it was trained for.",
            f"Use {option}{n_ctx_train} or less.",
        )


def context_length(requested: int | None, n_ctx_train: int, option: str = "n_ctx=") -> int:
    """Return the context to run a model with: the requested one, else the default, at most the trained length.

    Raises:
        InvalidRequestError: see `check_context`.
    """
    if requested is None:
        return min(DEFAULT_N_CTX, n_ctx_train)
    check_context(requested, n_ctx_train, option)
    return requested


def _within(name: str, value: int, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InvalidRequestError(f"{name} is {value!r}.", f"Use a whole number from {lowest} to {highest}.")
