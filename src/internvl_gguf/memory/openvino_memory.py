"""Memory of the vision encoder in OpenVINO, by rules measured on InternViT-300M (docs/memory.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from internvl_gguf.config import EncoderKind
    from internvl_gguf.gguf.model_weights import VisionWeights

LIBRARY_BYTES: Final = 63 * 1024**2
"""The library with its threads, once it has compiled a graph: 55 MiB on one machine, 71 on another."""

_VALUE_BYTES: Final[dict[str, int]] = {"openvino f32": 4, "openvino bf16": 2}


def openvino_weights(vision: VisionWeights, kind: EncoderKind) -> int:
    """Bytes of a compiled encoder: every weight in the precision that it computes in, and the library."""
    return _VALUE_BYTES[kind] * vision.parameters + LIBRARY_BYTES


def openvino_activations(vision: VisionWeights, tiles: int, kind: EncoderKind) -> int:
    """Bytes of intermediate results of so many tiles at once: the feed-forward's inner rows and five of the width."""
    positions = vision.patches_per_side**2 + 1
    return _VALUE_BYTES[kind] * tiles * positions * (vision.n_ff + 5 * vision.n_embd)
