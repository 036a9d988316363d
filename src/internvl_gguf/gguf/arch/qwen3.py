"""Qwen3, the text model of InternVL3.5 (`src/models/qwen3.cpp` in llama.cpp).

Against Qwen2.5 it has norms of each head's queries and keys, no biases, and heads whose width is a size of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.gguf.arch import decoder
from internvl_gguf.gguf.arch.base import Part, TextShape, always, vector
from internvl_gguf.gguf.arch.internvit import INTERNVIT_6B, INTERNVIT_300M
from internvl_gguf.gguf.arch.qwen2 import PRE_TOKENIZERS
from internvl_gguf.gguf.arch.text_architecture import BYTE_PAIRS, TextArchitecture, decoder_keys

_TITLE: Final = "Qwen3"

USUAL_VOCAB: Final = 151_936
"""Tokens of InternVL3.5, padding included, if the catalogue does not say."""


def attention_parts(shape: TextShape) -> tuple[Part, ...]:
    """Return the parts of a layer before its feed-forward matrices, which Qwen3-MoE has as well."""
    return (
        always(vector("attn_norm.weight", shape.n_embd)),
        decoder.queries_keys_values(shape, biased=False),
        decoder.query_key_norms(shape),
        decoder.attention_output(shape),
    )


def before_layers(shape: TextShape) -> Sequence[Part]:
    """Return the parts before the layers."""
    return (decoder.embedding_rows(shape, USUAL_VOCAB),)


def after_layers(shape: TextShape) -> Sequence[Part]:
    """Return the parts after the layers."""
    return (decoder.output_norm(shape), decoder.output_rows(shape, USUAL_VOCAB))


QWEN3: Final = TextArchitecture(
    name="qwen3",
    title=_TITLE,
    block="blk.",
    before=before_layers,
    layer=lambda shape: (*attention_parts(shape), decoder.gated_feed_forward(shape)),
    after=after_layers,
    settings=lambda shape: decoder_keys(shape, _TITLE),
    heads_span_width=False,
    series=frozenset({"3.5"}),
    tokenizer=BYTE_PAIRS,
    pre_tokenizers=PRE_TOKENIZERS,
    encoders={
        (28, 1024): INTERNVIT_300M,  # 0.6B, in InternVL3.5-1B
        (28, 2048): INTERNVIT_300M,  # 1.7B, in 2B
        (36, 2560): INTERNVIT_300M,  # 4B
        (36, 4096): INTERNVIT_300M,  # 8B
        (40, 5120): INTERNVIT_300M,  # 14B
        (64, 5120): INTERNVIT_6B,  # 32B, in 38B
    },
)
