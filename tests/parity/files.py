"""The committed files of a reference, and the same model written anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.export_gguf import Metadata, export_mmproj, export_text

from .internlm import converted
from .model import text_shape, vision_shape
from .pieces import PieceTokenizer
from .vocabulary import tokenizer_spec

if TYPE_CHECKING:
    from .model import ReferenceModel

DATA = Path(__file__).parent / "data"


def export(model: ReferenceModel, folder: Path) -> None:
    """Write the model as a pair of float32 GGUF files, `text.gguf` and `mmproj.gguf`."""
    reference = model.reference
    metadata = Metadata(
        name=f"InternVL parity reference, {reference.name}",
        basename=f"internvl-parity-{reference.name}",
        description="Random weights; made by tests/parity/make_reference.py to compare runtimes with.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model.tokenizer, PieceTokenizer):
        spec, weights = model.tokenizer.spec(reference.vocab), converted(model.weights, reference)
    else:
        spec, weights = tokenizer_spec(model.tokenizer, reference.vocab), model.weights
    export_text(folder / "text.gguf", weights, text_shape(reference), spec, metadata)
    export_mmproj(folder / "mmproj.gguf", weights, vision_shape(reference), metadata)
