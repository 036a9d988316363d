"""Build the graph of InternVL's vision encoder that llama.cpp reserves memory for.

Follows `clip_graph_internvl::build` in `tools/mtmd/models/internvl.cpp` with the builders of `tools/mtmd/clip.cpp` it
calls (`build_inp`, `build_vit`, `build_attn`, `build_ffn`, `build_norm`) and `ggml_conv_2d`, with flash attention.
"""

from __future__ import annotations

from internvl_gguf.gguf.arch.base import Norm
from internvl_gguf.gguf.model_weights import VisionWeights
from internvl_gguf.memory.ggml_graph import (
    Graph,
    Tensor,
    cast,
    concat,
    cont,
    elementwise,
    external,
    flash_attention,
    mul_mat,
    new_input,
    permute,
    reshape,
    view,
)


def vision_graph(shape: VisionWeights, tiles: int, n_layers: int) -> Graph:
    """Build the graph that encodes `tiles` tiles at once.

    Args:
        shape: shape of the encoder.
        tiles: tiles of one batch.
        n_layers: number of layers to build; layers after the third are placed like the ones before.
    """
    return _Builder(shape, tiles).build(n_layers)


class _Builder:
    """Builds the graph; everything lies on the encoder's own device, index 0."""

    def __init__(self, shape: VisionWeights, tiles: int) -> None:
        self._shape = shape
        self._tiles = tiles
        self._graph = Graph()

    def build(self, n_layers: int) -> Graph:
        shape, tiles = self._shape, self._tiles
        patches = shape.patches_per_side**2
        hidden = concat(self._patches(), Tensor("repeat", "f32", (shape.n_embd, 1, tiles, 1), self._class_row()), 1)
        hidden = elementwise("add", hidden, *self._weights("v.position_embd.weight"))
        hidden = reshape(hidden, shape.n_embd, (patches + 1) * tiles)
        for layer in range(n_layers):
            hidden = self._layer(hidden, f"v.blk.{layer}")
        hidden = reshape(hidden, shape.n_embd, patches + 1, tiles)
        row, tile = hidden.strides[1], hidden.strides[2]
        hidden = cont(view(hidden, (shape.n_embd, patches, tiles), (4, row, tile, tile * tiles)))
        self._graph.expand(self._projected(self._unshuffled(hidden)))
        return self._graph

    def _weights(self, name: str) -> tuple[Tensor, ...]:
        """Return the tensor of that name in a tuple, empty if the file has none."""
        weight = self._shape.weight(name)
        return () if weight is None else (external(weight.kind, 0, weight.n_bytes, *weight.shape),)

    def _class_row(self) -> tuple[Tensor, ...]:
        return self._weights("v.class_embd")

    def _patches(self) -> Tensor:
        """Embed the patches (`build_inp`, `ggml_conv_2d`): pixels unrolled to rows, times the kernel, transposed."""
        shape, tiles, side = self._shape, self._tiles, self._shape.patches_per_side
        pixels = new_input("f32", shape.image_size, shape.image_size, 3, tiles)
        (kernel,) = self._weights("v.patch_embd.weight")
        kind = "f32" if kernel.kind == "bf16" else "f16"
        values = 3 * shape.patch_size**2
        rows = Tensor("im2col", kind, (values, side, side, tiles), (kernel, pixels))
        flat_kernel = Tensor("reshape", kernel.kind, (values, shape.n_embd, 1, 1), (kernel,), view_of=kernel)
        product = mul_mat(reshape(rows, values, side * side * tiles), flat_kernel)
        product = cont(permute(reshape(product, side, side, tiles, shape.n_embd), 0, 1, 3, 2))
        product = reshape(product, side * side, shape.n_embd, tiles)
        return self._biased(cont(permute(product, 1, 0, 2, 3)), "v.patch_embd.bias")

    def _biased(self, tensor: Tensor, name: str, op: str = "add") -> Tensor:
        """Add a bias to a tensor, or scale it by a vector, if the file has that."""
        vector = self._weights(name)
        return elementwise(op, tensor, *vector) if vector else tensor

    def _norm(self, tensor: Tensor, name: str, kind: Norm) -> Tensor:
        normed = elementwise("rms_norm" if kind == "rmsnorm" else "norm", tensor)
        return self._biased(self._biased(normed, f"{name}.weight", "mul"), f"{name}.bias")

    def _linear(self, tensor: Tensor, name: str) -> Tensor:
        (matrix,) = self._weights(f"{name}.weight")
        return self._biased(mul_mat(matrix, tensor), f"{name}.bias")

    def _layer(self, residual: Tensor, block: str) -> Tensor:
        shape = self._shape
        attended = self._attention(self._norm(residual, f"{block}.ln1", shape.norm), block)
        hidden = elementwise("add", self._biased(attended, f"{block}.ls1.weight", "mul"), residual)
        inner = self._linear(self._norm(hidden, f"{block}.ln2", shape.norm), f"{block}.ffn_up")
        outer = self._linear(elementwise("gelu", inner), f"{block}.ffn_down")
        return elementwise("add", hidden, self._biased(outer, f"{block}.ls2.weight", "mul"))

    def _attention(self, hidden: Tensor, block: str) -> Tensor:
        shape = self._shape
        query, key, value = self._query_key_value(hidden, block)
        for each in (query, key, value):
            self._graph.expand(each)
        query = permute(query, 0, 2, 1, 3)
        key = cast(permute(key, 0, 2, 1, 3), "f16")
        value = cast(permute(value, 0, 2, 1, 3), "f16")
        attended = reshape(flash_attention(query, key, value), shape.n_embd, hidden.shape[1])
        return self._linear(attended, f"{block}.attn_out")

    def _query_key_value(self, hidden: Tensor, block: str) -> tuple[Tensor, Tensor, Tensor]:
        shape, tiles = self._shape, self._tiles
        head, positions = shape.head_dim, shape.patches_per_side**2 + 1
        sizes = (head, shape.n_head, positions, tiles)
        if shape.weight(f"{block}.attn_qkv.weight") is not None:
            joined = self._linear(hidden, f"{block}.attn_qkv")
            row = joined.strides[1]
            query, key, value = (view(joined, sizes, (4, 4 * head, row, row * positions)) for _ in "qkv")
            return query, key, value
        parts = [self._linear(hidden, f"{block}.attn_{part}") for part in "qkv"]
        normed = [
            self._norm(part, f"{block}.attn_{name}_norm", shape.norm)
            if shape.weight(f"{block}.attn_{name}_norm.weight") is not None
            else part
            for name, part in zip("qkv", parts, strict=True)
        ]
        query, key, value = (reshape(part, *sizes) for part in normed)
        return query, key, value

    def _unshuffled(self, hidden: Tensor) -> Tensor:
        """Apply pixel unshuffle: scale_factor by scale_factor patches become one visual token."""
        shape, tiles, side = self._shape, self._tiles, self._shape.patches_per_side
        factor = shape.scale_factor
        width, short = shape.n_embd * factor, side // factor
        hidden = permute(reshape(hidden, width, short, side, tiles), 0, 2, 1, 3)
        hidden = cont(hidden, width * factor, short, short, tiles)
        return cont(permute(hidden, 0, 2, 1, 3), width * factor, short * short, tiles)

    def _projected(self, hidden: Tensor) -> Tensor:
        hidden = self._norm(hidden, "mm.model.mlp.0", "layernorm")
        return self._linear(elementwise("gelu", self._linear(hidden, "mm.model.mlp.1")), "mm.model.mlp.3")
