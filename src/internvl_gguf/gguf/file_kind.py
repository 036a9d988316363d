"""Tell by its header whether a GGUF file holds a text model, an encoder or an importance matrix; names tell nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from internvl_gguf.errors import ModelFileError

if TYPE_CHECKING:
    from internvl_gguf.gguf.values import GGUFHeader

FileKind = Literal["text", "mmproj", "matrix"]
"""A text model or what else has an architecture, a vision encoder, or an importance matrix for a quantiser."""


def kind_of(header: GGUFHeader) -> FileKind:
    """Return the kind of a file.

    Raises:
        ModelFileError: the header says it in another form than text.
    """
    if header.text("general.type", "") == "imatrix":
        return "matrix"
    return "mmproj" if header.text("general.architecture", "") == "clip" else "text"


def refuse_matrix(header: GGUFHeader) -> None:
    """Refuse an importance matrix where a model is wanted.

    Raises:
        ModelFileError: it is one.
    """
    if kind_of(header) == "matrix":
        raise ModelFileError(
            f"{header.label} is an importance matrix, not a model.",
            "Name a model; `internvl quantize --imatrix` takes this file.",
        )
