"""What of a model decides how much memory it takes: from GGUF headers, or from catalogue facts and listed sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InvalidRequestError, ModelFileError

if TYPE_CHECKING:
    from internvl_gguf.catalog import TextFacts, VisionFacts
    from internvl_gguf.gguf_header import GGUFHeader, TensorInfo

_LISTED_HEADER: Final = 6 * 1024**2  # of a text GGUF, mostly Qwen2.5's vocabulary
_USUAL_VOCAB: Final = 151_674  # of InternVL3's text models
_UNKNOWN_KIND: Final = "unknown"
_MAX_SIZE: Final = 2**31 - 1
_WRONG_FILE: Final = "Name the text GGUF of an InternVL3 model, and its mmproj."


@dataclass(frozen=True)
class Weight:
    """One tensor of a file.

    Attributes:
        name: its name in the file.
        kind: how its elements are stored, in lower case ("q4_k"); "unknown" where only the file's size is known.
        shape: sizes of its axes, the fastest first.
        n_bytes: bytes of its data.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    n_bytes: int

    @property
    def layer(self) -> int | None:
        """The layer it belongs to; None for the tensors before and after the layers."""
        parts = self.name.removeprefix("v.").split(".")
        return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else None


@dataclass(frozen=True)
class TextShape:
    """A text model, as far as its memory depends on it.

    Attributes:
        n_layers: transformer layers.
        n_embd: width, in values a token.
        n_head: query heads.
        n_head_kv: key and value heads.
        n_ff: inner width of the feed-forward layers.
        n_vocab: tokens.
        n_ctx_train: positions it was trained for; None where the catalogue does not say.
        weights: every tensor.
        from_listing: whether the sizes come from the size of the whole file instead of a header.
    """

    n_layers: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int
    n_ctx_train: int | None
    weights: tuple[Weight, ...] = field(repr=False)
    from_listing: bool

    @cached_property
    def _by_name(self) -> Mapping[str, Weight]:
        return {weight.name: weight for weight in self.weights}

    def weight(self, name: str) -> Weight:
        """The tensor of that name."""
        return self._by_name[name]

    @cached_property
    def layer_bytes(self) -> tuple[int, ...]:
        """Bytes of each layer's tensors."""
        sizes = [0] * self.n_layers
        for weight in self.weights:
            if weight.layer is not None and weight.layer < self.n_layers:
                sizes[weight.layer] += weight.n_bytes
        return tuple(sizes)

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.n_embd // self.n_head

    @property
    def kv_width(self) -> int:
        """Values of a key, or of a value, of one position in one layer."""
        return self.head_dim * self.n_head_kv

    @property
    def embedding(self) -> Weight:
        """The rows of the tokens; always in host memory."""
        return self._by_name["token_embd.weight"]

    @property
    def output(self) -> Weight | None:
        """The output matrix; None where the embedding serves for it."""
        return self._by_name.get("output.weight")

    @property
    def output_bias(self) -> Weight | None:
        """The output matrix's bias, which no Qwen2.5 has."""
        return self._by_name.get("output.bias")

    @property
    def output_norm(self) -> Weight:
        """The norm before the output matrix."""
        return self._by_name["output_norm.weight"]

    @property
    def fused_qkv(self) -> bool:
        """Whether query, key and value come from one matrix."""
        return "blk.0.attn_qkv.weight" in self._by_name


