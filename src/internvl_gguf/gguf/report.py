"""What the headers of a model's files say, for people and scripts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from internvl_gguf.gguf.header import GGUFHeader
from internvl_gguf.gguf.validation import validate_mmproj, validate_text_model

_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class TextReport:
    """A text model's header.

    Attributes:
        name: `general.name`; "" where the file has none.
        architecture: as llama.cpp calls it.
        parameters: weights.
        bits_per_weight: bits of all tensors by their weights.
        tensor_types: how many tensors are stored in each type, the most frequent first.
        layers, width, heads, kv_heads, ffn, vocab: its shape.
        context: positions it was trained for.
        has_template: whether it carries a chat template. Ours is InternVL's own, whatever the file says.
        bytes: of the tensors.
    """

    name: str
    architecture: str
    parameters: int
    bits_per_weight: float
    tensor_types: dict[str, int]
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    context: int
    has_template: bool
    bytes: int


@dataclass(frozen=True)
class VisionReport:
    """An mmproj's header.

    Attributes:
        name: `general.name`; "" where the file has none.
        projector: how visual tokens are made.
        parameters, bits_per_weight, tensor_types, bytes: as `TextReport`.
        layers, width, heads, ffn: shape of the vision transformer.
        tile, patch: sides in pixels.
        tokens_per_tile: positions of one tile in the prompt.
        projection: width of a visual token.
    """

    name: str
    projector: str
    parameters: int
    bits_per_weight: float
    tensor_types: dict[str, int]
    layers: int
    width: int
    heads: int
    ffn: int
    tile: int
    patch: int
    tokens_per_tile: int
    projection: int
    bytes: int


def report_text(headers: Sequence[GGUFHeader]) -> TextReport:
    """What the header of a text model says; those of all parts of a split one.

    Raises:
        ModelFileError: it is damaged, or no text model of an InternVL.
    """
    first, *parts = headers
    facts = validate_text_model(first, parts)
    parameters, types = _weights(headers)
    return TextReport(
        facts.name, facts.architecture, parameters, 8 * facts.weight_bytes / parameters, types, facts.n_layers,
        facts.n_embd, facts.n_head, facts.n_head_kv, facts.n_ff, facts.n_vocab, facts.n_ctx_train, _TEMPLATE in first,
        facts.weight_bytes,
    )  # fmt: skip


def report_vision(header: GGUFHeader) -> VisionReport:
    """What the header of an mmproj says.

    Raises:
        ModelFileError: it is damaged, or no mmproj of an InternVL.
    """
    facts = validate_mmproj(header)
    parameters, types = _weights([header])
    return VisionReport(
        facts.name, facts.projector, parameters, 8 * facts.weight_bytes / parameters, types, facts.n_layers,
        facts.width, facts.n_head, facts.n_ff, facts.image_size, facts.patch_size, facts.tokens_per_tile,
        facts.projection_width, facts.weight_bytes,
    )  # fmt: skip


def _weights(headers: Sequence[GGUFHeader]) -> tuple[int, dict[str, int]]:
    tensors = [tensor for header in headers for tensor in header.tensors.values()]
    types = Counter(tensor.type.name for tensor in tensors)
    return sum(math.prod(tensor.shape) for tensor in tensors), dict(types.most_common())
