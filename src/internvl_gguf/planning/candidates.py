"""The available quants of a model, each with the shape that its memory and speed follow from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.filenames import ModelCopy, Quant, RepoFile
from internvl_gguf.memory import (
    ModelShape,
    TextWeights,
    VisionWeights,
    resized_text,
    resized_vision,
    shape_from_listing,
)
from internvl_gguf.planning.expected_loss import expected_loss
from internvl_gguf.planning.task_scores import NO_SCORES, TaskScores

if TYPE_CHECKING:
    from internvl_gguf.gguf.arch.base import TextShape, VisionShape

Source = Literal["header", "listing", "estimate"]

# Most faithful first: KL 5.7e-7 for F16, 1.4e-5 for BF16, 6.8e-5 for Q8_0 (docs/parity.md). F32 costs twice the memory.
_PRECISIONS: Final = ("F16", "BF16", "F32", "Q8_0")
_LADDER: Final = {"Q8_0": 8.51, "Q6_K": 6.57, "Q5_K_M": 5.70, "Q4_K_M": 4.90, "Q3_K_M": 4.00}  # bits a weight
_ANY_SIZE: Final = 2**50  # placeholder file size of shapes whose weight sizes do not matter


@dataclass(frozen=True)
class Encoder:
    """A vision encoder that a model can be run with.

    Attributes:
        name: its precision, else its file's name.
        file: its path in the repository or folder; "" if unknown.
        size: bytes of the file.
        shape: shape of the encoder.
    """

    name: str
    file: str
    size: int
    shape: VisionWeights


@dataclass(frozen=True)
class Candidate:
    """One quant of one model.

    Attributes:
        model: its name.
        quant: name of the quant, else of the file.
        file: path of the text file, the first part of a split one; "" if unknown.
        size: bytes of the text file, of all parts.
        loss: expected mean KL divergence from the published weights, in nats.
        source: source of its numbers: a GGUF header, the sizes of a listing, or the model's shape alone if its files
            are not listed.
        text: shape of the text model.
        encoders: encoders that it can be run with, the best first.
        scores: published scores of the unquantised model.
    """

    model: str
    quant: str
    file: str
    size: int
    loss: float
    source: Source
    text: TextWeights
    encoders: tuple[Encoder, ...]
    scores: TaskScores = NO_SCORES

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file divided by weights of the text model."""
        return 8 * self.size / self.text.parameters

    def shape(self, encoder: Encoder) -> ModelShape:
        """Return the shape of text model and encoder together."""
        return ModelShape(self.text, encoder.shape)


def nominal_shape(text: TextShape, vision: VisionShape) -> ModelShape:
    """Return the shape of a catalogue model, for `listed_candidates`; the sizes of its weights are placeholders."""
    return shape_from_listing(text, _ANY_SIZE, vision, _ANY_SIZE)


def listed_candidates(
    model: str,
    texts: Iterable[ModelCopy],
    mmprojs: Iterable[ModelCopy],
    shape: ModelShape,
    known: Mapping[str, TextWeights] | None = None,
) -> list[Candidate]:
    """Return the complete quants of a repository or folder whose sizes are known and possible for this model.

    Args:
        model: its name.
        texts: text models.
        mmprojs: vision encoders, the best first.
        shape: shape of the model; the sizes of its weights do not matter.
        known: shapes that were read from headers, by the path of the text file.
    """
    vision = shape.vision
    if vision is None:
        raise ValueError("a shape without a vision half")
    encoders = tuple(encoder for copy in mmprojs if (encoder := _encoder(copy, vision)))
    found = []
    for copy in texts if encoders else ():
        text = (known or {}).get(copy.first.path)
        source: Source = "header" if text else "listing"
        if text is None and copy.size is not None:
            with contextlib.suppress(InvalidRequestError):  # smaller than any quant of this shape: another model's
                text = resized_text(shape.text, copy.size)
        if text and copy.is_complete:
            found.append(_candidate(model, copy, text, source, encoders))
    return found


def _encoder(copy: ModelCopy, shape: VisionWeights) -> Encoder | None:
    """Return a listed vision encoder; None if its size is unknown or impossible for this shape."""
    if copy.size is None or not copy.is_complete:
        return None
    with contextlib.suppress(InvalidRequestError):
        return Encoder(copy.name, copy.first.path, copy.size, resized_vision(shape, copy.size))
    return None


def by_precision(mmprojs: Iterable[ModelCopy]) -> list[ModelCopy]:
    """Sort vision encoders, the most faithful first; F32 follows smaller ones that lose next to nothing."""

    def rank(copy: ModelCopy) -> int:
        label = copy.quant.label if copy.quant else ""
        return _PRECISIONS.index(label) if label in _PRECISIONS else len(_PRECISIONS)

    return sorted(mmprojs, key=rank)


def estimated_candidates(model: str, shape: ModelShape) -> list[Candidate]:
    """Return the usual quants of a model without a known listing, sized by their usual bits a weight."""
    if shape.vision is None:
        raise ValueError("a shape without a vision half")
    half_precision = 2 * shape.vision.parameters
    encoders = (Encoder("F16", "", half_precision, resized_vision(shape.vision, half_precision)),)
    found = []
    for label, bits in _LADDER.items():
        size = int(shape.text.parameters * bits / 8)
        copy = ModelCopy(Quant(label), (RepoFile("", size),))
        found.append(_candidate(model, copy, resized_text(shape.text, size), "estimate", encoders))
    return found


def _candidate(
    model: str, copy: ModelCopy, shape: TextWeights, source: Source, encoders: tuple[Encoder, ...]
) -> Candidate:
    size = copy.size or 0
    loss = expected_loss(copy.quant, 8 * size / shape.parameters)
    return Candidate(model, copy.name, copy.first.path, size, loss, source, shape, encoders)
