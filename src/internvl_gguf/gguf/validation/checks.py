"""Checks shared by text models and mmprojs: typed keys, numbers in range, expected tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gguf import GGMLQuantizationType, GGUFValueType

from internvl_gguf.gguf.arch.base import Key, Storage, TensorSpec
from internvl_gguf.gguf.header import GGUFArray, GGUFHeader, TensorInfo

_MATRIX_TYPES: Final = frozenset(GGMLQuantizationType) - {
    GGMLQuantizationType.Q8_1,  # this and the next type exist inside computations only
    GGMLQuantizationType.Q8_K,
    GGMLQuantizationType.I8,
    GGMLQuantizationType.I16,
    GGMLQuantizationType.I32,
    GGMLQuantizationType.I64,
    GGMLQuantizationType.F64,
}
"""Types that llama.cpp can multiply with on every backend's fallback, the CPU."""

_STORAGE_TYPES: Final[Mapping[Storage, frozenset[GGMLQuantizationType]]] = {
    "any": _MATRIX_TYPES,
    "float": frozenset({GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16}),
    "f32": frozenset({GGMLQuantizationType.F32}),  # the CPU aborts on any other type beside F32 activations
}

GENERAL_KEYS: Final = {
    "general.architecture": Key("STRING"),
    "general.name": Key("STRING"),
    "general.file_type": Key("UINT32"),
    "split.count": Key("UINT16"),
}
"""Keys that the loaders read of every file."""


@dataclass(frozen=True)
class Identity:
    """Origin of a file according to its metadata; fields are empty if it does not say.

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
        """All names that may identify the model, the file's own first."""
        return tuple(filter(None, (self.name, self.basename, *self.base_models)))


def read_identity(header: GGUFHeader) -> Identity:
    """Read the names in a header; keys that are missing or of a wrong type count as empty."""
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


def check_key_types(header: GGUFHeader, keys: Mapping[str, Key]) -> None:
    """Check that every key of `keys` that is present has exactly its type, since llama.cpp converts nothing.

    Raises:
        ModelFileError: one is of another type.
    """
    for name, key in keys.items():
        found = header.key_values.get(name)
        if found is None:
            continue
        item = GGUFValueType[key.kind.strip("[]")]
        is_array = key.kind.startswith("[")
        item_found = found.value.item_type if isinstance(found.value, GGUFArray) else found.type
        if isinstance(found.value, GGUFArray) is not is_array or item_found is not item:
            wanted = f"an array of {item.name}" if is_array else item.name
            raise header.error(f"the key {name} is {found.type_name} where {wanted} belongs")


def check_keys(header: GGUFHeader, keys: Mapping[str, Key]) -> None:
    """Check that every key is of its type and has a plausible value.

    Raises:
        ModelFileError: one is of another type, outside its limits, or missing although required.
    """
    check_key_types(header, keys)
    for name, key in keys.items():
        if key.between is not None and key.kind == "FLOAT32":
            header.bounded_number(name, *key.between, default=key.default)
        elif key.between is not None:
            lowest, highest = map(int, key.between)
            header.bounded_integer(name, lowest, highest, None if key.default is None else int(key.default))
        elif key.only and name in header:
            found = header.key_values[name].value
            value = header.text(name) if isinstance(found, bytes) else found
            if value not in key.only:
                raise header.error(key.refusal.format(value=value))


def check_tensors(header: GGUFHeader, tensors: Mapping[str, TensorInfo], expected: Iterable[TensorSpec]) -> set[str]:
    """Check that every tensor is present, with its shape and a type that llama.cpp computes with.

    Args:
        header: header of the file, or of the first part of a split model.
        tensors: tensors of all parts.
        expected: tensors of the architecture.

    Returns:
        Names of the expected tensors.

    Raises:
        ModelFileError: a tensor is missing, or has another shape or type.
    """
    names = set()
    for spec in expected:
        check_tensor(header, tensors, spec.name, spec.shape, _STORAGE_TYPES[spec.storage])
        names.add(spec.name)
    return names


def check_tensor(
    header: GGUFHeader,
    tensors: Mapping[str, TensorInfo],
    name: str,
    shape: tuple[int, ...],
    types: frozenset[GGMLQuantizationType],
) -> None:
    """Check that a tensor is present, with this shape (fastest axis first) and one of these types.

    Raises:
        ModelFileError: it is missing, or has another shape or type.
    """
    tensor = tensors.get(name)
    if tensor is None:
        raise header.error(f"the tensor {name} is missing")
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    if tensor.trimmed_shape != shape:
        raise header.error(f"the tensor {name} has the shape {list(tensor.shape)} where {list(shape)} belongs")
    if tensor.type not in types:
        known = " or ".join(sorted(kind.name for kind in types)) if len(types) < 4 else "a weight type"
        raise header.error(f"the tensor {name} is stored as {tensor.type.name} where {known} belongs")


def check_all_known(header: GGUFHeader, names: Iterable[str], known: Iterable[str], reader: str) -> None:
    """Check that no unknown tensor is left: a renamed one would be ignored silently, or stop the load.

    Raises:
        ModelFileError: a name in `names` is not in `known`.
    """
    extra = sorted(set(names) - set(known))
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise header.error(f"{reader} has no place for the tensor {extra[0]}{more}")
