"""InternLM3, the text model of InternVL3-9B. Its graph is that of Llama (`src/models/llama.cpp` in llama.cpp).

Files of it are of the architecture "llama", as are those of many models that no InternVL has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.gguf.arch import decoder
from internvl_gguf.gguf.arch.base import Part, TextShape
from internvl_gguf.gguf.arch.internlm2 import layer_parts
from internvl_gguf.gguf.arch.internvit import INTERNVIT_300M
from internvl_gguf.gguf.arch.text_architecture import SENTENCEPIECE, TextArchitecture, decoder_keys

_TITLE: Final = "InternLM3"
_USUAL_VOCAB: Final = 128_512  # of InternLM3-8B; that of InternVL3-9B was not seen


def _after(shape: TextShape) -> Sequence[Part]:
    return (decoder.output_norm(shape), decoder.output_rows(shape, _USUAL_VOCAB))


INTERNLM3: Final = TextArchitecture(
    name="llama",
    title=_TITLE,
    block="blk.",
    before=lambda shape: (decoder.embedding_rows(shape, _USUAL_VOCAB),),
    layer=layer_parts,
    after=_after,
    settings=lambda shape: decoder_keys(shape, _TITLE),
    heads_span_width=False,
    series=frozenset({"3"}),
    tokenizer=SENTENCEPIECE,
    encoders={(48, 4096): INTERNVIT_300M},  # 8B, in InternVL3-9B
)
