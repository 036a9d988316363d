"""Text models whose weights name the token after each token, so that their answers are known."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from internvl_gguf.models.resolve import ModelFiles
from tests.support.damage import write
from tests.support.tiny_models import tiny_text, write_tiny_mmproj

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.damage import Blueprint

_WIDTH = 320  # a direction of its own for each token
_END = "<|im_end|>"
THINKING: dict[str, Any] = {"kind": "qwen3", "thinking": True, "n_head": 4, "head_dim": 32}
"""The plan of a model with the text part and the tokens of InternVL3.5."""


def write_chain_model(folder: Path, answer: Sequence[str], name: str = "chain", **plan: Any) -> ModelFiles:
    """Write a model that answers in these tokens; a loop where one comes again.

    Args:
        folder: folder for its two files.
        answer: the tokens, tags among them; the end of the turn follows the last one.
        name: the name of the text model's file.
        **plan: more of `tiny_text`, such as the kind of the text model.
    """
    spoken = tuple(dict.fromkeys(_written(token) for token in answer if not token.startswith("<")))
    letters = {token for token in spoken if len(token) == 1}  # the vocabulary has them
    words = tuple(token for token in spoken if token not in letters)
    text = tiny_text(width=_WIDTH, n_ctx=2048, name=name, spoken=words, **plan)
    chain_weights(text, (_written("\n"), *map(_written, answer), _END))
    path = write(folder / f"{name}.gguf", text)
    return ModelFiles(name, path, write_tiny_mmproj(folder / f"mmproj-{name}.gguf", projection=_WIDTH))


def chain_weights(text: Blueprint, chain: Sequence[str]) -> None:
    """Give a model, at least as wide as its vocabulary, weights by which each of these tokens names the next one."""
    tokens: list[str] = text.key("tokenizer.ggml.tokens").value
    places = [tokens.index(token) for token in chain]
    for tensor in text.tensors:
        shape = tensor.shape[::-1]
        values = np.ones(shape) if "norm" in str(tensor.name) else np.zeros(shape)
        if tensor.name == "token_embd.weight":
            values = np.eye(shape[0], shape[1])
        elif tensor.name == "output.weight":
            for before, after in pairwise(places):
                if not values[:, before].any():
                    values[after, before] = 1.0
        tensor.data = values.astype(np.float32).tobytes()


def _written(token: str) -> str:
    """Return a token as the vocabulary spells it: bytes in GPT-2's alphabet, tags as they are."""
    return token if token.startswith("<") else "".join(_LETTERS[byte] for byte in token.encode())


def _letters() -> list[str]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_LETTERS = _letters()
