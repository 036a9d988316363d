"""An InternViT of one block for the trial, and its known embeddings, computed by numpy from the stored weights.

llama.cpp's own graph for InternVL may give every patch the position row of its neighbour (`tools/mtmd/models/
internvl.cpp` puts the class token last and adds rows that begin with the class token's). Both answers are computed: the
one that the library gives decides whether position rows have to be corrected (`llama.position_fix`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from gguf import GGMLQuantizationType, quants

from internvl_gguf.gguf.arch.base import MmprojShape
from internvl_gguf.gguf.validation.mmproj import IMAGENET_MEAN, IMAGENET_STD
from internvl_gguf.llama.synthetic import stored_kind, tensor_shapes, write_encoder
from internvl_gguf.llama.trial.tiny_text import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE: Final = MmprojShape(
    n_layers=1, n_embd=128, n_head=2, n_ff=256, image_size=112, patch_size=14, tokens_per_tile=16, norm="layernorm",
    projection_dim=128, projector_hidden=128,
)  # fmt: skip
KINDS: Final = tuple(GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q8_0"))
"""Element types of published vision encoders."""

_SIDE: Final = SHAPE.patches_per_side
_EPSILON: Final = 1e-6
_PROJECTOR_EPSILON: Final = 1e-5


@dataclass(frozen=True)
class TinyEncoder:
    """Weights of a vision encoder of one block.

    Attributes:
        kind: element type of its matrices.
        weights: as drawn, float32 by tensor name.
        values: as stored after rounding, float64 by tensor name.
        pixels: one tile, uint8 [tile, tile, 3].
    """

    kind: GGMLQuantizationType
    weights: dict[str, NDArray[np.float32]]
    values: dict[str, NDArray[np.float64]]
    pixels: NDArray[np.uint8]

    @classmethod
    def random(cls, kind: GGMLQuantizationType, seed: int = 2) -> TinyEncoder:
        """Make an encoder with random weights of one type, and a tile of random colours."""
        random = np.random.default_rng(seed)
        weights, values = {}, {}
        for name, sizes in tensor_shapes(SHAPE).items():
            drawn = random.standard_normal(sizes, dtype=np.float32)
            if name.endswith(("ln1.weight", "ln2.weight", "mlp.0.weight")):
                drawn = 1 + np.float32(0.1) * drawn
            elif name.endswith("bias"):
                drawn = np.float32(0.1) * drawn
            elif "_embd" not in name or "patch" in name:
                drawn = drawn / np.float32(np.prod(sizes[1:]) ** 0.5)
            stored = stored_kind(name, sizes, kind)
            weights[name] = drawn
            values[name] = quants.dequantize(quants.quantize(drawn, stored), stored).reshape(sizes).astype(np.float64)
        pixels = random.integers(0, 256, (SHAPE.image_size, SHAPE.image_size, 3), dtype=np.uint8)
        return cls(kind, weights, values, pixels)

    def write(self, path: Path) -> None:
        """Write the encoder as an mmproj."""
        write_encoder(path, SHAPE, self.weights, self.kind)

    def embeddings(self, *, shifted: bool) -> NDArray[np.float64]:
        """Return the embeddings of the tile, float64 [visual tokens, projection], in double precision.

        The formula is that of InternViT with LayerNorm and InternVL's projector (`modeling_intern_vit.py`,
        `modeling_internvl_chat.py`).

        Args:
            shifted: whether each patch gets the position row of the one before it, the first that of the class token.
        """
        rows = self.values["v.position_embd.weight"]
        if not shifted:
            rows = np.roll(rows, -1, axis=0)  # the class token's row comes first in a file, its token last here
        hidden = np.concatenate([self._patches(), self.values["v.class_embd"][None]]) + rows
        hidden = hidden + self._attention(self._normed(hidden, "v.blk.0.ln1", _EPSILON))
        inner = _gelu(self._linear(self._normed(hidden, "v.blk.0.ln2", _EPSILON), "v.blk.0.ffn_up"))
        hidden = hidden + self._linear(inner, "v.blk.0.ffn_down")
        merged = self._normed(_unshuffled(hidden[:-1]), "mm.model.mlp.0", _PROJECTOR_EPSILON)
        return self._linear(_gelu(self._linear(merged, "mm.model.mlp.1")), "mm.model.mlp.3")

    def _patches(self) -> NDArray[np.float64]:
        """Return the embedded patches, row by row."""
        normalised = (self.pixels.astype(np.float64) / 255 - IMAGENET_MEAN) / IMAGENET_STD
        cut = normalised.reshape(_SIDE, SHAPE.patch_size, _SIDE, SHAPE.patch_size, 3).transpose(0, 2, 4, 1, 3)
        kernel = self.values["v.patch_embd.weight"].reshape(SHAPE.n_embd, -1)
        return cut.reshape(_SIDE * _SIDE, -1) @ kernel.T + self.values["v.patch_embd.bias"]

    def _attention(self, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
        head_dim = SHAPE.head_dim
        query, key, value = (
            self._linear(hidden, f"v.blk.0.attn_{part}").reshape(len(hidden), SHAPE.n_head, head_dim).swapaxes(0, 1)
            for part in "qkv"
        )
        attended = softmax(query @ key.swapaxes(1, 2) / head_dim**0.5) @ value
        return self._linear(attended.swapaxes(0, 1).reshape(len(hidden), SHAPE.n_embd), "v.blk.0.attn_out")

    def _linear(self, hidden: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.asarray(hidden @ self.values[f"{name}.weight"].T + self.values[f"{name}.bias"])

    def _normed(self, hidden: NDArray[np.float64], name: str, epsilon: float) -> NDArray[np.float64]:
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        scale = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
        return np.asarray(centred * scale * self.values[f"{name}.weight"] + self.values[f"{name}.bias"])


def _unshuffled(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply InternVL's pixel unshuffle: four neighbouring patches become a row, float64 [patches / 4, 4 * width]."""
    half, width = _SIDE // 2, SHAPE.n_embd
    pairs = rows.reshape(_SIDE, half, 2 * width).transpose(1, 0, 2)
    return pairs.reshape(half, half, 4 * width).transpose(1, 0, 2).reshape(half * half, 4 * width)


def _gelu(hidden: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute GELU in its tanh form, as ggml does."""
    return np.asarray(0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3))))
