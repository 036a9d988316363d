"""The vision half: an InternViT with pixel unshuffle and projector.

What llama.cpp's loader and graph (`tools/mtmd/clip.cpp`, `models/internvl.cpp` at the revision in llama-cpp-python
0.3.36) assert, dereference or take in silence is checked here before it sees the file. The loader takes most tensors as
optional and ignores the ones it does not know, so that a renamed bias is a wrong answer and no error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gguf import GGMLQuantizationType, GGUFValueType

from internvl_gguf.gguf.validation.checks import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT32,
    MATRIX_TYPES,
    STRING,
    UINT32,
    VECTOR_TYPES,
    Identity,
    KeyType,
    bounded_integer,
    bounded_number,
    check_all_known,
    check_key_types,
    check_tensor,
    read_identity,
    refuse,
)

if TYPE_CHECKING:
    from internvl_gguf.gguf.header import GGUFHeader

PROJECTOR: Final = "internvl"
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

_OTHER_MMPROJ_HINT: Final = "Use the mmproj that comes with the InternVL3 model."
_MAX_LAYERS: Final = 128  # clip.cpp's graph has room for 8,192 nodes, a layer takes about 33
_MAX_WIDTH: Final = 2**20
_MAX_IMAGE: Final = 4096
_MAX_PATCHES_PER_SIDE: Final = 128
_MAX_TILES: Final = 1024
_KERNEL_TYPES: Final = frozenset(  # what ggml_conv_2d takes
    {GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16}
)
_RMS_SHAPE: Final = (45, 3200)  # llama.cpp takes this depth and width, and no other, for InternViT-6B with RMSNorm
_HEADS_OF: Final = {(24, 1024): 16, (45, 3200): 25}  # InternViT-300M and -6B; shapes do not tell the heads

# Every key the loader reads for a vision encoder, in the type it asserts.
_KEY_TYPES: Final[dict[str, KeyType]] = {
    "general.architecture": STRING,
    "general.name": STRING,
    "general.description": STRING,
    "general.file_type": UINT32,
    "clip.has_vision_encoder": BOOL,
    "clip.has_audio_encoder": BOOL,
    "clip.has_gen_audio_encoder": BOOL,
    "clip.projector_type": STRING,
    "clip.vision.projector_type": STRING,
    "clip.use_gelu": BOOL,
    "clip.use_silu": BOOL,
    "clip.minicpmv_version": INT32,
    "clip.minicpmv_query_num": UINT32,
    "clip.vision.embedding_length": UINT32,
    "clip.vision.feed_forward_length": UINT32,
    "clip.vision.block_count": UINT32,
    "clip.vision.projection_dim": UINT32,
    "clip.vision.attention.head_count": UINT32,
    "clip.vision.attention.head_count_kv": UINT32,
    "clip.vision.attention.head_dim": UINT32,
    "clip.vision.attention.layer_norm_epsilon": FLOAT32,
    "clip.vision.feature_layer": (ARRAY, INT32),
    "clip.vision.image_size": UINT32,
    "clip.vision.patch_size": UINT32,
    "clip.vision.image_mean": (ARRAY, FLOAT32),
    "clip.vision.image_std": (ARRAY, FLOAT32),
    "clip.vision.image_grid_pinpoints": (ARRAY, INT32),
    "clip.vision.mm_patch_merge_type": STRING,
    "clip.vision.preproc_min_tiles": UINT32,
    "clip.vision.preproc_max_tiles": UINT32,
    "clip.vision.projector.scale_factor": UINT32,
    "split.count": GGUFValueType.UINT16,
}

# Tensors that clip.cpp's shared code would use although InternViT has none of them.
_FOREIGN: Final = re.compile(r"v\.(pre_ln|post_ln|norm_embd|deepstack)\..*|v\.patch_embd\.weight\.1")


@dataclass(frozen=True)
class MmprojFacts:
    """What the header of an mmproj says, checked.

    Attributes:
        label: what error messages call the file.
        image_size: side of a tile in pixels.
        patch_size: side of a patch in pixels.
        n_layers: layers of the vision transformer.
        width: its width, in values a patch.
        n_head: its heads.
        n_ff: inner width of its feed-forward layers.
        eps: epsilon of its norms.
        scale_factor: side of the square of patches that becomes one visual token.
        projection_width: width of the embeddings, which is that of the text model.
        norm: "layer" for LayerNorm (InternViT-300M and others), "rms" for RMSNorm (InternViT-6B).
        qk_norm: whether queries and keys are normalised (InternViT-6B).
        projector: always "internvl".
        file_type: `general.file_type`, llama.cpp's number of the storage type; None where the file does not say.
        identity: names in the metadata.
        weight_bytes: bytes of all tensors.
    """

    label: str
    image_size: int
    patch_size: int
    n_layers: int
    width: int
    n_head: int
    n_ff: int
    eps: float
    scale_factor: int
    projection_width: int
    norm: Literal["layer", "rms"]
    qk_norm: bool
    projector: str
    file_type: int | None
    identity: Identity
    weight_bytes: int

    @property
    def name(self) -> str:
        """`general.name`; empty where the file has none."""
        return self.identity.name

    @property
    def tokens_per_tile(self) -> int:
        """Visual tokens of one tile: 256 for 448-pixel tiles of 14-pixel patches merged two by two."""
        return (self.image_size // self.patch_size // self.scale_factor) ** 2


def validate_mmproj(header: GGUFHeader) -> MmprojFacts:
    """Check that a header is that of an InternVL mmproj which llama.cpp loads and computes rightly.

    Raises:
        ModelFileError: it is damaged, or another kind of model.
    """
    _check_kind(header)
    check_key_types(header, _KEY_TYPES)
    n_layers = bounded_integer(header, "clip.vision.block_count", 1, _MAX_LAYERS)
    width = bounded_integer(header, "clip.vision.embedding_length", 1, _MAX_WIDTH)
    n_ff = bounded_integer(header, "clip.vision.feed_forward_length", 1, _MAX_WIDTH)
    bounded_integer(header, "clip.vision.projection_dim", 0, _MAX_WIDTH)
    image_size = bounded_integer(header, "clip.vision.image_size", 1, _MAX_IMAGE)
    patch_size = bounded_integer(header, "clip.vision.patch_size", 1, image_size)
    scale_factor = bounded_integer(header, "clip.vision.projector.scale_factor", 1, _MAX_PATCHES_PER_SIDE, default=1)
    _check_grid(header, image_size, patch_size, scale_factor)
    _check_preprocessing(header)
    norm: Literal["layer", "rms"] = "rms" if (n_layers, width) == _RMS_SHAPE else "layer"
    qk_norm = "v.blk.0.attn_q_norm.weight" in header.tensors
    _check_layers(header, n_layers, width, n_ff, norm)
    projection_width = _check_ends(header, width, patch_size, (image_size // patch_size) ** 2, scale_factor)
    return MmprojFacts(
        label=header.label,
        image_size=image_size,
        patch_size=patch_size,
        n_layers=n_layers,
        width=width,
        n_head=_check_heads(header, n_layers, width),
        n_ff=n_ff,
        eps=bounded_number(header, "clip.vision.attention.layer_norm_epsilon", 1e-9, 1e-3),
        scale_factor=scale_factor,
        projection_width=projection_width,
        norm=norm,
        qk_norm=qk_norm,
        projector=PROJECTOR,
        file_type=header.integer("general.file_type") if "general.file_type" in header else None,
        identity=read_identity(header),
        weight_bytes=header.weight_bytes,
    )


def _check_kind(header: GGUFHeader) -> None:
    architecture = header.text("general.architecture")
    if architecture != "clip":
        raise refuse(
            header,
            f'it is a text model of architecture "{architecture}", no mmproj',
            "Name it as the model, and pass the file with mmproj in its name as --mmproj.",
        )
    projector = header.text("clip.projector_type", "") or header.text("clip.vision.projector_type", "")
    if projector != PROJECTOR:
        raise refuse(header, f'it is the mmproj of another model: its projector is "{projector}"', _OTHER_MMPROJ_HINT)
    if not header.boolean("clip.has_vision_encoder", False):
        raise refuse(header, "it has no vision encoder", _OTHER_MMPROJ_HINT)
    if header.boolean("clip.has_audio_encoder", False) or header.boolean("clip.has_gen_audio_encoder", False):
        raise refuse(header, "it has an audio encoder, which no InternVL has", _OTHER_MMPROJ_HINT)


def _check_heads(header: GGUFHeader, n_layers: int, width: int) -> int:
    n_head = bounded_integer(header, "clip.vision.attention.head_count", 1, width)
    if width % n_head:
        raise refuse(header, f"{n_head} heads do not divide a width of {width}")
    if n_head != _HEADS_OF.get((n_layers, width), n_head):
        raise refuse(header, f"an InternViT of {n_layers} layers {width} wide does not have {n_head} heads")
    for key, expected in (("head_count_kv", n_head), ("head_dim", width // n_head)):
        bounded_integer(header, f"clip.vision.attention.{key}", expected, expected, default=expected)
    return n_head


def _check_grid(header: GGUFHeader, image_size: int, patch_size: int, scale_factor: int) -> None:
    per_side = image_size // patch_size
    if image_size % patch_size or per_side > _MAX_PATCHES_PER_SIDE or per_side % scale_factor:
        raise refuse(
            header,
            f"tiles of {image_size} pixels do not fall into patches of {patch_size} merged {scale_factor} by"
            f" {scale_factor}",
        )


def _check_preprocessing(header: GGUFHeader) -> None:
    """Activation, pixel statistics and tile limits: InternVL has the same everywhere."""
    if header.boolean("clip.use_gelu", False) == header.boolean("clip.use_silu", False):
        raise refuse(header, "it does not say which activation its feed-forward layers have, gelu or silu")
    for key, expected in (("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)):
        found = header.array(f"clip.vision.{key}", FLOAT32).numbers()
        if len(found) != 3 or not all(abs(a - b) < 0.005 for a, b in zip(found, expected, strict=True)):
            shown = ", ".join(f"{value:g}" for value in found[:4])
            raise refuse(header, f"its {key} is [{shown}], not ImageNet's, which every InternVL is trained with")
    lowest = bounded_integer(header, "clip.vision.preproc_min_tiles", 1, _MAX_TILES, default=1)
    # With fewer, llama.cpp finds no grid at all, since it wants `lowest` tiles along both sides, and aborts.
    bounded_integer(header, "clip.vision.preproc_max_tiles", lowest**2, _MAX_TILES, default=12)
    for key in ("feature_layer", "image_grid_pinpoints"):
        if f"clip.vision.{key}" in header and header.array(f"clip.vision.{key}", INT32).count:
            raise refuse(header, f"it has {key}, which no InternVL has", _OTHER_MMPROJ_HINT)


def _check_layers(header: GGUFHeader, n_layers: int, width: int, n_ff: int, norm: Literal["layer", "rms"]) -> None:
    """Every tensor of the transformer's layers, and none of its kind besides: all layers are alike."""
    tensors = header.tensors
    first = {name.removeprefix("v.blk.0.") for name in tensors if name.startswith("v.blk.0.")}
    vectors = {f"{part}.bias": width for part in ("attn_out", "ffn_down")} | {"ffn_up.bias": n_ff}
    vectors |= dict.fromkeys(("ln1.weight", "ln2.weight"), width)
    if norm == "layer":
        vectors |= dict.fromkeys(("ln1.bias", "ln2.bias"), width)
    for group in (("ls1.weight", "ls2.weight"), _norm_names(norm), *_bias_groups(first)):
        if first.intersection(group):
            vectors |= dict.fromkeys(group, width)
    matrices = {"attn_out.weight": (width, width), "ffn_up.weight": (width, n_ff), "ffn_down.weight": (n_ff, width)}
    if "attn_qkv.weight" in first and norm == "layer":
        matrices["attn_qkv.weight"] = (width, 3 * width)
        vectors |= {"attn_qkv.bias": 3 * width} if "attn_qkv.bias" in first else {}
    else:
        matrices |= {f"attn_{part}.weight": (width, width) for part in "qkv"}
    expected: set[str] = set()
    for layer in range(n_layers):
        block = f"v.blk.{layer}."
        for part, shape in matrices.items():
            check_tensor(header, tensors, block + part, shape, MATRIX_TYPES)
        for part, length in vectors.items():
            check_tensor(header, tensors, block + part, (length,), VECTOR_TYPES)
        expected.update(block + part for part in (*matrices, *vectors))
    used = (name for name in tensors if name.startswith("v.blk.") or _FOREIGN.fullmatch(name))
    check_all_known(header, used, expected, "InternViT")


