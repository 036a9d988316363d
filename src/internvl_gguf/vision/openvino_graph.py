"""InternViT and InternVL's projector as an OpenVINO model, built from the tensors of an mmproj.

The formulas are those of `modeling_intern_vit.py` and `modeling_internvl_chat.py` of the published models: LayerNorm in
the 300M and RMSNorm with normalised queries and keys in the 6B, GELU by the error function, layer scales, pixel
unshuffle, and a projector of LayerNorm and two matrices. The class token comes first, as its position row does, so the
positions are right by construction. The file is mapped: F32 and 16-bit weights are not copied before OpenVINO compiles
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, quants

from internvl_gguf.vision.openvino_library import ops, ov

if TYPE_CHECKING:
    from internvl_gguf.gguf.header import GGUFHeader
    from internvl_gguf.gguf.validation import MmprojFacts

_FLOAT32: Final = GGUFValueType.FLOAT32
_PROJECTOR_EPSILON: Final = 1e-5  # of torch.nn.LayerNorm, which the projector begins with
_MAPPED: Final[dict[GGMLQuantizationType, tuple[Any, Any]]] = {
    GGMLQuantizationType.F32: (np.float32, ov.Type.f32),
    GGMLQuantizationType.F16: (np.float16, ov.Type.f16),
    GGMLQuantizationType.BF16: (np.uint16, ov.Type.bf16),
}
"""Storage types that OpenVINO reads as they lie in the file: numpy's type of the same size, and OpenVINO's."""

Node = Any
"""An output of an OpenVINO operation."""


@dataclass(frozen=True)
class EncoderGraph:
    """An encoder that can be compiled: uint8 [tiles, side, side, 3] to float32 [tiles, tokens_per_tile, n_embd].

    Attributes:
        model: the graph.
        memory: what its constants lie in. OpenVINO takes no share in it: keep it as long as anything made of `model`.
    """

    model: ov.Model
    memory: object


def encoder_graph(path: Path, header: GGUFHeader, facts: MmprojFacts, *, tiles: int) -> EncoderGraph:
    """Build the encoder of an mmproj.

    Args:
        path: the mmproj.
        header: its header.
        facts: what its validation found.
        tiles: tiles encoded at once.
    """
    weights = _Weights(path, header)
    return EncoderGraph(_Builder(weights, facts, header, tiles).build(), weights)


class _Weights:
    """The tensors of a file as OpenVINO constants."""

    def __init__(self, path: Path, header: GGUFHeader) -> None:
        self._data = np.memmap(path, np.uint8, "c")  # copy on write: OpenVINO wants writeable memory and writes none
        self._tensors = header.tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def constant(self, name: str) -> Node:
        """Return a tensor as a float32 constant, its axes in numpy's order."""
        tensor = self._tensors[name]
        shape = list(reversed(tensor.shape))
        stored = self._data[tensor.offset : tensor.offset + tensor.n_bytes]
        if tensor.type not in _MAPPED:
            return ops.constant(quants.dequantize(stored, tensor.type).reshape(shape).astype(np.float32))
        kind, element = _MAPPED[tensor.type]
        constant = ov.op.Constant(ov.Tensor(stored.view(kind).reshape(shape), ov.Shape(shape), element))
        return constant if element == ov.Type.f32 else ops.convert(constant, ov.Type.f32)


