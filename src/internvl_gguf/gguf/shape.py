"""What of a model decides how much memory it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache


@lru_cache(maxsize=8192)
def _layer_of(name: str) -> int | None:
    """One name is asked for again and again, once for each quant of a model."""
    parts = name.removeprefix("v.").split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else None


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
        return _layer_of(self.name)


@dataclass(frozen=True)
class Matrices:
    """Matrices of one type.

    Attributes:
        kind: how their elements are stored, as `Weight.kind`.
        n_bytes: bytes of all.
        elements: elements of all.
    """

    kind: str
    n_bytes: int
    elements: int

    @staticmethod
    def among(weights: Iterable[Weight]) -> tuple[Matrices, ...]:
        """The matrices among some tensors, type by type."""
        sums: dict[str, list[int]] = {}
        for weight in weights:
            if len(weight.shape) == 2:
                entry = sums.setdefault(weight.kind, [0, 0])
                entry[0] += weight.n_bytes
                entry[1] += weight.shape[0] * weight.shape[1]
        return tuple(Matrices(kind, n_bytes, elements) for kind, (n_bytes, elements) in sums.items())


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

    @cached_property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(math.prod(weight.shape) for weight in self.weights)

    @cached_property
    def layer_matrices(self) -> tuple[tuple[Matrices, ...], ...]:
        """Each layer's matrices, type by type."""
        layers: list[list[Weight]] = [[] for _ in range(self.n_layers)]
        for weight in self.weights:
            if weight.layer is not None and weight.layer < self.n_layers:
                layers[weight.layer].append(weight)
        return tuple(map(Matrices.among, layers))

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


@dataclass(frozen=True, eq=False)
class VisionShape:
    """A vision encoder, as far as its memory depends on it. Compared by identity: plans of one are remembered.

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

    @cached_property
    def block_matrices(self) -> tuple[Matrices, ...]:
        """The matrices of the layers and the projector, type by type."""
        return Matrices.among(weight for weight in self.weights if "embd" not in weight.name)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(weight.n_bytes for weight in self.weights)

    @cached_property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(math.prod(weight.shape) for weight in self.weights)


@dataclass(frozen=True)
class ModelShape:
    """A model: its text half, and its vision half where there is one."""

    text: TextShape
    vision: VisionShape | None = None
