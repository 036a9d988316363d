"""InternLM2.5, the text model of InternVL2.5-2B, 8B and 26B (`src/models/internlm2.cpp` in llama.cpp).

Against Qwen2.5 it has no biases, another pairing of the numbers that positions rotate, which converters arrange the
rows of queries and keys for (`LlamaModel.permute`), and a SentencePiece vocabulary with a token that begins a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.gguf.arch import decoder
from internvl_gguf.gguf.arch.base import Part, TextShape, always, matrix, vector
from internvl_gguf.gguf.arch.internvit import INTERNVIT_6B, INTERNVIT_300M
from internvl_gguf.gguf.arch.text_architecture import SENTENCEPIECE, TextArchitecture, decoder_keys

_TITLE: Final = "InternLM2.5"
_USUAL_VOCAB: Final = 92_553  # of InternVL2.5, if the catalogue does not say


def layer_parts(shape: TextShape) -> Sequence[Part]:
    """Return the parts of a layer, which InternLM3 has as well."""
    return (
        always(vector("attn_norm.weight", shape.n_embd)),
        decoder.queries_keys_values(shape, biased=False),
        decoder.attention_output(shape),
        decoder.gated_feed_forward(shape),
    )


def _after(shape: TextShape) -> Sequence[Part]:
    rows = matrix("output.weight", shape.n_embd, shape.n_vocab or _USUAL_VOCAB)
    return (decoder.output_norm(shape), always(rows))  # llama.cpp takes no token embedding in its place


INTERNLM2: Final = TextArchitecture(
    name="internlm2",
    title=_TITLE,
    block="blk.",
    before=lambda shape: (decoder.embedding_rows(shape, _USUAL_VOCAB),),
    layer=layer_parts,
    after=_after,
    settings=lambda shape: decoder_keys(shape, _TITLE),
    heads_span_width=True,
    series=frozenset({"2", "2.5"}),
    tokenizer=SENTENCEPIECE,
    encoders={
        (24, 2048): INTERNVIT_300M,  # 1.8B, in InternVL2.5-2B
        (32, 4096): INTERNVIT_300M,  # 7B, in 8B
        (48, 6144): INTERNVIT_6B,  # 20B, in 26B
    },
)
