"""Qwen2.5, the text model of InternVL2.5 and 3 (`src/models/qwen2.cpp` in llama.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.gguf.arch.base import (
    Part,
    TextArchitecture,
    TextShape,
    always,
    decoder_keys,
    matrix,
    unusual,
    usual,
    vector,
)
from internvl_gguf.gguf.arch.internvit import INTERNVIT_6B, INTERNVIT_300M

_TITLE: Final = "Qwen2.5"
_USUAL_VOCAB: Final = 151_674  # of InternVL2.5 and 3, if the catalogue does not say


def _before(shape: TextShape) -> Sequence[Part]:
    return (always(matrix("token_embd.weight", shape.n_embd, shape.n_vocab or _USUAL_VOCAB)),)


def _layer(shape: TextShape) -> Sequence[Part]:
    """Return the parts of a layer; one matrix or three give queries, keys, values (`create_tensor_qkv`), all biased."""
    width, rows = shape.n_embd, {"q": shape.q_width, "k": shape.kv_width, "v": shape.kv_width}
    split = tuple(
        tensor
        for part, length in rows.items()
        for tensor in (matrix(f"attn_{part}.weight", width, length), vector(f"attn_{part}.bias", length))
    )
    joined = sum(rows.values())
    return (
        always(vector("attn_norm.weight", width)),
        (split, (matrix("attn_qkv.weight", width, joined), vector("attn_qkv.bias", joined))),
        always(
            matrix("attn_output.weight", shape.q_width, width),
            vector("ffn_norm.weight", width),
            matrix("ffn_gate.weight", width, shape.n_ff),
            matrix("ffn_up.weight", width, shape.n_ff),
            matrix("ffn_down.weight", shape.n_ff, width),
        ),
    )


def _after(shape: TextShape) -> Sequence[Part]:
    """Return the parts after the layers. The token embedding may serve as output matrix; no known InternVL does so."""
    n_vocab = shape.n_vocab or _USUAL_VOCAB
    return (
        always(vector("output_norm.weight", shape.n_embd)),
        usual(matrix("output.weight", shape.n_embd, n_vocab)),
        unusual(vector("output.bias", n_vocab)),
    )


QWEN2: Final = TextArchitecture(
    name="qwen2",
    title=_TITLE,
    block="blk.",
    before=_before,
    layer=_layer,
    after=_after,
    settings=lambda shape: decoder_keys(shape, _TITLE),
    heads_span_width=True,
    tokenizer="gpt2",
    pre_tokenizers=frozenset({"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2"}),  # the same in llama.cpp
    encoders={
        (24, 896): INTERNVIT_300M,  # 0.5B, in InternVL3-1B
        (28, 1536): INTERNVIT_300M,  # 1.5B, in 2B
        (36, 2048): INTERNVIT_300M,  # 3B, in InternVL2.5-4B
        (28, 3584): INTERNVIT_300M,  # 7B, in 8B
        (48, 5120): INTERNVIT_300M,  # 14B
        (64, 5120): INTERNVIT_6B,  # 32B, in 38B
        (80, 8192): INTERNVIT_6B,  # 72B, in 78B
    },
)
