"""Qwen3-MoE, the text model of InternVL3.5-30B-A3B and 241B-A28B (`src/models/qwen3moe.cpp` in llama.cpp).

It is Qwen3 with experts in the place of the feed-forward matrices: each token goes through a few of many.
"""

from __future__ import annotations

from typing import Final

from internvl_gguf.gguf.arch import decoder
from internvl_gguf.gguf.arch.internvit import INTERNVIT_6B, INTERNVIT_300M
from internvl_gguf.gguf.arch.qwen3 import QWEN3, after_layers, attention_parts, before_layers
from internvl_gguf.gguf.arch.text_architecture import BYTE_PAIRS, TextArchitecture, decoder_keys

_TITLE: Final = "Qwen3-MoE"

QWEN3MOE: Final = TextArchitecture(
    name="qwen3moe",
    title=_TITLE,
    block="blk.",
    before=before_layers,
    layer=lambda shape: (*attention_parts(shape), decoder.chosen_experts(shape)),
    after=after_layers,
    settings=lambda shape: decoder_keys(shape, _TITLE),
    heads_span_width=False,
    has_experts=True,
    series=QWEN3.series,
    tokenizer=BYTE_PAIRS,
    pre_tokenizers=QWEN3.pre_tokenizers,
    encoders={
        (48, 2048): INTERNVIT_300M,  # 30B-A3B
        (94, 4096): INTERNVIT_6B,  # 235B-A22B, in 241B-A28B
    },
)