def _norm_names(norm: Literal["layer", "rms"]) -> tuple[str, ...]:
    """Norms of queries and keys: InternViT-6B has them; elsewhere llama.cpp would take the wrong kind of norm."""
    return ("attn_q_norm.weight", "attn_k_norm.weight") if norm == "rms" else ()


def _bias_groups(first: set[str]) -> tuple[tuple[str, ...], ...]:
    return () if "attn_qkv.weight" in first else (("attn_q.bias", "attn_k.bias", "attn_v.bias"),)


def _check_ends(header: GGUFHeader, width: int, patch_size: int, n_patches: int, scale_factor: int) -> int:
    """The tensors before and after the layers; the width of the embeddings they give."""
    tensors = header.tensors
    merged = width * scale_factor**2
    check_tensor(header, tensors, "v.class_embd", (width,), VECTOR_TYPES)
    check_tensor(header, tensors, "v.position_embd.weight", (width, n_patches + 1), VECTOR_TYPES)
    check_tensor(header, tensors, "v.patch_embd.weight", (patch_size, patch_size, 3, width), _KERNEL_TYPES)
    check_tensor(header, tensors, "v.patch_embd.bias", (width,), VECTOR_TYPES)
    last = tensors.get("mm.model.mlp.3.weight")
    if last is None:
        raise refuse(header, "the tensor mm.model.mlp.3.weight is missing")
    out = last.shape[1] if len(last.shape) > 1 else 1
    hidden = last.shape[0]
    check_tensor(header, tensors, "mm.model.mlp.0.weight", (merged,), VECTOR_TYPES)
    check_tensor(header, tensors, "mm.model.mlp.0.bias", (merged,), VECTOR_TYPES)
    check_tensor(header, tensors, "mm.model.mlp.1.weight", (merged, hidden), MATRIX_TYPES)
    check_tensor(header, tensors, "mm.model.mlp.1.bias", (hidden,), VECTOR_TYPES)
    check_tensor(header, tensors, "mm.model.mlp.3.weight", (hidden, out), MATRIX_TYPES)
    check_tensor(header, tensors, "mm.model.mlp.3.bias", (out,), VECTOR_TYPES)
    return out
