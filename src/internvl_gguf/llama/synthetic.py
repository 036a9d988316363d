"""Generate small models for checks and measurements: a vocabulary without weights, and an InternViT of one block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants

from internvl_gguf.gguf.arch.base import MmprojShape
from internvl_gguf.gguf.arch.internvit import INTERNVIT
from internvl_gguf.gguf.validation.mmproj import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_vocabulary(path: Path, width: int) -> None:
    """Write a text model without weights: a vocabulary with the tokens that mtmd looks for, `width` wide."""
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
    shape: MmprojShape,
    weights: Mapping[str, NDArray[np.float32]],
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> None:
    """Write an InternViT of one block with the given weights.

    Tensors without given weights are ones (norms) or zeros, so that they add nothing.

    Args:
        path: the file to write.
        shape: sizes of the encoder.
        weights: float32 by tensor name, rows first.
        kind: element type of the block's and the projector's matrices.
    """
    writer = GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "internvl")
    for key, value in (
        ("image_size", shape.image_size),
        ("patch_size", shape.patch_size),
        ("embedding_length", shape.n_embd),
        ("feed_forward_length", shape.n_ff),
        ("projection_dim", shape.projection_dim),
        ("block_count", shape.n_layers),
        ("attention.head_count", shape.n_head),
        ("projector.scale_factor", shape.scale_factor),
    ):
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", list(IMAGENET_MEAN))
    writer.add_array("clip.vision.image_std", list(IMAGENET_STD))
    writer.add_bool("clip.use_gelu", True)
    for name, sizes in tensor_shapes(shape).items():
        is_norm = name.endswith(("ln1.weight", "ln2.weight", "mlp.0.weight"))
        data = weights.get(name, np.full(sizes, float(is_norm), dtype=np.float32))
        stored = stored_kind(name, sizes, kind)
        writer.add_tensor(name, quants.quantize(data, stored), raw_dtype=stored)
    _write(writer)


def stored_kind(name: str, sizes: tuple[int, ...], kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the element type of a tensor in an mmproj of one matrix type, as llama.cpp's converter chooses it."""
    is_matrix = len(sizes) == 2 and "embd" not in name
    is_patches = name == "v.patch_embd.weight" and kind is GGMLQuantizationType.F16
    return kind if is_matrix or is_patches else GGMLQuantizationType.F32


def tensor_shapes(shape: MmprojShape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of an encoder, rows first."""
    published = [spec.name for spec in INTERNVIT.tensors(shape)]
    specs = INTERNVIT.tensors(shape, [name for name in published if ".ls" not in name])
    return {spec.name: spec.shape[::-1] for spec in specs}


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
