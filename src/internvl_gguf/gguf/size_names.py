"""Names of a model's sizes in models.toml, `internvl list --catalog --json` and `internvl show --json`.

The code uses llama.cpp's names (`gguf.arch.base`); these files and outputs are documented with the published names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from internvl_gguf.gguf.arch.base import TextShape, VisionShape

TEXT_NAMES: Final[Mapping[str, str]] = {
    "architecture": "architecture",
    "layers": "n_layers",
    "width": "n_embd",
    "heads": "n_head",
    "kv_heads": "n_head_kv",
    "ffn": "n_ff",
    "vocab": "n_vocab",
    "context": "n_ctx_train",
    "head_width": "head_dim",
    "experts": "n_expert",
    "experts_used": "n_expert_used",
    "expert_ffn": "n_ff_exp",
}
"""The field of a `TextShape` behind each published name."""

VISION_NAMES: Final[Mapping[str, str]] = {
    "layers": "n_layers",
    "width": "n_embd",
    "heads": "n_head",
    "ffn": "n_ff",
    "tile": "image_size",
    "patch": "patch_size",
    "tokens_per_tile": "tokens_per_tile",
    "norm": "norm",
}
"""The field of a `VisionShape` behind each published name."""


def published_text(shape: TextShape) -> dict[str, Any]:
    """Return the sizes of a text model by their published names."""
    return {name: getattr(shape, field) for name, field in TEXT_NAMES.items()}


def published_vision(shape: VisionShape) -> dict[str, Any]:
    """Return the sizes of a vision encoder by their published names."""
    return {name: getattr(shape, field) for name, field in VISION_NAMES.items()}
