"""A Qwen2 of one layer for the trial, and its known logits, computed by numpy from the stored weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from internvl_gguf.llama.trial.weights import Matrix, random_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH: Final = 256  # one block of a K-quant; what AMX and the reordered kernels ask for is a divisor of it
VOCABULARY: Final = 128
_CONTEXT: Final = 1024
FEED_FORWARD: Final = 512  # two blocks in a row
_EPSILON: Final = 1e-6
_ROPE_BASE: Final = 10000.0

# Deviation of each matrix, in units of 1/sqrt(columns). What the layer adds outweighs the token's own row, so that
# every matrix shows in the logits.
_DEVIATIONS: Final = {
    "attn_q": 1.0,
    "attn_k": 1.0,
    "attn_v": 1.0,
    "attn_output": 4.0,
    "ffn_gate": 1.5,
    "ffn_up": 1.0,
    "ffn_down": 3.0,
}
_TOKEN_DEVIATION: Final = 0.5


@dataclass(frozen=True)
class TinyText:
    """Weights of a text model of one layer.

    Attributes:
        heads, kv_heads: numbers of attention heads; each has `WIDTH` / `heads` dimensions.
        matrices: by tensor name.
        vectors: norms and biases by tensor name, float32.
    """

    architecture: ClassVar[str] = "qwen2"

    heads: int
    kv_heads: int
    matrices: dict[str, Matrix]
    vectors: dict[str, NDArray[np.float32]]

    @classmethod
    def random(cls, kind: GGMLQuantizationType, heads: int, kv_heads: int, seed: int = 1) -> TinyText:
        """Make a model with random matrices of one type.

        Args:
            kind: element type of the matrices.
            heads, kv_heads: numbers of attention heads.
            seed: another seed gives other weights.
        """
        random = np.random.default_rng(seed)
        kv_width = WIDTH // heads * kv_heads
        rows = {"attn_k": kv_width, "attn_v": kv_width, "ffn_gate": FEED_FORWARD, "ffn_up": FEED_FORWARD}
        matrices = {
            "token_embd.weight": random_matrix(random, kind, VOCABULARY, WIDTH, _TOKEN_DEVIATION),
            "output.weight": random_matrix(random, kind, VOCABULARY, WIDTH, WIDTH**-0.5),
        }
        vectors = {"output_norm.weight": around_one(random, WIDTH)}
        for part, deviation in _DEVIATIONS.items():
            columns = FEED_FORWARD if part == "ffn_down" else WIDTH
            matrices[f"blk.0.{part}.weight"] = random_matrix(
                random, kind, rows.get(part, WIDTH), columns, deviation * columns**-0.5
            )
        for norm in ("attn_norm", "ffn_norm"):
            vectors[f"blk.0.{norm}.weight"] = around_one(random, WIDTH)
        for part in ("attn_q", "attn_k", "attn_v"):
            bias = random.standard_normal(rows.get(part, WIDTH), dtype=np.float32)
            vectors[f"blk.0.{part}.bias"] = np.float32(0.1) * bias
        return cls(heads, kv_heads, matrices, vectors)

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return WIDTH // self.heads

    def write(self, path: Path) -> None:
        """Write the model as a GGUF without a tokenizer."""
        writer = GGUFWriter(path, self.architecture)
        writer.add_context_length(_CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(1)
        writer.add_feed_forward_length(FEED_FORWARD)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_layer_norm_rms_eps(_EPSILON)
        writer.add_rope_freq_base(_ROPE_BASE)
        writer.add_vocab_size(VOCABULARY)
        writer.add_tokenizer_model("no_vocab")
        self._write_own_sizes(writer)
        for name, matrix in self.matrices.items():
            writer.add_tensor(name, matrix.stored, raw_dtype=matrix.kind)
        for name, vector in self.vectors.items():
            writer.add_tensor(name, vector)
        write_all(writer)

    def _write_own_sizes(self, writer: GGUFWriter) -> None:
        """Write the keys that Qwen2 lacks."""

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Return the logits after each token, float64 [tokens, VOCABULARY], in double precision.

        The formula is that of Qwen2 (`llm_build_qwen2` in llama.cpp's src/models/qwen2.cpp): RMS norms, attention of
        grouped heads with rotary positions (the halves of a head are rotated against each other), SwiGLU.
        """
        hidden = self._matrix("token_embd")[list(tokens)]
        hidden = hidden + self._attention(self._normed(hidden, "blk.0.attn_norm"))
        hidden = hidden + self._feed_forward(self._normed(hidden, "blk.0.ffn_norm"))
        return self._normed(hidden, "output_norm") @ self._matrix("output").T

    def _attention(self, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
        count = len(hidden)
        query, key, value = (self._projected(hidden, part).swapaxes(0, 1) for part in "qkv")
        group = self.heads // self.kv_heads
        key, value = (each.repeat(group, axis=0) for each in (_rotated(key), value))
        scores = _rotated(query) @ key.swapaxes(1, 2) / self.head_dim**0.5
        scores[:, np.triu(np.ones((count, count), dtype=bool), 1)] = -np.inf
        attended = softmax(scores) @ value
        joined = attended.swapaxes(0, 1).reshape(count, -1)
        return joined @ self._matrix("blk.0.attn_output").T

    def _projected(self, hidden: NDArray[np.float64], part: str) -> NDArray[np.float64]:
        """Return queries, keys or values of each token, float64 [tokens, heads, head_dim]."""
        rows = hidden @ self._matrix(f"blk.0.attn_{part}").T + self.vectors[f"blk.0.attn_{part}.bias"]
        return np.asarray(rows.reshape(len(hidden), -1, self.head_dim))

    def _feed_forward(self, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = (self._matrix(f"blk.0.ffn_{part}") for part in ("gate", "up", "down"))
        return swiglu(hidden, *parts)

    def _normed(self, hidden: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """Apply an RMS norm over the last axis."""
        scale = 1 / np.sqrt((hidden**2).mean(axis=-1, keepdims=True) + _EPSILON)
        return np.asarray(hidden * scale * self.vectors[f"{name}.weight"])

    def _matrix(self, name: str) -> NDArray[np.float64]:
        return self.matrices[f"{name}.weight"].values.astype(np.float64)


def swiglu(
    hidden: NDArray[np.float64], gate: NDArray[np.float64], up: NDArray[np.float64], down: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute a gated feed-forward layer for float64 [tokens, columns]; its matrices are [rows, columns]."""
    opened = hidden @ gate.T
    return np.asarray((opened / (1 + np.exp(-opened)) * (hidden @ up.T)) @ down.T)


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute softmax over the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def write_all(writer: Any) -> None:
    """Write everything that a GGUFWriter holds, and close it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rotated(heads: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply rotary position embeddings for positions 0, 1, 2, ... to float64 [heads, tokens, head_dim]."""
    _, count, head_dim = heads.shape
    frequencies = _ROPE_BASE ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = np.arange(count)[:, None] * frequencies
    cosine, sine = np.cos(angles), np.sin(angles)
    first, second = np.split(heads, 2, axis=2)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=2)


def around_one(random: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Draw the weights of a norm."""
    return np.asarray(1 + 0.1 * random.standard_normal(count), dtype=np.float32)
