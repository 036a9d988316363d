"""Determine the shape of a model: from GGUF headers, or from catalogue facts and listed sizes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InvalidRequestError, ModelFileError
from internvl_gguf.gguf.arch import KNOWN_ARCHITECTURES, TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.base import MmprojShape, TensorSpec, TextShape, VisionShape
from internvl_gguf.gguf.arch.internvit import INTERNVIT, read_mmproj_shape
from internvl_gguf.gguf.model_weights import UNKNOWN_KIND, ModelShape, TextWeights, VisionWeights, Weight

if TYPE_CHECKING:
    from internvl_gguf.gguf.header import GGUFHeader, TensorInfo

_LISTED_HEADER: Final = 6 * 1024**2  # of a text GGUF, mostly its vocabulary
_TOKEN_ROWS: Final = "token_embd.weight"
_WRONG_FILE: Final = "Name the text GGUF of an InternVL model, and its mmproj."


def shape_from_headers(text: GGUFHeader | Sequence[GGUFHeader], mmproj: GGUFHeader | None = None) -> ModelShape:
    """Return the shape of a model from its headers.

    Args:
        text: header of the text model; for a split one, the headers of all parts in order.
        mmproj: header of the vision half.

    Raises:
        ModelFileError: keys or tensors are missing, or have impossible values.
    """
    parts = text if isinstance(text, Sequence) else (text,)
    return ModelShape(_text_from_headers(parts), None if mmproj is None else _vision_from_header(mmproj))


def shape_from_listing(
    text: TextShape, text_size: int, vision: VisionShape | None = None, mmproj_size: int | None = None
) -> ModelShape:
    """Estimate the shape of a model from the catalogue and the sizes of its files.

    Every matrix counts as stored like the average of its file: only a header shows the types that a quantiser gave to
    single tensors.

    Args:
        text: sizes of the text half.
        text_size: bytes of the text file; for a split one, of all parts.
        vision: sizes of the vision half, given with `mmproj_size`.
        mmproj_size: bytes of the mmproj.

    Raises:
        InvalidRequestError: a file smaller than its vectors alone, or an architecture that does not run here.
    """
    if text.architecture not in TEXT_ARCHITECTURES:
        raise InvalidRequestError(
            f'The tensors of the architecture "{text.architecture}" are not known here.',
            f"Name a model of the architecture {KNOWN_ARCHITECTURES}.",
        )
    text_weights = _listed_text(text, text_size)
    if vision is None or mmproj_size is None:
        return ModelShape(text_weights)
    mmproj = MmprojShape(**vision.sizes, projection_dim=text.n_embd, projector_hidden=text.n_embd)
    return ModelShape(text_weights, _listed_mmproj(mmproj, mmproj_size))


def resized_text(text: TextWeights, size: int) -> TextWeights:
    """Estimate the shape of the same text model in a file of `size` bytes.

    Raises:
        InvalidRequestError: a file smaller than its vectors alone.
    """
    return _listed_text(text, size)


def resized_vision(vision: VisionWeights, size: int) -> VisionWeights:
    """Estimate the shape of the same vision encoder in a file of `size` bytes.

    Raises:
        InvalidRequestError: a file smaller than its vectors alone.
    """
    return _listed_mmproj(vision, size)


def _listed_text(shape: TextShape, size: int) -> TextWeights:
    published = TEXT_ARCHITECTURES[shape.architecture].tensors(shape)
    weights = _spread(published, size - min(_LISTED_HEADER, size // 10))
    n_vocab = next(weight.shape[1] for weight in weights if weight.name == _TOKEN_ROWS)
    return TextWeights(**{**shape.sizes, "n_vocab": n_vocab}, weights=weights, from_listing=True)


def _listed_mmproj(shape: MmprojShape, size: int) -> VisionWeights:
    return VisionWeights(**shape.sizes, weights=_spread(INTERNVIT.tensors(shape), size), from_listing=True)


def _text_from_headers(parts: Sequence[GGUFHeader]) -> TextWeights:
    first = parts[0]
    name = first.text("general.architecture", "")
    architecture = TEXT_ARCHITECTURES.get(name)
    if architecture is None:
        raise first.error(f'its architecture is "{name}", not {KNOWN_ARCHITECTURES}', _WRONG_FILE)
    weights = tuple(_weight(info) for part in parts for info in part.tensors.values())
    rows = next((weight for weight in weights if weight.name == _TOKEN_ROWS), None)
    if rows is None or len(rows.shape) != 2:
        raise first.error(f"the tensor {_TOKEN_ROWS} is missing", _WRONG_FILE)
    shape = architecture.read_shape(first, rows.shape[1])
    names = {weight.name for weight in weights}
    _require(first, names, architecture.tensors(shape, names))
    return TextWeights(**shape.sizes, weights=weights, from_listing=False)


def _vision_from_header(header: GGUFHeader) -> VisionWeights:
    if header.text("general.architecture", "") != INTERNVIT.name:
        raise ModelFileError(f"{header.label} is no mmproj.", _WRONG_FILE)
    shape = read_mmproj_shape(header)
    _require(header, header.tensors.keys(), INTERNVIT.tensors(shape, header.tensors))
    weights = tuple(_weight(info) for info in header.tensors.values())
    return VisionWeights(**shape.sizes, weights=weights, from_listing=False)


def _weight(info: TensorInfo) -> Weight:
    return Weight(info.name, info.type.name.lower(), info.trimmed_shape, info.n_bytes)


def _require(header: GGUFHeader, names: Collection[str], expected: Iterable[TensorSpec]) -> None:
    missing = next((spec.name for spec in expected if spec.name not in names), None)
    if missing is not None:
        raise header.error(f"the tensor {missing} is missing", _WRONG_FILE)


def _spread(tensors: Iterable[TensorSpec], size: int) -> tuple[Weight, ...]:
    """Distribute the bytes of a file over its tensors: F32 tensors take theirs, matrices share the rest."""
    specs = list(tensors)
    vectors = sum(4 * math.prod(spec.shape) for spec in specs if spec.storage == "f32")
    elements = sum(math.prod(spec.shape) for spec in specs if spec.storage != "f32")
    if size <= vectors:
        raise InvalidRequestError(f"A file of {size:,} bytes holds no such model.", "Check the size of the file.")
    rate = (size - vectors) / elements
    return tuple(
        Weight(spec.name, "f32", spec.shape, 4 * math.prod(spec.shape))
        if spec.storage == "f32"
        else Weight(spec.name, UNKNOWN_KIND, spec.shape, int(math.prod(spec.shape) * rate))
        for spec in specs
    )
