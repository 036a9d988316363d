"""Classes that describe an architecture: sizes of a model under llama.cpp's names, keys and tensors of its files.

`TextShape` and `VisionShape` are the one vocabulary for sizes: the catalogue, checked headers, memory plans and reports
use them or subclasses with more facts. An `Architecture` lists the tensors of its files as functions of these sizes,
with the alternatives that files may hold. Nothing here loads numpy or the gguf package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

if TYPE_CHECKING:
    pass

Norm = Literal["layernorm", "rmsnorm"]

MAX_WIDTH: Final = 2**20


@dataclass(frozen=True)
class TextShape:
    """Sizes of a text model.

    Attributes:
        architecture: `general.architecture`, for example "qwen2".
        n_layers: transformer layers.
        n_embd: width of the hidden state, and of one visual token's embedding, in values.
        n_head: query heads.
        n_head_kv: key and value heads; a divisor of n_head.
        n_ff: inner width of the feed-forward layers.
        n_vocab: tokens; None if the catalogue does not say.
        n_ctx_train: positions it was trained for; None if the catalogue does not say.
        head_dim: width of an attention head, in values; 0 takes n_embd // n_head, as llama.cpp does for a file without
            `attention.key_length`.
        n_expert: experts in each layer; 0 where all tokens go through the same feed-forward matrices.
        n_expert_used: experts that one token goes through.
        n_ff_exp: inner width of an expert.
    """

    architecture: str
    n_layers: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int | None = None
    n_ctx_train: int | None = None
    head_dim: int = 0
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_exp: int = 0

    def __post_init__(self) -> None:
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.n_embd // self.n_head)

    @property
    def q_width(self) -> int:
        """Width of all query heads of one position in one layer: `n_embd_head_k * n_head` in llama.cpp."""
        return self.head_dim * self.n_head

    @property
    def kv_width(self) -> int:
        """Width of all key heads (or value heads) of one position in one layer: `n_embd_k_gqa` in llama.cpp."""
        return self.head_dim * self.n_head_kv

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """The fields of a `TextShape` by name, without those that a subclass adds."""
        return {each.name: getattr(self, each.name) for each in fields(TextShape)}


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision encoder.

    Attributes:
        n_layers: transformer layers.
        n_embd: width of the hidden state, in values for each patch.
        n_head: attention heads.
        n_ff: inner width of the feed-forward layers.
        image_size: side of a tile in pixels.
        patch_size: side of a patch in pixels.
        tokens_per_tile: visual tokens of a tile: 256 for 448-pixel tiles of 14-pixel patches merged two by two.
        norm: kind of its norms: LayerNorm in InternViT-300M and others, RMSNorm in InternViT-6B.
    """

    n_layers: int
    n_embd: int
    n_head: int
    n_ff: int
    image_size: int
    patch_size: int
    tokens_per_tile: int
    norm: Norm

    @property
    def head_dim(self) -> int:
        """Width of an attention head, in values."""
        return self.n_embd // self.n_head

    @property
    def patches_per_side(self) -> int:
        """Patches along a side of a tile."""
        return self.image_size // self.patch_size

    @property
    def sizes(self) -> dict[str, Any]:
        """The fields of a `VisionShape` by name, without those that a subclass adds."""
        return {each.name: getattr(self, each.name) for each in fields(VisionShape)}

    @property
    def scale_factor(self) -> int:
        """Patches along each side of the square that pixel unshuffle merges into one visual token."""
        return round(self.patches_per_side / math.sqrt(self.tokens_per_tile))


@dataclass(frozen=True, kw_only=True)
class MmprojShape(VisionShape):
    """Sizes of a vision encoder with its projector: the content of an mmproj.

    Attributes:
        projection_dim: width of a visual token, which is that of the text model.
        projector_hidden: inner width of the projector.
    """

    projection_dim: int
    projector_hidden: int

    @property
    def merged_width(self) -> int:
        """Width of a visual token before the projector, in values: the hidden states of all its patches."""
        return self.n_embd * self.scale_factor**2

    @property
    def sizes(self) -> dict[str, Any]:
        """The fields of an `MmprojShape` by name, without those that a subclass adds."""
        return {each.name: getattr(self, each.name) for each in fields(MmprojShape)}


