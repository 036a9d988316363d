"""What there is to choose from: the quants of a model, each with the shape that its memory and speed follow from."""

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
from internvl_gguf.planning.quality import expected_loss

if TYPE_CHECKING:
    from internvl_gguf.gguf.arch.base import TextShape, VisionShape

Source = Literal["header", "listing", "estimate"]

# Most faithful first: KL 5.7e-7 for F16, 1.4e-5 for BF16, 6.8e-5 for Q8_0 (docs/parity.md). F32 costs twice the memory.
_PRECISIONS: Final = ("F16", "BF16", "F32", "Q8_0")
_LADDER: Final = {"Q8_0": 8.51, "Q6_K": 6.57, "Q5_K_M": 5.70, "Q4_K_M": 4.90, "Q3_K_M": 4.00}  # bits a weight
_ANY_SIZE: Final = 2**50  # for shapes of which the form alone is wanted


@dataclass(frozen=True)
class Encoder:
    """A vision encoder that a model can be run with.

    Attributes:
        name: its precision, else its file's name.
        file: its path in the repository or folder; "" where none is known.
        size: bytes of the file.
        shape: what its memory follows from.
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
        file: path of the text file, the first part of a split one; "" where none is known.
        size: bytes of the text file, of all parts.
        loss: mean KL divergence from the published weights that the quant is expected to have, in nats.
        source: what its numbers come from: a GGUF header, the sizes of a listing, or the model's form alone, where
            nobody has listed its files.
        text: what its memory follows from.
        encoders: those it can be run with, the best first.
    """

    model: str
    quant: str
    file: str
    size: int
    loss: float
    source: Source
    text: TextWeights
    encoders: tuple[Encoder, ...]

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file by weights of the text model."""
        return 8 * self.size / self.text.parameters

    def shape(self, encoder: Encoder) -> ModelShape:
        """Text model and encoder together."""
        return ModelShape(self.text, encoder.shape)


def form_of(text: TextShape, vision: VisionShape) -> ModelShape:
    """The form of a model of the catalogue, for `listed_candidates`; its files may be of any size."""
    return shape_from_listing(text, _ANY_SIZE, vision, _ANY_SIZE)


def listed_candidates(
    model: str,
    texts: Iterable[ModelCopy],
    mmprojs: Iterable[ModelCopy],
    form: ModelShape,
    known: Mapping[str, TextWeights] | None = None,
) -> list[Candidate]:
    """The complete quants of a repository or folder, as far as their sizes are known and can be this model's.

    Args:
        model: its name.
        texts: text models.
        mmprojs: vision encoders, the best first.
        form: the model in files of any size.
        known: shapes that were read from headers, by the path of the text file.
    """
    vision = form.vision
    if vision is None:
        raise ValueError("a form without a vision half")
    encoders = tuple(encoder for copy in mmprojs if (encoder := _encoder(copy, vision)))
    found = []
    for copy in texts if encoders else ():
        shape = (known or {}).get(copy.first.path)
        source: Source = "header" if shape else "listing"
        if shape is None and copy.size is not None:
            with contextlib.suppress(InvalidRequestError):  # smaller than any quant of this form: another model's
                shape = resized_text(form.text, copy.size)
        if shape and copy.is_complete:
            found.append(_candidate(model, copy, shape, source, encoders))
    return found


def _encoder(copy: ModelCopy, form: VisionWeights) -> Encoder | None:
    """A vision encoder of a listing; None where its size is not known or not this form's."""
    if copy.size is None or not copy.is_complete:
        return None
    with contextlib.suppress(InvalidRequestError):
        return Encoder(copy.name, copy.first.path, copy.size, resized_vision(form, copy.size))
    return None


def by_precision(mmprojs: Iterable[ModelCopy]) -> list[ModelCopy]:
    """Vision encoders, the most faithful first that does not take twice the memory for nothing."""

    def rank(copy: ModelCopy) -> int:
        label = copy.quant.label if copy.quant else ""
        return _PRECISIONS.index(label) if label in _PRECISIONS else len(_PRECISIONS)

    return sorted(mmprojs, key=rank)


def estimated_candidates(model: str, form: ModelShape) -> list[Candidate]:
    """The usual quants of a model of which no listing is known, sized by the bits a weight such quants have."""
    if form.vision is None:
        raise ValueError("a form without a vision half")
    half_precision = 2 * form.vision.parameters
    encoders = (Encoder("F16", "", half_precision, resized_vision(form.vision, half_precision)),)
    found = []
    for label, bits in _LADDER.items():
        size = int(form.text.parameters * bits / 8)
        copy = ModelCopy(Quant(label), (RepoFile("", size),))
        found.append(_candidate(model, copy, resized_text(form.text, size), "estimate", encoders))
    return found


def _candidate(
    model: str, copy: ModelCopy, shape: TextWeights, source: Source, encoders: tuple[Encoder, ...]
) -> Candidate:
    size = copy.size or 0
    loss = expected_loss(copy.quant, 8 * size / shape.parameters)
    return Candidate(model, copy.name, copy.first.path, size, loss, source, shape, encoders)
