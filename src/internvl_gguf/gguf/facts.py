"""The shape of a model as people publish it: what the catalogue says of a model that nobody has downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Norm = Literal["layernorm", "rmsnorm"]


@dataclass(frozen=True)
class TextFacts:
    """Shape of a text model.

    Attributes:
        architecture: the name llama.cpp knows it by, for example "qwen2".
        layers: transformer blocks.
        width: size of the hidden state, and of one visual token's embedding.
        heads: attention heads.
        kv_heads: heads of keys and values.
        ffn: width of the feed-forward part.
        vocab: tokens; None where it was not checked.
        context: positions it was trained for; None where it was not checked.
    """

    architecture: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int | None = None
    context: int | None = None


@dataclass(frozen=True)
class VisionFacts:
    """Shape of a vision encoder.

    Attributes:
        layers: transformer blocks.
        width: size of the hidden state.
        heads: attention heads.
        ffn: width of the feed-forward part.
        tile: pixels along a side of a tile.
        patch: pixels along a side of a patch.
        tokens_per_tile: positions one tile takes in the prompt.
        norm: kind of normalisation.
    """

    layers: int
    width: int
    heads: int
    ffn: int
    tile: int
    patch: int
    tokens_per_tile: int
    norm: Norm