@dataclass(frozen=True)
class VisionShape:
    """A vision encoder, as far as its memory depends on it.

    Attributes:
        n_layers: transformer layers.
        width: values a patch.
        n_head: attention heads.
        n_ff: inner width of the feed-forward layers.
        image_size: side of a tile in pixels.
        patch_size: side of a patch in pixels.
        scale_factor: patches along each side that the pixel unshuffle joins.
        n_embd: width of an embedding, as the projector gives it.
        hidden: inner width of the projector.
        norm: "rms" or "layer".
        weights: every tensor.
        from_listing: whether the sizes come from the size of the whole file instead of a header.
    """

    n_layers: int
    width: int
    n_head: int
    n_ff: int
    image_size: int
    patch_size: int
    scale_factor: int
    n_embd: int
    hidden: int
    norm: str
    weights: tuple[Weight, ...] = field(repr=False)
    from_listing: bool

    @cached_property
    def _by_name(self) -> Mapping[str, Weight]:
        return {weight.name: weight for weight in self.weights}

    def weight(self, name: str) -> Weight | None:
        """The tensor of that name, None where there is none."""
        return self._by_name.get(name)

    @property
    def patches_per_side(self) -> int:
        """Patches along a side of a tile."""
        return self.image_size // self.patch_size

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of a tile."""
        return (self.patches_per_side // self.scale_factor) ** 2

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(weight.n_bytes for weight in self.weights)


@dataclass(frozen=True)
class ModelShape:
    """A model: its text half, and its vision half where there is one."""

    text: TextShape
    vision: VisionShape | None = None


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
    wanted = (weight.name for weight in _text_weights(shape) if weight.name != "output.weight")
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
    weights = _spread(_text_weights(shape), size - min(_LISTED_HEADER, size // 10))
    return replace(shape, weights=weights)


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
    return replace(shape, weights=_spread(_vision_weights(shape), size))


def _spread(planned: Iterator[Weight], size: int) -> tuple[Weight, ...]:
    """Give matrices their share of a file: vectors are F32 in every quant."""
    weights = list(planned)
    vectors = sum(weight.n_bytes for weight in weights if weight.kind == "f32")
    elements = sum(_elements(weight) for weight in weights if weight.kind != "f32")
    if size <= vectors:
        raise InvalidRequestError(f"A file of {size:,} bytes holds no such model.", "Check the size of the file.")
    rate = (size - vectors) / elements
    return tuple(
        weight
        if weight.kind == "f32"
        else Weight(weight.name, weight.kind, weight.shape, int(_elements(weight) * rate))
        for weight in weights
    )


def _elements(weight: Weight) -> int:
    product = 1
    for axis in weight.shape:
        product *= axis
    return product


def _vector(name: str, length: int) -> Weight:
    return Weight(name, "f32", (length,), 4 * length)


def _matrix(name: str, *shape: int) -> Weight:
    return Weight(name, _UNKNOWN_KIND, shape, 0)


def _text_weights(shape: TextShape) -> Iterator[Weight]:
    """The tensors of a Qwen2.5 file in InternVL's form, where the output matrix is one of its own."""
    yield _matrix("token_embd.weight", shape.n_embd, shape.n_vocab)
    yield _vector("output_norm.weight", shape.n_embd)
    yield _matrix("output.weight", shape.n_embd, shape.n_vocab)
    for layer in range(shape.n_layers):
        block = f"blk.{layer}"
        yield _vector(f"{block}.attn_norm.weight", shape.n_embd)
        yield _vector(f"{block}.ffn_norm.weight", shape.n_embd)
        for part, rows in (("q", shape.n_embd), ("k", shape.kv_width), ("v", shape.kv_width)):
            yield _matrix(f"{block}.attn_{part}.weight", shape.n_embd, rows)
            yield _vector(f"{block}.attn_{part}.bias", rows)
        yield _matrix(f"{block}.attn_output.weight", shape.n_embd, shape.n_embd)
        yield _matrix(f"{block}.ffn_gate.weight", shape.n_embd, shape.n_ff)
        yield _matrix(f"{block}.ffn_up.weight", shape.n_embd, shape.n_ff)
        yield _matrix(f"{block}.ffn_down.weight", shape.n_ff, shape.n_embd)


def _vision_weights(shape: VisionShape) -> Iterator[Weight]:
    """The tensors of an InternViT with its projector, as published files have them."""
    width, merged = shape.width, shape.width * shape.scale_factor**2
    yield _vector("v.class_embd", width)
    yield Weight(
        "v.position_embd.weight",
        "f32",
        (width, shape.patches_per_side**2 + 1),
        4 * width * (shape.patches_per_side**2 + 1),
    )
    yield _matrix("v.patch_embd.weight", shape.patch_size, shape.patch_size, 3, width)
    yield _vector("v.patch_embd.bias", width)
    for layer in range(shape.n_layers):
        yield from _vision_layer(f"v.blk.{layer}", shape)
    yield _vector("mm.model.mlp.0.weight", merged)
    yield _vector("mm.model.mlp.0.bias", merged)
    yield _matrix("mm.model.mlp.1.weight", merged, shape.hidden)
    yield _vector("mm.model.mlp.1.bias", shape.hidden)
    yield _matrix("mm.model.mlp.3.weight", shape.hidden, shape.n_embd)
    yield _vector("mm.model.mlp.3.bias", shape.n_embd)


def _vision_layer(block: str, shape: VisionShape) -> Iterator[Weight]:
    """One layer: InternViT-6B has norms of queries and keys and no biases of them, InternViT-300M the reverse."""
    width = shape.width
    vectors = ["ln1.weight", "ln2.weight", "ls1.weight", "ls2.weight", "attn_out.bias", "ffn_down.bias"]
    if shape.norm == "rms":
        vectors += ["attn_q_norm.weight", "attn_k_norm.weight"]
    else:
        vectors += ["ln1.bias", "ln2.bias", "attn_q.bias", "attn_k.bias", "attn_v.bias"]
    for name in vectors:
        yield _vector(f"{block}.{name}", width)
    yield _vector(f"{block}.ffn_up.bias", shape.n_ff)
    for part in ("q", "k", "v", "out"):
        yield _matrix(f"{block}.attn_{part}.weight", width, width)
    yield _matrix(f"{block}.ffn_up.weight", width, shape.n_ff)
    yield _matrix(f"{block}.ffn_down.weight", shape.n_ff, width)
