"""Check that a text model and an mmproj belong together.

Equal width is not enough: InternVL3-14B and 38B are both 5120 wide, and so is InternVL3.5-14B. The files also show the
vision transformer, which InternVL pairs with its text models by size, the architecture of the text model, which tells
the releases that have it, and the names that converters write. A pair is refused if the two contradict each other; if
one of them says nothing, it passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import ModelPairError
from internvl_gguf.gguf.arch import TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.internvit import release_of
from internvl_gguf.gguf.family import NamedModel, named_model
from internvl_gguf.gguf.header import GGUFHeader, read_header
from internvl_gguf.gguf.validation.finite import check_finite
from internvl_gguf.gguf.validation.mmproj import MmprojFacts, validate_mmproj
from internvl_gguf.gguf.validation.text import TextModelFacts, read_text_headers, validate_text_model

if TYPE_CHECKING:
    from os import PathLike

    from internvl_gguf.gguf.validation.checks import Identity

_SAME_REPO_HINT: Final = "Use the mmproj from the repository the text model came from."


@dataclass(frozen=True)
class ModelPair:
    """The two files of a model, read and checked.

    Attributes:
        text: facts of the text model.
        mmproj: facts of the mmproj.
        text_headers: header of the text model; for a split one, of every part.
        mmproj_header: header of the mmproj.
    """

    text: TextModelFacts
    mmproj: MmprojFacts
    text_headers: tuple[GGUFHeader, ...]
    mmproj_header: GGUFHeader


def validate_files(text: str | PathLike[str], mmproj: str | PathLike[str], *, check_weights: bool = True) -> ModelPair:
    """Read and check the two files of a model: headers, weights if requested, and whether they belong together.

    Args:
        text: the text model; the first file of a split one, whose others lie beside it.
        mmproj: the mmproj.
        check_weights: whether to look for NaN and infinity in the mmproj's weights, which reads the whole file (about
            0.3 seconds a gigabyte on top of the disk).

    Raises:
        ModelFileError: one of them cannot be read, is damaged, or is another kind of model.
        ModelPairError: they were not made for each other.
    """
    text_headers = read_text_headers(text)
    mmproj_header = read_header(mmproj)
    text_facts = validate_text_model(text_headers[0], text_headers[1:])
    mmproj_facts = validate_mmproj(mmproj_header)
    validate_pair(text_facts, mmproj_facts)
    if check_weights:
        check_finite(mmproj, mmproj_header)
    return ModelPair(text_facts, mmproj_facts, text_headers, mmproj_header)


def validate_pair(text: TextModelFacts, mmproj: MmprojFacts) -> None:
    """Check that two files belong together, as far as their headers show it.

    Raises:
        ModelPairError: another width, a vision transformer that this text model never has, a release without such text
            models, or names of two models.
    """
    both = f"{mmproj.label} does not belong to {text.label}"
    if mmproj.projection_dim != text.n_embd:
        raise ModelPairError(
            f"{both}: it makes embeddings {mmproj.projection_dim} wide, the text model takes {text.n_embd}.",
            _SAME_REPO_HINT,
        )
    architecture = TEXT_ARCHITECTURES[text.architecture]
    expected = architecture.encoders.get((text.n_layers, text.n_embd))
    found = release_of(mmproj.n_layers, mmproj.n_embd)
    if expected is not None and found is not None and found != expected:
        raise ModelPairError(
            f"{both}: it is an {found.name}, a text model of {text.n_layers} layers goes with {expected.name}.",
            _SAME_REPO_HINT,
        )
    ours, theirs = model_in(text.identity), model_in(mmproj.identity)
    if ours and theirs and ours.contradicts(theirs):
        raise ModelPairError(f"{both}: it is of {theirs}, the text model of {ours}.", _SAME_REPO_HINT)
    if theirs and theirs.series not in architecture.series:
        raise ModelPairError(
            f"{both}: it is of {theirs}, a release without text models of {architecture.title}.", _SAME_REPO_HINT
        )


def model_in(identity: Identity) -> NamedModel | None:
    """Return the InternVL model in the first name that contains one; None if there is none."""
    return next(filter(None, map(named_model, identity.names)), None)