Storage = Literal["any", "float", "f32"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor in the files of an architecture.

    Attributes:
        name: its name; for a tensor of a layer without the layer's prefix, which `Architecture.tensors` adds.
        shape: sizes of its axes, the fastest first.
        storage: types it may be stored in: "any" that matrices can be multiplied in, "float" for F32, F16 and BF16
            (convolution kernels), "f32" for biases, norms, scales and the rows that choose experts.
    """

    name: str
    shape: tuple[int, ...]
    storage: Storage


def matrix(name: str, *shape: int) -> TensorSpec:
    """Describe a matrix of a product, which quantisers store in any type."""
    return TensorSpec(name, shape, "any")


def experts(name: str, columns: int, rows: int, count: int) -> TensorSpec:
    """Describe the matrices of all experts of a layer, in one tensor."""
    return TensorSpec(name, (columns, rows, count), "any")


def vector(name: str, length: int) -> TensorSpec:
    """Describe a norm, a bias or a scale, which llama.cpp requires in F32."""
    return TensorSpec(name, (length,), "f32")


Part = tuple[tuple[TensorSpec, ...], ...]
"""The ways in which files hold one part of a model: that of published files first, an empty one if some lack it."""


def always(*tensors: TensorSpec) -> Part:
    """Return a part that every file holds in the same way."""
    return (tensors,)


def usual(*tensors: TensorSpec) -> Part:
    """Return a part that published files have and others may lack, all its tensors together."""
    return (tensors, ())


def unusual(*tensors: TensorSpec) -> Part:
    """Return a part that published files lack and others may have."""
    return ((), tensors)


S = TypeVar("S", TextShape, MmprojShape)


@dataclass(frozen=True)
class Architecture(Generic[S]):
    """The tensors of an architecture's files, in the order in which converters write them.

    Attributes:
        name: `general.architecture`.
        title: its name in error messages.
        block: prefix of the names of a layer's tensors, before the layer's number.
        before: parts before the layers, for a model of given sizes.
        layer: parts of each layer.
        after: parts after the layers.
    """

    name: str
    title: str
    block: str
    before: Callable[[S], Sequence[Part]]
    layer: Callable[[S], Sequence[Part]]
    after: Callable[[S], Sequence[Part]]

    def tensors(self, shape: S, names: Collection[str] | None = None) -> Iterator[TensorSpec]:
        """Return every tensor that a file must have.

        Args:
            shape: sizes of the model.
            names: tensors of the file, which decide between the alternatives of a part; the first layer decides for
                all. None for a published file.
        """
        for part in self.before(shape):
            yield from _chosen(part, "", names)
        first = f"{self.block}0."
        layer = [spec for part in self.layer(shape) for spec in _chosen(part, first, names)]
        for number in range(shape.n_layers):
            for spec in layer:
                yield TensorSpec(f"{self.block}{number}.{spec.name}", spec.shape, spec.storage)
        for part in self.after(shape):
            yield from _chosen(part, "", names)


def _chosen(part: Part, prefix: str, names: Collection[str] | None) -> tuple[TensorSpec, ...]:
    """Return the alternative that shares the most tensors with a file; if several do, the one that lacks the fewest."""
    if names is None or len(part) == 1:
        return part[0]

    def likeness(way: tuple[TensorSpec, ...]) -> tuple[int, int]:
        present = sum(prefix + spec.name in names for spec in way)
        return present, present - len(way)

    return max(part, key=likeness)


KeyKind = Literal["UINT16", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING", "[INT32]", "[FLOAT32]", "[STRING]"]


@dataclass(frozen=True)
class Key:
    """One key of a header, as llama.cpp reads it.

    Attributes:
        kind: the type it must be written in, since llama.cpp converts nothing; "[INT32]" is an array of INT32.
        between: lowest and highest allowed number; None if it is not checked.
        default: number that stands for a missing key; None if the key is required, provided `between` is given.
        only: allowed values of a key that is present; empty for any.
        refusal: error message for another value, with {value} in its place.
    """

    kind: KeyKind
    between: tuple[float, float] | None = None
    default: float | None = None
    only: tuple[object, ...] = ()
    refusal: str = ""


def fixed(value: int) -> Key:
    """Describe a key that may be missing, but must have this whole number if present."""
    return Key("UINT32", between=(value, value), default=value)


@dataclass(frozen=True)
class EncoderRelease:
    """A published vision encoder, identified by its layers and width; shapes of tensors do not determine its heads.

    Attributes:
        name: its published name.
        n_layers, n_embd, n_head, norm: as those of `VisionShape`.
    """

    name: str
    n_layers: int
    n_embd: int
    n_head: int
    norm: Norm