@dataclass(frozen=True)
class _Builder:
    weights: _Weights
    facts: MmprojFacts
    header: GGUFHeader
    tiles: int

    def build(self) -> ov.Model:
        facts = self.facts
        pixels = ops.parameter([self.tiles, facts.image_size, facts.image_size, 3], ov.Type.u8, "pixels")
        hidden = self._positioned(self._patches(pixels))
        for layer in range(facts.n_layers):
            hidden = self._layer(hidden, f"v.blk.{layer}")
        return ov.Model([self._projected(self._unshuffled(hidden))], [pixels], "InternViT")

    def _patches(self, pixels: Node) -> Node:
        """Return embedded patches [tiles, patches, width] of normalised pixels."""
        facts = self.facts
        mean, std = (
            np.array(self.header.array(f"clip.vision.{key}", _FLOAT32).numbers(), np.float32) * 255
            for key in ("image_mean", "image_std")
        )
        normalised = ops.divide(ops.subtract(ops.convert(pixels, ov.Type.f32), ops.constant(mean)), ops.constant(std))
        kernel, step = self.weights.constant("v.patch_embd.weight"), [facts.patch_size] * 2
        patches = ops.convolution(_permuted(normalised, 0, 3, 1, 2), kernel, step, [0, 0], [0, 0], [1, 1])
        rows = _permuted(_shaped(patches, self.tiles, facts.n_embd, -1), 0, 2, 1)
        return ops.add(rows, self.weights.constant("v.patch_embd.bias"))

    def _positioned(self, patches: Node) -> Node:
        """Return the class token and the patches, each with its own position row: [tiles, 1 + patches, width]."""
        token = _shaped(self.weights.constant("v.class_embd"), 1, 1, self.facts.n_embd)
        tokens = ops.broadcast(token, ops.constant([self.tiles, 1, self.facts.n_embd]))
        return ops.add(ops.concat([tokens, patches], 1), self.weights.constant("v.position_embd.weight"))

    def _layer(self, hidden: Node, name: str) -> Node:
        attended = self._attention(self._normed(hidden, f"{name}.ln1"), name)
        hidden = ops.add(hidden, self._scaled(attended, f"{name}.ls1"))
        inner = self._activated(self._linear(self._normed(hidden, f"{name}.ln2"), f"{name}.ffn_up"))
        return ops.add(hidden, self._scaled(self._linear(inner, f"{name}.ffn_down"), f"{name}.ls2"))

    def _attention(self, hidden: Node, name: str) -> Node:
        facts = self.facts
        query, key, value = self._projections(hidden, name)
        if facts.qk_norm:
            query, key = (
                self._rms_normed(each, f"{name}.attn_{part}_norm") for each, part in ((query, "q"), (key, "k"))
            )
        heads = [
            _permuted(_shaped(each, self.tiles, -1, facts.n_head, facts.n_embd // facts.n_head), 0, 2, 1, 3)
            for each in (query, key, value)
        ]
        attended = _permuted(ops.scaled_dot_product_attention(*heads), 0, 2, 1, 3)
        return self._linear(_shaped(attended, self.tiles, -1, facts.n_embd), f"{name}.attn_out")

    def _projections(self, hidden: Node, name: str) -> list[Node]:
        """Return queries, keys and values [tiles, 1 + patches, width]; files keep their matrices apart or in one."""
        if f"{name}.attn_qkv.weight" not in self.weights:
            return [self._linear(hidden, f"{name}.attn_{part}") for part in "qkv"]
        together = self._linear(hidden, f"{name}.attn_qkv")
        return list(ops.split(together, ops.constant(-1), 3).outputs())

    def _unshuffled(self, hidden: Node) -> Node:
        """Merge squares of neighbouring patches into one row each, and leave out the class token.

        [tiles, tokens_per_tile, width * scale_factor^2], by `pixel_shuffle` of `modeling_internvl_chat.py`.
        """
        facts, factor = self.facts, self.facts.scale_factor
        side, width = facts.image_size // facts.patch_size, facts.n_embd
        patches = ops.slice(hidden, *(ops.constant([at]) for at in (1, side**2 + 1, 1, 1)))
        pairs = _permuted(_shaped(patches, self.tiles, side, side // factor, factor * width), 0, 2, 1, 3)
        squares = _shaped(pairs, self.tiles, side // factor, side // factor, factor**2 * width)
        return _shaped(_permuted(squares, 0, 2, 1, 3), self.tiles, -1, factor**2 * width)

    def _projected(self, rows: Node) -> Node:
        normed = self._layer_normed(rows, "mm.model.mlp.0", _PROJECTOR_EPSILON)
        return self._linear(ops.gelu(self._linear(normed, "mm.model.mlp.1"), "erf"), "mm.model.mlp.3")

    def _activated(self, hidden: Node) -> Node:
        if self.header.boolean("clip.use_silu", False):
            return ops.swish(hidden)
        return ops.gelu(hidden, "erf")

    def _normed(self, hidden: Node, name: str) -> Node:
        if self.facts.norm == "rmsnorm":
            return self._rms_normed(hidden, name)
        return self._layer_normed(hidden, name, self.facts.eps)

    def _layer_normed(self, hidden: Node, name: str, epsilon: float) -> Node:
        normed = ops.mvn(hidden, ops.constant([-1]), True, epsilon, "inside_sqrt")
        scaled = ops.multiply(normed, self.weights.constant(f"{name}.weight"))
        return ops.add(scaled, self.weights.constant(f"{name}.bias"))

    def _rms_normed(self, hidden: Node, name: str) -> Node:
        squares = ops.reduce_mean(ops.multiply(hidden, hidden), ops.constant([-1]), True)
        root = ops.sqrt(ops.add(squares, ops.constant(np.float32(self.facts.eps))))
        return ops.multiply(ops.divide(hidden, root), self.weights.constant(f"{name}.weight"))

    def _scaled(self, hidden: Node, name: str) -> Node:
        if f"{name}.weight" not in self.weights:
            return hidden
        return ops.multiply(hidden, self.weights.constant(f"{name}.weight"))

    def _linear(self, hidden: Node, name: str) -> Node:
        product = ops.matmul(hidden, self.weights.constant(f"{name}.weight"), False, True)
        return ops.add(product, self.weights.constant(f"{name}.bias")) if f"{name}.bias" in self.weights else product


def _shaped(node: Node, *shape: int) -> Node:
    return ops.reshape(node, ops.constant(list(shape)), False)


def _permuted(node: Node, *axes: int) -> Node:
    return ops.transpose(node, ops.constant(list(axes)))
