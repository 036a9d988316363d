"""The tensors that a model of a shape has, for headers to be checked against and listings to be filled in with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from internvl_gguf.gguf.shape import TextShape, VisionShape, Weight

UNKNOWN_KIND: Final = "unknown"  # of matrices, whose type a list like this cannot tell; vectors are F32 in every quant


def _vector(name: str, length: int) -> Weight:
    return Weight(name, "f32", (length,), 4 * length)


def _matrix(name: str, *shape: int) -> Weight:
    return Weight(name, UNKNOWN_KIND, shape, 0)


def text_weights_of(shape: TextShape) -> Iterator[Weight]:
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


def vision_weights_of(shape: VisionShape) -> Iterator[Weight]:
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
