"""The shape of a model: from GGUF headers, or from catalogue facts and listed sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.gguf.shape import ModelShape, TextShape, VisionShape, Weight
from internvl_gguf.gguf.tensor_lists import UNKNOWN_KIND, text_weights_of, vision_weights_of

if TYPE_CHECKING:
    from internvl_gguf.gguf.facts import TextFacts, VisionFacts
    from internvl_gguf.gguf.header import GGUFHeader, TensorInfo

_LISTED_HEADER: Final = 6 * 1024**2  # of a text GGUF, mostly Qwen2.5's vocabulary
_USUAL_VOCAB: Final = 151_674  # of InternVL3's text models
_MAX_SIZE: Final = 2**31 - 1
_WRONG_FILE: Final = "Name the text GGUF of an InternVL3 model, and its mmproj."


def shape_from_headers(text: GGUFHeader | Sequence[GGUFHeader], mmproj: GGUFHeader | None = None) -> ModelShape:
    """The shape of a model whose headers were read.

    Args:
        text: header of the text model; of a split one those of all parts, the first one first.
        mmproj: header of the vision half.

    Raises:
        ModelFileError: keys or tensors are missing or cannot be meant.
    """
    parts = text if isinstance(text, Sequence) else (text,)
    return ModelShape(_text_from_headers(parts), None if mmproj is None else _vision_from_header(mmproj))


def shape_from_listing(
    text: TextFacts, text_size: int, vision: VisionFacts | None = None, mmproj_size: int | None = None
) -> ModelShape:
    """The shape of a model that is known from the catalogue and the sizes of its files alone.

    Every matrix counts as stored like the average of its file, and nothing as known about the order of its layers'
    sizes: what a quantiser did with single tensors shows in a header only.

    Args:
        text: the catalogue's facts of the text half.
        text_size: bytes of the text file, of all parts of a split one.
        vision: the catalogue's facts of the vision half, given with `mmproj_size`.
        mmproj_size: bytes of the mmproj.

    Raises:
        InvalidRequestError: a file smaller than its vectors alone.
    """
    if vision is None or mmproj_size is None:
        return ModelShape(_text_from_listing(text, text_size))
    return ModelShape(_text_from_listing(text, text_size), _vision_from_listing(vision, mmproj_size, text.width))


def resized_text(text: TextShape, size: int) -> TextShape:
    """The same text model in a file of so many bytes, of which nothing else is known.

    Raises:
        InvalidRequestError: a file smaller than its vectors alone.
    """
    weights = _spread(text_weights_of(text), size - min(_LISTED_HEADER, size // 10))
    return replace(text, weights=weights, from_listing=True)


def resized_vision(vision: VisionShape, size: int) -> VisionShape:
    """The same vision encoder in a file of so many bytes.

    Raises:
        InvalidRequestError: a file smaller than its vectors alone.
    """
    return replace(vision, weights=_spread(vision_weights_of(vision), size), from_listing=True)


def _text_from_headers(parts: Sequence[GGUFHeader]) -> TextShape:
    first = parts[0]
    architecture = first.text("general.architecture", "")
    if architecture != "qwen2":
        raise ModelFileError(f'{first.label}: its architecture is "{architecture}", not "qwen2".', _WRONG_FILE)
    weights = tuple(_weight(info) for part in parts for info in part.tensors.values())
    table = next((weight for weight in weights if weight.name == "token_embd.weight"), None)
    if table is None or len(table.shape) != 2:
        raise ModelFileError(f"{first.label}: the tensor token_embd.weight is missing.", _WRONG_FILE)
    n_embd = _count(first, "qwen2.embedding_length")
    n_head = _count(first, "qwen2.attention.head_count")
    n_head_kv = _count(first, "qwen2.attention.head_count_kv", n_head)
    if n_embd % n_head or n_head % n_head_kv:
        raise ModelFileError(
            f"{first.label}: {n_head} heads with {n_head_kv} for keys and values do not divide a width of {n_embd}.",
            _WRONG_FILE,
        )
    shape = TextShape(
        n_layers=_count(first, "qwen2.block_count"),
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        n_ff=_count(first, "qwen2.feed_forward_length"),
        n_vocab=table.shape[1],
        n_ctx_train=_count(first, "qwen2.context_length"),
        weights=weights,
        from_listing=False,
    )
    names = {weight.name for weight in weights}
    wanted = (weight.name for weight in text_weights_of(shape) if weight.name != "output.weight")
    fused = {f".attn_{part}." for part in "qkv"} if shape.fused_qkv else set()
    _require(first.label, names, (name for name in wanted if not any(part in name for part in fused)))
    return shape


def _vision_from_header(header: GGUFHeader) -> VisionShape:
    if header.text("general.architecture", "") != "clip":
        raise ModelFileError(f"{header.label} is no mmproj.", _WRONG_FILE)
    weights = tuple(_weight(info) for info in header.tensors.values())
    last = next((weight for weight in weights if weight.name == "mm.model.mlp.3.weight"), None)
    if last is None or len(last.shape) != 2:
        raise ModelFileError(f"{header.label}: the tensor mm.model.mlp.3.weight is missing.", _WRONG_FILE)
    image_size, patch_size = _count(header, "clip.vision.image_size"), _count(header, "clip.vision.patch_size")
    scale_factor = _count(header, "clip.vision.projector.scale_factor", 1)
    if image_size % (patch_size * scale_factor):
        raise ModelFileError(
            f"{header.label}: tiles of {image_size} pixels do not fall into patches of {patch_size} by {scale_factor}.",
            _WRONG_FILE,
        )
    n_layers, width = _count(header, "clip.vision.block_count"), _count(header, "clip.vision.embedding_length")
    shape = VisionShape(
        n_layers=n_layers,
        width=width,
        n_head=_count(header, "clip.vision.attention.head_count"),
        n_ff=_count(header, "clip.vision.feed_forward_length"),
        image_size=image_size,
        patch_size=patch_size,
        scale_factor=scale_factor,
        n_embd=last.shape[1],
        hidden=last.shape[0],
        norm="rms" if (n_layers, width) == (45, 3200) else "layer",
        weights=weights,
        from_listing=False,
    )
    if width % shape.n_head:
        raise ModelFileError(f"{header.label}: {shape.n_head} heads do not divide a width of {width}.", _WRONG_FILE)
    required = (f"v.blk.{layer}.ffn_up.weight" for layer in range(n_layers))
    _require(header.label, {weight.name for weight in weights}, ("v.patch_embd.weight", *required))
    return shape


def _weight(info: TensorInfo) -> Weight:
    return Weight(info.name, info.type.name.lower(), info.trimmed_shape, info.n_bytes)


def _count(header: GGUFHeader, key: str, default: int | None = None) -> int:
    value = header.integer(key, default)
    if not 1 <= value <= _MAX_SIZE:
        raise ModelFileError(f"{header.label}: {key} is {value}.", _WRONG_FILE)
    return value


def _require(label: str, names: set[str], wanted: Iterable[str]) -> None:
    missing = next((name for name in wanted if name not in names), None)
    if missing is not None:
        raise ModelFileError(f"{label}: the tensor {missing} is missing.", _WRONG_FILE)


def _text_from_listing(facts: TextFacts, size: int) -> TextShape:
    shape = TextShape(
        n_layers=facts.layers,
        n_embd=facts.width,
        n_head=facts.heads,
        n_head_kv=facts.kv_heads,
        n_ff=facts.ffn,
        n_vocab=facts.vocab or _USUAL_VOCAB,
        n_ctx_train=facts.context,
        weights=(),
        from_listing=True,
    )
    return resized_text(shape, size)


def _vision_from_listing(facts: VisionFacts, size: int, n_embd: int) -> VisionShape:
    merged = round((facts.tile // facts.patch) / facts.tokens_per_tile**0.5)
    shape = VisionShape(
        n_layers=facts.layers,
        width=facts.width,
        n_head=facts.heads,
        n_ff=facts.ffn,
        image_size=facts.tile,
        patch_size=facts.patch,
        scale_factor=merged,
        n_embd=n_embd,
        hidden=n_embd,
        norm="rms" if facts.norm == "rmsnorm" else "layer",
        weights=(),
        from_listing=True,
    )
    return resized_vision(shape, size)


def _spread(planned: Iterator[Weight], size: int) -> tuple[Weight, ...]:
    """Give matrices their share of a file."""
    weights = list(planned)
    vectors = sum(weight.n_bytes for weight in weights if weight.kind != UNKNOWN_KIND)
    elements = sum(math.prod(weight.shape) for weight in weights if weight.kind == UNKNOWN_KIND)
    if size <= vectors:
        raise InvalidRequestError(f"A file of {size:,} bytes holds no such model.", "Check the size of the file.")
    rate = (size - vectors) / elements
    return tuple(
        Weight(weight.name, weight.kind, weight.shape, int(math.prod(weight.shape) * rate))
        if weight.kind == UNKNOWN_KIND
        else weight
        for weight in weights
    )
