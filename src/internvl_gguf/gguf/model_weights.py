"""The tensors of a model with their sizes, from which memory and speed are computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final

from internvl_gguf.gguf.arch.base import MmprojShape, TextShape

UNKNOWN_KIND: Final = "unknown"
"""`Weight.kind` of a matrix if only the size of its file is known."""


@lru_cache(maxsize=8192)
def _layer_of(name: str) -> int | None:
    """Return the layer in a tensor's name; cached, since every quant of a model has the same names."""
    parts = name.removeprefix("v.").split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else None


@dataclass(frozen=True)
class Weight:
    """One tensor of a file.

    Attributes:
        name: its name in the file.
        kind: storage type of its elements, in lower case ("q4_k"), or `UNKNOWN_KIND`.
        shape: sizes of its axes, the fastest first.
        n_bytes: bytes of its data.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    n_bytes: int

    @property
    def layer(self) -> int | None:
        """Number of the layer it belongs to; None for the tensors before and after the layers."""
        return _layer_of(self.name)

    @property
    def is_of_experts(self) -> bool:
        """Whether it holds the matrices of all experts of a layer."""
        return len(self.shape) > 2


@dataclass(frozen=True)
class Matrices:
    """Totals of the matrices of one type.

    Attributes:
        kind: storage type of their elements, see `Weight.kind`.
        n_bytes: bytes of all matrices.
        elements: elements of all matrices.
        used: share of them that one token is multiplied with: less than 1 of experts.
    """

    kind: str
    n_bytes: int
    elements: int
    used: float = 1.0

    @staticmethod
    def among(weights: Iterable[Weight], used_experts: float = 1.0) -> tuple[Matrices, ...]:
        """Return the totals of the matrices among some tensors, type by type.

        Args:
            weights: the tensors; those of three axes hold a matrix for each expert.
            used_experts: share of the experts that one token goes through.
        """
        found = (
            Matrices(each.kind, each.n_bytes, math.prod(each.shape), used_experts if each.is_of_experts else 1.0)
            for each in weights
            if len(each.shape) > 1
        )
        return Matrices.joined(found)

    @staticmethod
    def joined(parts: Iterable[Matrices]) -> tuple[Matrices, ...]:
        """Return the totals of several, by type and by the share that a token uses."""
        sums: dict[tuple[str, float], tuple[int, int]] = {}
        for each in parts:
            n_bytes, elements = sums.get((each.kind, each.used), (0, 0))
            sums[each.kind, each.used] = n_bytes + each.n_bytes, elements + each.elements
        return tuple(Matrices(kind, *sizes, used) for (kind, used), sizes in sums.items())

    def read_share(self, tokens: int) -> float:
        """Return the share that a batch of tokens reads, where each expert is as likely as another."""
        return 1.0 - (1.0 - self.used) ** tokens


@dataclass(frozen=True, kw_only=True)
class TextWeights(TextShape):
    """The sizes of a text model, with the tensors of its file.

    Attributes:
        n_vocab: tokens, always known.
        weights: every tensor.
        from_listing: whether the sizes come from the size of the whole file instead of a header.
    """

    n_vocab: int
    weights: tuple[Weight, ...] = field(repr=False)
    from_listing: bool

    @cached_property
    def _by_name(self) -> Mapping[str, Weight]:
        return {weight.name: weight for weight in self.weights}

    def weight(self, name: str) -> Weight:
        """Return the tensor of that name."""
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
    def expert_bytes(self) -> tuple[int, ...]:
        """Bytes of the experts of each layer."""
        sizes = [0] * self.n_layers
        for weight in self.weights:
            if weight.is_of_experts and weight.layer is not None and weight.layer < self.n_layers:
                sizes[weight.layer] += weight.n_bytes
        return tuple(sizes)

    @cached_property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(weight.shape) for weight in self.weights)

    @cached_property
    def layer_matrices(self) -> tuple[tuple[Matrices, ...], ...]:
        """The matrices of each layer, type by type."""
        layers: list[list[Weight]] = [[] for _ in range(self.n_layers)]
        for weight in self.weights:
            if weight.layer is not None and weight.layer < self.n_layers:
                layers[weight.layer].append(weight)
        return tuple(Matrices.among(layer, self.used_experts) for layer in layers)

    @property
    def used_experts(self) -> float:
        """Share of the experts that one token goes through; 1 for a model without experts."""
        return self.n_expert_used / self.n_expert if self.n_expert else 1.0

    @property
    def embedding(self) -> Weight:
        """The token embedding matrix; always in host memory."""
        return self._by_name["token_embd.weight"]

    @property
    def output(self) -> Weight | None:
        """The output matrix; None if the token embedding serves as output matrix, too."""
        return self._by_name.get("output.weight")

    @property
    def output_bias(self) -> Weight | None:
        """The bias of the output matrix; no Qwen2.5 has one."""
        return self._by_name.get("output.bias")

    @property
    def output_norm(self) -> Weight:
        """The norm before the output matrix."""
        return self._by_name["output_norm.weight"]

    @property
    def norms_heads(self) -> bool:
        """Whether queries and keys are normed."""
        return "blk.0.attn_q_norm.weight" in self._by_name

    @property
    def fused_qkv(self) -> bool:
        """Whether one matrix computes query, key and value."""
        return "blk.0.attn_qkv.weight" in self._by_name


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionWeights(MmprojShape):
    """The sizes of an mmproj with its tensors. Compared by identity: memory plans of one are remembered.

    Attributes:
        weights: every tensor.
        from_listing: whether the sizes come from the size of the whole file instead of a header.
    """

    weights: tuple[Weight, ...] = field(repr=False)
    from_listing: bool

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @cached_property
    def _by_name(self) -> Mapping[str, Weight]:
        return {weight.name: weight for weight in self.weights}

    def weight(self, name: str) -> Weight | None:
        """Return the tensor of that name; None if there is none."""
        return self._by_name.get(name)

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
        """Number of weights."""
        return sum(math.prod(weight.shape) for weight in self.weights)


@dataclass(frozen=True)
class ModelShape:
    """A model: its text half, and its vision half where there is one."""

    text: TextWeights
    vision: VisionWeights | None = None
