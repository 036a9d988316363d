"""A text model that answers every question with boxes, the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.chain_model import write_chain_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from internvl_gguf.models.resolve import ModelFiles

ANSWER = ("<ref>", "red car", "</ref>", "<box>", "[[100, 200, 500, 900]]", "</box>")
SHOWN = "red car[[100, 200, 500, 900]]"
"""The answer as it is shown."""


def write_pointing_model(folder: Path, answer: Sequence[str] = ANSWER) -> ModelFiles:
    """Write a model that answers in these tokens, no two of them the same."""
    return write_chain_model(folder, answer, "pointing", grounding=True)
