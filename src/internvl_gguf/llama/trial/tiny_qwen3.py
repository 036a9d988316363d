"""A Qwen3 and a Qwen3-MoE of one layer for the trial, and their known logits, computed by numpy.

They try what Qwen2.5 has not: norms of each head's queries and keys, the choice of experts, and the products with the
matrices of the chosen ones (`GGML_OP_MUL_MAT_ID`), which are other kernels than those of dense matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from internvl_gguf.llama.trial.tiny_text import FEED_FORWARD, VOCABULARY, WIDTH, TinyText, around_one, softmax, swiglu
from internvl_gguf.llama.trial.weights import Matrix, random_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

_HEADS: Final = 4
_KV_HEADS: Final = 2
_HEAD_DIM: Final = 128  # as in every Qwen3; all heads together are wider than the model, as in most of them
# GPUs have kernels of their own for numbers of experts that are powers of two, and for 8 chosen ones, as Qwen3-MoE has.
EXPERTS: Final = 16
USED: Final = 8
_INNER: Final = 256  # width of an expert, one block of a K-quant

# Deviations as in `tiny_text`. That of the last matrix of the experts makes up for their shares of the sum.
_ATTENTION: Final = {
    "attn_q": (_HEADS * _HEAD_DIM, WIDTH, 1.0),
    "attn_k": (_KV_HEADS * _HEAD_DIM, WIDTH, 1.0),
    "attn_v": (_KV_HEADS * _HEAD_DIM, WIDTH, 1.0),
    "attn_output": (WIDTH, _HEADS * _HEAD_DIM, 4.0),
}
_DENSE: Final = {
    "ffn_gate": (FEED_FORWARD, WIDTH, 1.5),
    "ffn_up": (FEED_FORWARD, WIDTH, 1.0),
    "ffn_down": (WIDTH, FEED_FORWARD, 3.0),
}
_GATED: Final = {"ffn_gate": (_INNER, WIDTH, 1.5), "ffn_up": (_INNER, WIDTH, 1.0), "ffn_down": (WIDTH, _INNER, 8.0)}
_ROUTER: Final = "blk.0.ffn_gate_inp.weight"
_TOKEN_DEVIATION: Final = 0.5
_F32: Final = GGMLQuantizationType.F32
_SEED: Final = 8  # with it no token has nearly equal chances for the last chosen expert and the next one


@dataclass(frozen=True)
class TinyQwen3(TinyText):
    """Weights of a Qwen3 of one layer, all in F32."""

    architecture: ClassVar[str] = "qwen3"

    @classmethod
    def dense(cls) -> TinyQwen3:
        """Make a model whose tokens all go through one feed-forward layer."""
        random = np.random.default_rng(_SEED)
        matrices, vectors = _attention_weights(random)
        for name, (rows, columns, deviation) in _DENSE.items():
            matrices[f"blk.0.{name}.weight"] = random_matrix(random, _F32, rows, columns, deviation * columns**-0.5)
        return cls(_HEADS, _KV_HEADS, matrices, vectors)

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return _HEAD_DIM

    def _write_own_sizes(self, writer: GGUFWriter) -> None:
        writer.add_key_length(_HEAD_DIM)
        writer.add_value_length(_HEAD_DIM)

    def _projected(self, hidden: Values, part: str) -> Values:
        rows = (hidden @ self._matrix(f"blk.0.attn_{part}").T).reshape(len(hidden), -1, _HEAD_DIM)
        return rows if part == "v" else self._normed(rows, f"blk.0.attn_{part}_norm")


@dataclass(frozen=True)
class TinyQwen3Moe(TinyQwen3):
    """Weights of a Qwen3-MoE of one layer: the experts' in the type on trial, all others in F32.

    So the choice of experts is exact, and an error of the answer is the experts'.
    """

    architecture: ClassVar[str] = "qwen3moe"

    @classmethod
    def of_experts(cls, kind: GGMLQuantizationType) -> TinyQwen3Moe:
        """Make a model with random experts of one type."""
        random = np.random.default_rng(_SEED)
        matrices, vectors = _attention_weights(random)
        matrices[_ROUTER] = random_matrix(random, _F32, EXPERTS, WIDTH, WIDTH**-0.5)
        for name, (rows, columns, deviation) in _GATED.items():
            joined = random_matrix(random, kind, EXPERTS * rows, columns, deviation * columns**-0.5)
            matrices[f"blk.0.{name}_exps.weight"] = _by_expert(joined)
        return cls(_HEADS, _KV_HEADS, matrices, vectors)

    def _write_own_sizes(self, writer: GGUFWriter) -> None:
        super()._write_own_sizes(writer)
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(USED)
        writer.add_expert_feed_forward_length(_INNER)

    def _feed_forward(self, hidden: Values) -> Values:
        """Add up what the likeliest experts of each token give, by their chances (`build_moe_ffn` in llama.cpp)."""
        chances = softmax(hidden @ self._matrix("blk.0.ffn_gate_inp").T)
        chosen = np.argsort(-chances, axis=1)[:, :USED]
        shares = np.take_along_axis(chances, chosen, axis=1)
        shares = shares / shares.sum(axis=1, keepdims=True)
        parts = [self._matrix(f"blk.0.{name}_exps") for name in _GATED]
        result = np.zeros_like(hidden)
        for expert in range(EXPERTS):
            tokens, ranks = np.nonzero(chosen == expert)
            result[tokens] += shares[tokens, ranks, None] * swiglu(hidden[tokens], *(part[expert] for part in parts))
        return result


def _attention_weights(random: np.random.Generator) -> tuple[dict[str, Matrix], dict[str, NDArray[np.float32]]]:
    """Draw everything but the feed-forward layer."""
    matrices = {
        "token_embd.weight": random_matrix(random, _F32, VOCABULARY, WIDTH, _TOKEN_DEVIATION),
        "output.weight": random_matrix(random, _F32, VOCABULARY, WIDTH, WIDTH**-0.5),
    }
    for name, (rows, columns, deviation) in _ATTENTION.items():
        matrices[f"blk.0.{name}.weight"] = random_matrix(random, _F32, rows, columns, deviation * columns**-0.5)
    lengths = {"attn_norm": WIDTH, "ffn_norm": WIDTH, "attn_q_norm": _HEAD_DIM, "attn_k_norm": _HEAD_DIM}
    vectors = {f"blk.0.{name}.weight": around_one(random, length) for name, length in lengths.items()}
    return matrices, {**vectors, "output_norm.weight": around_one(random, WIDTH)}


def _by_expert(joined: Matrix) -> Matrix:
    """Return the matrices of all experts, one below the other, as one tensor [experts, rows, columns]."""
    shape = (EXPERTS, -1)
    return replace(
        joined,
        stored=joined.stored.reshape(*shape, joined.stored.shape[1]),
        values=joined.values.reshape(*shape, joined.values.shape[1]),
    )
