"""Text parts of InternLM: as they compute, and as llama.cpp's converter arranges their matrices.

InternLM2 keeps the rows of queries, keys and values in one matrix, those of each group of heads together. InternLM3
is a Llama. transformers has Llama, whose attention both have but for that matrix.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .cases import Reference

    Weights = Mapping[str, NDArray[np.float32]]

_FUSED = re.compile(r"(model\.language_model\.layers\.(\d+)\.self_attn\.)wqkv\.weight")
_QUERY_OR_KEY = re.compile(r".*\.self_attn\.([qk])_proj\.weight")


class _Part(torch.nn.Module):
    """Queries, keys or values of InternLM2's one matrix (`InternLM2Attention.forward` in `modeling_internlm2.py`)."""

    def __init__(self, wqkv: NDArray[np.float32], reference: Reference, part: str) -> None:
        super().__init__()
        self._wqkv = torch.from_numpy(wqkv)
        self._groups = (reference.kv_heads, reference.heads // reference.kv_heads + 2, -1)
        self._part = part

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Take one part of each group: all but the last two rows of heads are queries, then keys, then values."""
        states = torch.nn.functional.linear(hidden, self._wqkv).unflatten(-1, self._groups)
        if self._part == "q":
            return states[..., :-2, :].flatten(-3)
        return states[..., -2 if self._part == "k" else -1, :].flatten(-2)


def fused_shapes(shapes: Mapping[str, tuple[int, ...]], reference: Reference) -> dict[str, tuple[int, ...]]:
    """The shapes of a Llama's tensors with the three matrices of InternLM2 in one."""
    parts = re.compile(r"(.*language_model.*\.self_attn\.)([qkv])_proj\.weight")
    fused = {name: shape for name, shape in shapes.items() if not parts.fullmatch(name)}
    for name, shape in shapes.items():
        if (found := parts.fullmatch(name)) and found[2] == "q":
            heads = reference.heads + 2 * reference.kv_heads
            fused[f"{found[1]}wqkv.weight"] = (shape[0] // reference.heads * heads, shape[1])
    return fused


def load_fused(model: Any, weights: Weights, reference: Reference) -> None:
    """Put the weights of an InternLM2 into an `InternVLForConditionalGeneration` with a Llama as its text part."""
    plain = {name: torch.from_numpy(data) for name, data in weights.items() if not _FUSED.fullmatch(name)}
    missing = model.load_state_dict(plain, strict=False).missing_keys
    if len(missing) != 3 * reference.layers:
        raise ValueError(f"weights without a place: {missing}")
    for name, data in weights.items():
        if found := _FUSED.fullmatch(name):
            attention = model.model.language_model.layers[int(found[2])].self_attn
            for part in "qkv":
                setattr(attention, f"{part}_proj", _Part(data, reference, part))


def converted(weights: Weights, reference: Reference) -> dict[str, NDArray[np.float32]]:
    """The weights as llama.cpp's converter leaves them (`conversion/internlm.py`), under the names of a Llama."""
    split: dict[str, NDArray[np.float32]] = {}
    for name, data in weights.items():
        if not (found := _FUSED.fullmatch(name)):
            split[name] = data
            continue
        width = data.shape[1]
        per_group = reference.heads // reference.kv_heads
        grouped = data.reshape(reference.kv_heads, per_group + 2, -1, width)
        parts = {"q": grouped[:, :per_group], "k": grouped[:, -2], "v": grouped[:, -1]}
        split |= {f"{found[1]}{part}_proj.weight": rows.reshape(-1, width) for part, rows in parts.items()}
    heads = {"q": reference.heads, "k": reference.kv_heads}
    return {
        name: _permuted(data, heads[found[1]])
        if (found := _QUERY_OR_KEY.fullmatch(name)) and "language_model" in name
        else data
        for name, data in split.items()
    }


def _permuted(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Put the two numbers that positions rotate beside each other, as llama.cpp has them (`LlamaModel.permute`)."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
