"""What is to be quantised: a text model or a vision encoder, checked before llama.cpp sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from gguf import GGML_QUANT_SIZES

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.header import GGUFHeader, TensorInfo, read_header
from internvl_gguf.gguf.validation import read_text_headers, validate_mmproj, validate_text_model
from internvl_gguf.quantizing.quant_types import Kind

_POSITIONS: Final = "v.position_embd.weight"  # added, not multiplied with


@dataclass(frozen=True)
class Source:
    """A model file that was checked.

    Attributes:
        path: the file; the first part of a split one.
        kind: "text" or "mmproj".
        headers: of the file, or of all parts in order.
    """

    path: Path
    kind: Kind
    headers: tuple[GGUFHeader, ...]

    @property
    def parts(self) -> tuple[Path, ...]:
        """All files it consists of."""
        return tuple(Path(header.label) for header in self.headers)

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The tensors of all parts by name."""
        return {name: tensor for header in self.headers for name, tensor in header.tensors.items()}

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(header.file_size for header in self.headers)

    @property
    def n_weights(self) -> int:
        """Elements of all tensors."""
        return sum(elements(tensor) for tensor in self.tensors.values())

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of the tensors that are multiplied with, which are what is quantised."""
        return tuple(
            name for name, tensor in self.tensors.items() if len(tensor.trimmed_shape) == 2 and name != _POSITIONS
        )

    @property
    def is_quantised(self) -> bool:
        """Whether a part of its weights is stored in blocks already."""
        return any(GGML_QUANT_SIZES[tensor.type][0] > 1 for tensor in self.tensors.values())


def elements(tensor: TensorInfo) -> int:
    """How many weights a tensor has."""
    block, n_bytes = GGML_QUANT_SIZES[tensor.type]
    return int(tensor.n_bytes // n_bytes * block)


def open_source(path: Path) -> Source:
    """Read and check the headers of a text model, all parts of a split one, or of an mmproj.

    Raises:
        ModelFileError: no GGUF, damaged, without weights, or no part of an InternVL.
    """
    header = read_header(path)
    if not header.tensors:
        raise ModelFileError(f"{path} holds no weights.", "Name a model, not a vocabulary.")
    if header.text("general.architecture", "") == "clip":
        validate_mmproj(header)
        return Source(path, "mmproj", (header,))
    headers = read_text_headers(path)
    validate_text_model(headers[0], headers[1:])
    return Source(path, "text", headers)
