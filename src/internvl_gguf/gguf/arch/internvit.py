"""InternViT with pixel unshuffle and projector, the vision half of every InternVL (`clip_graph_internvl` in mtmd)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from internvl_gguf.gguf.arch.base import (
    MAX_WIDTH,
    Architecture,
    EncoderRelease,
    Key,
    MmprojShape,
    Part,
    TensorSpec,
    always,
    fixed,
    matrix,
    usual,
    vector,
)

if TYPE_CHECKING:
    from internvl_gguf.gguf.values import GGUFHeader

PROJECTOR: Final = "internvl"
INTERNVIT_300M: Final = EncoderRelease("InternViT-300M", 24, 1024, 16, "layernorm")
INTERNVIT_6B: Final = EncoderRelease("InternViT-6B", 45, 3200, 25, "rmsnorm")
RELEASES: Final = (INTERNVIT_300M, INTERNVIT_6B)

_PREFIX: Final = "clip.vision"
_LAST: Final = "mm.model.mlp.3.weight"
_MAX_LAYERS: Final = 128  # clip.cpp's graph has room for 8,192 nodes, a layer takes about 33
_MAX_IMAGE: Final = 4096
_MAX_PATCHES_PER_SIDE: Final = 128


def release_of(n_layers: int, n_embd: int) -> EncoderRelease | None:
    """Return the published encoder with this number of layers and this width; None for another."""
    return next((each for each in RELEASES if (each.n_layers, each.n_embd) == (n_layers, n_embd)), None)


def read_mmproj_shape(header: GGUFHeader) -> MmprojShape:
    """Read the sizes from the header of an mmproj.

    llama.cpp uses RMSNorm for the depth and width of InternViT-6B, and LayerNorm for all others.

    Raises:
        ModelFileError: a key or the projector is missing, or outside llama.cpp's limits.
    """
    n_layers = header.bounded_integer(f"{_PREFIX}.block_count", 1, _MAX_LAYERS)
    n_embd = header.bounded_integer(f"{_PREFIX}.embedding_length", 1, MAX_WIDTH)
    n_head = header.bounded_integer(f"{_PREFIX}.attention.head_count", 1, n_embd)
    if n_embd % n_head:
        raise header.error(f"{n_head} heads do not divide a width of {n_embd}")
    image_size = header.bounded_integer(f"{_PREFIX}.image_size", 1, _MAX_IMAGE)
    patch_size = header.bounded_integer(f"{_PREFIX}.patch_size", 1, image_size)
    scale_factor = header.bounded_integer(f"{_PREFIX}.projector.scale_factor", 1, _MAX_PATCHES_PER_SIDE, default=1)
    per_side = image_size // patch_size
    if image_size % patch_size or per_side > _MAX_PATCHES_PER_SIDE or per_side % scale_factor:
        raise header.error(
            f"tiles of {image_size} pixels do not fall into patches of {patch_size} merged {scale_factor} by"
            f" {scale_factor}"
        )
    last = header.tensors.get(_LAST)
    if last is None:
        raise header.error(f"the tensor {_LAST} is missing")
    release = release_of(n_layers, n_embd)
    return MmprojShape(
        n_layers=n_layers,
        n_embd=n_embd,
        n_head=n_head,
        n_ff=header.bounded_integer(f"{_PREFIX}.feed_forward_length", 1, MAX_WIDTH),
        image_size=image_size,
        patch_size=patch_size,
        tokens_per_tile=(per_side // scale_factor) ** 2,
        norm=release.norm if release else "layernorm",
        projection_dim=last.shape[1] if len(last.shape) > 1 else 1,
        projector_hidden=last.shape[0],
    )


SIZE_KEYS: Final = {
    f"{_PREFIX}.{name}": Key("UINT32")
    for name in (
        *("block_count", "embedding_length", "feed_forward_length", "attention.head_count"),
        *("image_size", "patch_size", "projector.scale_factor"),
    )
}
"""Keys that an `MmprojShape` is read from."""

FILE_KEYS: Final = {
    "clip.has_vision_encoder": Key("BOOL"),
    "clip.has_audio_encoder": Key("BOOL"),
    "clip.has_gen_audio_encoder": Key("BOOL"),
    "clip.projector_type": Key("STRING"),
    "clip.vision.projector_type": Key("STRING"),
    "clip.use_gelu": Key("BOOL"),
    "clip.use_silu": Key("BOOL"),
    "clip.minicpmv_version": Key("INT32"),
    "clip.minicpmv_query_num": Key("UINT32"),
    "clip.vision.feature_layer": Key("[INT32]"),
    "clip.vision.image_mean": Key("[FLOAT32]"),
    "clip.vision.image_std": Key("[FLOAT32]"),
    "clip.vision.image_grid_pinpoints": Key("[INT32]"),
    "clip.vision.mm_patch_merge_type": Key("STRING"),
    "clip.vision.preproc_min_tiles": Key("UINT32"),
    "clip.vision.preproc_max_tiles": Key("UINT32"),
}
"""Keys that clip.cpp reads of every vision encoder and that do not depend on its sizes."""


def encoder_keys(shape: MmprojShape) -> dict[str, Key]:
    """Return the keys that must agree with the sizes, or lie within limits."""
    return {
        f"{_PREFIX}.projection_dim": Key("UINT32", between=(0, MAX_WIDTH)),
        f"{_PREFIX}.attention.head_count_kv": fixed(shape.n_head),
        f"{_PREFIX}.attention.head_dim": fixed(shape.head_dim),
        f"{_PREFIX}.attention.layer_norm_epsilon": Key("FLOAT32", between=(1e-9, 1e-3)),
    }


def _before(shape: MmprojShape) -> Sequence[Part]:
    width = shape.n_embd
    kernel = (shape.patch_size, shape.patch_size, 3, width)
    return (
        always(
            vector("v.class_embd", width),
            TensorSpec("v.position_embd.weight", (width, shape.patches_per_side**2 + 1), "f32"),
            TensorSpec("v.patch_embd.weight", kernel, "float"),
            vector("v.patch_embd.bias", width),
        ),
    )


def _layer(shape: MmprojShape) -> Sequence[Part]:
    """Return the parts of a layer. InternViT-6B norms queries and keys and has no biases for them; 300M the reverse."""
    width = shape.n_embd
    norms: tuple[TensorSpec, ...] = (vector("ln1.weight", width), vector("ln2.weight", width))
    qk_norms: tuple[Part, ...] = ()  # with LayerNorm, llama.cpp would use the wrong kind of norm
    if shape.norm == "layernorm":
        norms = tuple(vector(f"{norm}.{part}", width) for norm in ("ln1", "ln2") for part in ("weight", "bias"))
    else:
        qk_norms = (usual(vector("attn_q_norm.weight", width), vector("attn_k_norm.weight", width)),)
    return (
        always(*norms),
        _query_key_value(shape),
        *qk_norms,
        always(
            matrix("attn_out.weight", width, width),
            vector("attn_out.bias", width),
            matrix("ffn_up.weight", width, shape.n_ff),
            vector("ffn_up.bias", shape.n_ff),
            matrix("ffn_down.weight", shape.n_ff, width),
            vector("ffn_down.bias", width),
        ),
        usual(vector("ls1.weight", width), vector("ls2.weight", width)),
    )


def _query_key_value(shape: MmprojShape) -> Part:
    """Return the part for queries, keys and values: three matrices or, with LayerNorm, one; with or without biases."""
    width = shape.n_embd
    split = tuple(matrix(f"attn_{part}.weight", width, width) for part in "qkv")
    biased = tuple(each for weight in split for each in (weight, vector(weight.name.replace("weight", "bias"), width)))
    if shape.norm == "rmsnorm":
        return (split, biased)
    fused = (matrix("attn_qkv.weight", width, 3 * width),)
    return (biased, split, fused, (*fused, vector("attn_qkv.bias", 3 * width)))


def _after(shape: MmprojShape) -> Sequence[Part]:
    return (
        always(
            vector("mm.model.mlp.0.weight", shape.merged_width),
            vector("mm.model.mlp.0.bias", shape.merged_width),
            matrix("mm.model.mlp.1.weight", shape.merged_width, shape.projector_hidden),
            vector("mm.model.mlp.1.bias", shape.projector_hidden),
            matrix(_LAST, shape.projector_hidden, shape.projection_dim),
            vector("mm.model.mlp.3.bias", shape.projection_dim),
        ),
    )


INTERNVIT: Final = Architecture[MmprojShape](
    name="clip", title="InternViT", block="v.blk.", before=_before, layer=_layer, after=_after
)


def tile_operations(shape: MmprojShape) -> int:
    """Count the operations of encoder and projector for one tile (`clip_graph_internvl` in mtmd).

    A multiply-add counts as two. Only matrix products and attention count; the rest is below one percent. The result
    for InternViT-300M and tiles of 448 pixels is about 730e9.
    """
    patches, width, hidden = shape.patches_per_side**2, shape.n_embd, shape.projector_hidden
    rows = patches + 1  # the class token
    layer = 2 * rows * (4 * width**2 + 2 * width * shape.n_ff) + 4 * rows**2 * width
    embedding = 2 * patches * 3 * shape.patch_size**2 * width
    projector = 2 * shape.tokens_per_tile * (shape.merged_width * hidden + hidden * shape.projection_dim)
    return shape.n_layers * layer + embedding + projector
