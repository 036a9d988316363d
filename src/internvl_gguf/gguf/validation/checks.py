"""What the checks of text models and mmprojs have in common: typed keys, numbers in range, tensors as expected."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from gguf import GGMLQuantizationType, GGUFValueType

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.header import DAMAGED_HINT, GGUFArray, GGUFHeader, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KeyType: TypeAlias = "GGUFValueType | tuple[GGUFValueType, GGUFValueType]"
"""A scalar's type, or (ARRAY, type of the items)."""

MATRIX_TYPES: Final = frozenset(GGMLQuantizationType) - {
    GGMLQuantizationType.Q8_1,  # these two exist inside computations only
    GGMLQuantizationType.Q8_K,
    GGMLQuantizationType.I8,
    GGMLQuantizationType.I16,
    GGMLQuantizationType.I32,
    GGMLQuantizationType.I64,
    GGMLQuantizationType.F64,
}
"""Storage types that llama.cpp can multiply with on every backend's fallback, the CPU."""

VECTOR_TYPES: Final = frozenset({GGMLQuantizationType.F32})
"""Norms, biases and embeddings that are added: the CPU aborts on any other type beside F32 activations."""

UINT32: Final = GGUFValueType.UINT32
FLOAT32: Final = GGUFValueType.FLOAT32
BOOL: Final = GGUFValueType.BOOL
STRING: Final = GGUFValueType.STRING
INT32: Final = GGUFValueType.INT32
ARRAY: Final = GGUFValueType.ARRAY


@dataclass(frozen=True)
class Identity:
    """What a file says about where it comes from; empty where it says nothing.

    Attributes:
        name: `general.name`.
        basename: `general.basename`.
        size_label: `general.size_label`, such as "14B"; an mmproj often has its own size here.
        base_models: names and addresses under `general.base_model.*` and `general.source.*`.
    """

    name: str
    basename: str
    size_label: str
    base_models: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a model may be recognised by, the file's own first."""
        return tuple(filter(None, (self.name, self.basename, *self.base_models)))


def read_identity(header: GGUFHeader) -> Identity:
    """The names in a header; keys that are missing or of an odd type count as empty."""
    pattern = re.compile(r"general\.(base_model\.\d+\.(name|repo_url)|source\.(url|repo_url|huggingface\.repository))")
    base_models = tuple(_optional_text(header, key) for key in header.key_values if pattern.fullmatch(key))
    return Identity(
        name=_optional_text(header, "general.name"),
        basename=_optional_text(header, "general.basename"),
        size_label=_optional_text(header, "general.size_label"),
        base_models=tuple(filter(None, base_models)),
    )


def _optional_text(header: GGUFHeader, key: str) -> str:
    found = header.key_values.get(key)
    if found is None or not isinstance(found.value, bytes):
        return ""
    return found.value.decode("utf-8", errors="replace")


def refuse(header: GGUFHeader, what: str, hint: str = DAMAGED_HINT) -> ModelFileError:
    """The error for something wrong with the file: "FILE: WHAT."."""
    return ModelFileError(f"{header.label}: {what}.", hint)


def check_key_types(header: GGUFHeader, types: Mapping[str, KeyType]) -> None:
    """Every key of `types` that is there must be of exactly that type: llama.cpp converts nothing.

    Raises:
        ModelFileError: one is of another type.
    """
    for key, expected in types.items():
        found = header.key_values.get(key)
        if found is None:
            continue
        scalar, item = expected if isinstance(expected, tuple) else (expected, None)
        item_found = found.value.item_type if isinstance(found.value, GGUFArray) else None
        if found.type is not scalar or item_found is not item:
            wanted = f"an array of {item.name}" if item is not None else scalar.name
            raise refuse(header, f"the key {key} is {found.type_name} where {wanted} belongs")


def bounded_integer(header: GGUFHeader, key: str, lowest: int, highest: int, default: int | None = None) -> int:
    """A whole number within limits.

    Raises:
        ModelFileError: missing without a default, no whole number, or outside the limits.
    """
    value = header.integer(key, default)
    if not lowest <= value <= highest:
        raise refuse(header, f"{key} is {value}, outside {lowest} to {highest}")
    return value


def bounded_number(header: GGUFHeader, key: str, lowest: float, highest: float, default: float | None = None) -> float:
    """A finite number within limits.

    Raises:
        ModelFileError: missing without a default, no number, or outside the limits.
    """
    value = header.number(key, default)
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise refuse(header, f"{key} is {value:g}, outside {lowest:g} to {highest:g}")
    return value


def check_tensor(
    header: GGUFHeader,
    tensors: Mapping[str, TensorInfo],
    name: str,
    shape: tuple[int, ...],
    types: frozenset[GGMLQuantizationType],
) -> None:
    """A tensor must be there with this shape (fastest axis first) and one of these types.

    Raises:
        ModelFileError: it is missing or another one.
    """
    tensor = tensors.get(name)
    if tensor is None:
        raise refuse(header, f"the tensor {name} is missing")
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    if tensor.trimmed_shape != shape:
        raise refuse(header, f"the tensor {name} has the shape {list(tensor.shape)} where {list(shape)} belongs")
    if tensor.type not in types:
        known = " or ".join(sorted(kind.name for kind in types)) if len(types) < 4 else "a weight type"
        raise refuse(header, f"the tensor {name} is stored as {tensor.type.name} where {known} belongs")


def check_all_known(header: GGUFHeader, names: Iterable[str], known: Iterable[str], reader: str) -> None:
    """No tensor may be left over: a renamed one would be missing in silence, or stop the load.

    Raises:
        ModelFileError: a name in `names` is not in `known`.
    """
    extra = sorted(set(names) - set(known))
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise refuse(header, f"{reader} has no place for the tensor {extra[0]}{more}")
