"""The model to quantise: a text model or a vision encoder, checked before llama.cpp reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gguf import GGML_QUANT_SIZES

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.arch import TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.internvit import INTERNVIT
from internvl_gguf.gguf.header import GGUFHeader, TensorInfo, read_header
from internvl_gguf.gguf.validation import (
    MmprojFacts,
    TextModelFacts,
    read_text_headers,
    validate_mmproj,
    validate_text_model,
)
from internvl_gguf.quantizing.quant_types import Kind


@dataclass(frozen=True)
class Source:
    """A model file that was checked.

    Attributes:
        path: the file; the first part of a split one.
        kind: "text" or "mmproj".
        headers: of the file, or of all parts in order.
        facts: what they say.
    """

    path: Path
    kind: Kind
    headers: tuple[GGUFHeader, ...]
    facts: TextModelFacts | MmprojFacts

    @property
    def parts(self) -> tuple[Path, ...]:
        """All files of the model."""
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
        """Number of elements of all tensors."""
        return sum(elements(tensor) for tensor in self.tensors.values())

    @cached_property
    def matrices(self) -> tuple[str, ...]:
        """Names of the tensors used in matrix products, which are the ones to quantise."""
        if isinstance(self.facts, TextModelFacts):
            specs = TEXT_ARCHITECTURES[self.facts.architecture].tensors(self.facts, self.tensors)
        else:
            specs = INTERNVIT.tensors(self.facts, self.tensors)
        return tuple(spec.name for spec in specs if spec.storage == "any")

    @property
    def is_quantised(self) -> bool:
        """Whether some weights are stored in quantised blocks already."""
        return any(GGML_QUANT_SIZES[tensor.type][0] > 1 for tensor in self.tensors.values())


def elements(tensor: TensorInfo) -> int:
    """Return the number of weights of a tensor."""
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
        return Source(path, "mmproj", (header,), validate_mmproj(header))
    headers = read_text_headers(path)
    return Source(path, "text", headers, validate_text_model(headers[0], headers[1:]))
