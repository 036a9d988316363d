"""A text model that answers every question with boxes, the same ones: its weights name the token after each token."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.models.resolve import ModelFiles
from tests.support.damage import write
from tests.support.tiny_models import tiny_text, write_tiny_mmproj

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.damage import Blueprint

ANSWER = ("<ref>", "red car", "</ref>", "<box>", "[[100, 200, 500, 900]]", "</box>")
SHOWN = "red car[[100, 200, 500, 900]]"
"""The answer as it is shown."""

_WIDTH = 320  # a direction of its own for each token


def write_pointing_model(folder: Path, answer: Sequence[str] = ANSWER) -> ModelFiles:
    """Write a model that answers in these tokens, no two of them the same."""
    spoken = tuple(token.replace(" ", "Ġ") for token in answer if not token.startswith("<"))
    plan = tiny_text(width=_WIDTH, n_ctx=2048, name="Pointing", grounding=True, spoken=spoken)
    point(plan, ["Ċ", *(token.replace(" ", "Ġ") for token in answer), "<|im_end|>"])
    text = write(folder / "pointing.gguf", plan)
    return ModelFiles("pointing", text, write_tiny_mmproj(folder / "mmproj.gguf", projection=_WIDTH))


def point(plan: Blueprint, chain: Sequence[str]) -> None:
    """Give a model, at least as wide as its vocabulary, weights by which each of these tokens names the next one."""
    tokens: list[str] = plan.key("tokenizer.ggml.tokens").value
    places = [tokens.index(token) for token in chain]
    for tensor in plan.tensors:
        shape = tensor.shape[::-1]
        values = np.ones(shape) if "norm" in str(tensor.name) else np.zeros(shape)
        if tensor.name == "token_embd.weight":
            values = np.eye(shape[0], shape[1])
        elif tensor.name == "output.weight":
            for before, after in pairwise(places):
                values[after, before] = 1.0
        tensor.data = values.astype(np.float32).tobytes()
