"""Qwen2.5, the text model of InternVL2.5 and 3 (`src/models/qwen2.cpp` in llama.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.gguf.arch import decoder
from internvl_gguf.gguf.arch.base import Part, TextShape, always, vector
from internvl_gguf.gguf.arch.internvit import INTERNVIT_6B, INTERNVIT_300M
from internvl_gguf.gguf.arch.text_architecture import BYTE_PAIRS, TextArchitecture, decoder_keys

_TITLE: Final = "Qwen2.5"
_USUAL_VOCAB: Final = 151_674  # of InternVL2.5 and 3, if the catalogue does not say

PRE_TOKENIZERS: Final = frozenset({"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2"})
"""Names of the pre-split of Qwen2, 2.5 and 3, which are the same in llama.cpp."""


def _layer(shape: TextShape) -> Sequence[Part]:
    return (
        always(vector("attn_norm.weight", shape.n_embd)),
        decoder.queries_keys_values(shape, biased=True),
        decoder.attention_output(shape),
        decoder.gated_feed_forward(shape),
    )


def _after(shape: TextShape) -> Sequence[Part]:
    return (
        decoder.output_norm(shape),
        decoder.output_rows(shape, _USUAL_VOCAB),
        decoder.output_bias(shape, _USUAL_VOCAB),
    )


QWEN2: Final = TextArchitecture(
    name="qwen2",
    title=_TITLE,
    block="blk.",
    before=lambda shape: (decoder.embedding_rows(shape, _USUAL_VOCAB),),
    layer=_layer,
    after=_after,
    settings=lambda shape: decoder_keys(shape, _TITLE),
    heads_span_width=True,
    series=frozenset({"2", "2.5", "3"}),
    tokenizer=BYTE_PAIRS,
    pre_tokenizers=PRE_TOKENIZERS,
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
