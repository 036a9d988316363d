"""Models made up to ask the library something: a vocabulary without weights, and an InternViT of one block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a vision encoder of one block.

    Attributes:
        tile, patch: sides in pixels.
        width, heads, feed_forward: of the block.
        projection: width of a visual token.
    """

    tile: int
    patch: int
    width: int
    heads: int
    feed_forward: int
    projection: int

    @property
    def merged(self) -> int:
        """Width of four patches joined by the pixel unshuffle."""
        return 4 * self.width

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of a tile."""
        return (self.tile // self.patch // 2) ** 2


def write_vocabulary(path: Path, width: int) -> None:
    """A vocabulary with the tokens mtmd looks for, of a text model `width` wide, and no weights."""
    tokens = [chr(code) for code in range(ord("!"), ord("!") + 90)] + ["<img>", "</img>", "<|im_end|>"]
    writer = GGUFWriter(path, "qwen2")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * 90 + [TokenType.CONTROL] * 3)
    writer.add_token_merges(['! "'])
    writer.add_eos_token_id(92)
    _write(writer)


def write_encoder(
    path: Path,
    shape: EncoderShape,
    weights: Mapping[str, NDArray[np.float32]],
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> None:
    """An InternViT of one block: `weights` where they are given, else norms of one and zeros, so that it adds nothing.

    Args:
        path: written to.
        shape: its sizes.
        weights: float32 by tensor name, rows first.
        kind: element type of the block's and the projector's matrices.
    """
    writer = GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "internvl")
    for key, value in (
        ("image_size", shape.tile),
        ("patch_size", shape.patch),
        ("embedding_length", shape.width),
        ("feed_forward_length", shape.feed_forward),
        ("projection_dim", shape.projection),
        ("block_count", 1),
        ("attention.head_count", shape.heads),
        ("projector.scale_factor", 2),
    ):
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)
    for name, sizes in tensor_shapes(shape).items():
        is_norm = name.endswith(("ln1.weight", "ln2.weight", "mlp.0.weight"))
        data = weights.get(name, np.full(sizes, float(is_norm), dtype=np.float32))
        stored = stored_kind(name, sizes, kind)
        writer.add_tensor(name, quants.quantize(data, stored), raw_dtype=stored)
    _write(writer)


def stored_kind(name: str, sizes: tuple[int, ...], kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Element type of a tensor in an mmproj whose matrices are of one type, as llama.cpp's converter chooses it."""
    is_matrix = len(sizes) == 2 and "embd" not in name
    is_patches = name == "v.patch_embd.weight" and kind is GGMLQuantizationType.F16
    return kind if is_matrix or is_patches else GGMLQuantizationType.F32


def tensor_shapes(shape: EncoderShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of an encoder with its shape, rows first."""
    width, wide = shape.width, shape.feed_forward
    sizes: dict[str, tuple[int, ...]] = {
        "v.position_embd.weight": (1 + (shape.tile // shape.patch) ** 2, width),
        "v.class_embd": (width,),
        "v.patch_embd.weight": (width, 3, shape.patch, shape.patch),
        "v.patch_embd.bias": (width,),
        "mm.model.mlp.0.weight": (shape.merged,),
        "mm.model.mlp.0.bias": (shape.merged,),
        "mm.model.mlp.1.weight": (shape.projection, shape.merged),
        "mm.model.mlp.1.bias": (shape.projection,),
        "mm.model.mlp.3.weight": (shape.projection, shape.projection),
        "mm.model.mlp.3.bias": (shape.projection,),
    }
    for norm in ("ln1", "ln2"):
        sizes[f"v.blk.0.{norm}.weight"] = sizes[f"v.blk.0.{norm}.bias"] = (width,)
    for linear in ("attn_q", "attn_k", "attn_v", "attn_out"):
        sizes[f"v.blk.0.{linear}.weight"], sizes[f"v.blk.0.{linear}.bias"] = (width, width), (width,)
    sizes["v.blk.0.ffn_up.weight"], sizes["v.blk.0.ffn_up.bias"] = (wide, width), (wide,)
    sizes["v.blk.0.ffn_down.weight"], sizes["v.blk.0.ffn_down.bias"] = (width, wide), (width,)
    return sizes


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
