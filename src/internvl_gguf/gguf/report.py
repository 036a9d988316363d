"""What the headers of a model's files say, for people and scripts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from internvl_gguf.gguf.header import GGUFHeader
from internvl_gguf.gguf.size_names import published_text, published_vision
from internvl_gguf.gguf.validation import MmprojFacts, TextModelFacts, validate_mmproj, validate_text_model

_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class TensorStatistics:
    """The tensors of a file, or of all parts of a split one.

    Attributes:
        parameters: weights.
        n_bytes: of all tensors.
        types: how many tensors are stored in each type, the most frequent first.
    """

    parameters: int
    n_bytes: int
    types: dict[str, int]

    @classmethod
    def of(cls, headers: Sequence[GGUFHeader]) -> TensorStatistics:
        """The tensors of these headers."""
        tensors = [tensor for header in headers for tensor in header.tensors.values()]
        types = Counter(tensor.type.name for tensor in tensors)
        parameters = sum(math.prod(tensor.shape) for tensor in tensors)
        return cls(parameters, sum(tensor.n_bytes for tensor in tensors), dict(types.most_common()))

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors by their weights."""
        return 8 * self.n_bytes / self.parameters

    def as_json(self) -> dict[str, Any]:
        """What `internvl show --json` says of them, beside their bytes."""
        return {
            "parameters": self.parameters,
            "bits_per_weight": self.bits_per_weight,
            "tensor_types": self.types,
        }


@dataclass(frozen=True)
class TextReport:
    """A text model's header.

    Attributes:
        facts: what it says.
        tensors: what it holds.
        has_template: whether it carries a chat template. Ours is InternVL's own, whatever the file says.
    """

    facts: TextModelFacts
    tensors: TensorStatistics
    has_template: bool

    def as_json(self) -> dict[str, Any]:
        """What `internvl show --json` says of it."""
        return {
            "name": self.facts.name,
            "architecture": self.facts.architecture,
            **self.tensors.as_json(),
            **published_text(self.facts),
            "has_template": self.has_template,
            "bytes": self.tensors.n_bytes,
        }


@dataclass(frozen=True)
class VisionReport:
    """An mmproj's header; attributes as those of `TextReport`."""

    facts: MmprojFacts
    tensors: TensorStatistics

    def as_json(self) -> dict[str, Any]:
        """What `internvl show --json` says of it."""
        sizes = published_vision(self.facts)
        del sizes["norm"]
        return {
            "name": self.facts.name,
            "projector": self.facts.projector,
            **self.tensors.as_json(),
            **sizes,
            "projection": self.facts.projection_dim,
            "bytes": self.tensors.n_bytes,
        }


def report_text(headers: Sequence[GGUFHeader]) -> TextReport:
    """What the header of a text model says; those of all parts of a split one.

    Raises:
        ModelFileError: it is damaged, or no text model of an InternVL.
    """
    first, *parts = headers
    return TextReport(validate_text_model(first, parts), TensorStatistics.of(headers), _TEMPLATE in first)


def report_vision(header: GGUFHeader) -> VisionReport:
    """What the header of an mmproj says.

    Raises:
        ModelFileError: it is damaged, or no mmproj of an InternVL.
    """
    return VisionReport(validate_mmproj(header), TensorStatistics.of([header]))
