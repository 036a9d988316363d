"""Collect the facts in the headers of a model's files, for users and scripts."""

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
        parameters: number of weights.
        n_bytes: bytes of all tensors.
        types: how many tensors are stored in each type, the most frequent first.
    """

    parameters: int
    n_bytes: int
    types: dict[str, int]

    @classmethod
    def of(cls, headers: Sequence[GGUFHeader]) -> TensorStatistics:
        """Return the statistics of the tensors in these headers."""
        tensors = [tensor for header in headers for tensor in header.tensors.values()]
        types = Counter(tensor.type.name for tensor in tensors)
        parameters = sum(math.prod(tensor.shape) for tensor in tensors)
        return cls(parameters, sum(tensor.n_bytes for tensor in tensors), dict(types.most_common()))

    @property
    def bits_per_weight(self) -> float:
        """Bits of all tensors, divided by the number of weights."""
        return 8 * self.n_bytes / self.parameters

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `internvl show --json` on the tensors, their bytes aside."""
        return {
            "parameters": self.parameters,
            "bits_per_weight": self.bits_per_weight,
            "tensor_types": self.types,
        }


@dataclass(frozen=True)
class TextReport:
    """Facts in a text model's header.

    Attributes:
        facts: checked facts.
        tensors: statistics of its tensors.
        has_template: whether it carries a chat template. It is not used: prompts follow InternVL's own template.
    """

    facts: TextModelFacts
    tensors: TensorStatistics
    has_template: bool

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `internvl show --json`."""
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
    """Facts in an mmproj's header; attributes as those of `TextReport`."""

    facts: MmprojFacts
    tensors: TensorStatistics

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `internvl show --json`."""
        sizes = published_vision(self.facts)
        del sizes["norm"]
        return {
            "name": self.facts.name,
            "projector": self.facts.projector,
            **self.tensors.as_json(),
            **sizes,
            "min_tiles": self.facts.min_tiles,
            "max_tiles": self.facts.max_tiles,
            "projection": self.facts.projection_dim,
            "bytes": self.tensors.n_bytes,
        }


def report_text(headers: Sequence[GGUFHeader]) -> TextReport:
    """Return the facts in the header of a text model, or in the headers of all parts of a split one.

    Raises:
        ModelFileError: it is damaged, or no text model of an InternVL.
    """
    first, *parts = headers
    return TextReport(validate_text_model(first, parts), TensorStatistics.of(headers), _TEMPLATE in first)


def report_vision(header: GGUFHeader) -> VisionReport:
    """Return the facts in the header of an mmproj.

    Raises:
        ModelFileError: it is damaged, or no mmproj of an InternVL.
    """
    return VisionReport(validate_mmproj(header), TensorStatistics.of([header]))
