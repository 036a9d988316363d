"""The content of a GGUF header: typed key-values and tensor infos, with getters whose errors name the faulty key.

`gguf.header` fills in these dataclasses.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from gguf import GGMLQuantizationType, GGUFValueType

from internvl_gguf.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

DAMAGED_HINT: Final = "Download or copy the file again; if that does not help, it was published damaged."

SCALAR_CODES: Final = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "B",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
U64: Final = struct.Struct("<Q")

_FLOAT_TYPES: Final = frozenset((GGUFValueType.FLOAT32, GGUFValueType.FLOAT64))
_INTEGER_TYPES: Final = frozenset(SCALAR_CODES) - _FLOAT_TYPES - {GGUFValueType.BOOL}


@dataclass(frozen=True)
class GGUFArray:
    """An array of a key-value, kept as bytes and decoded on demand.

    Attributes:
        item_type: type of the items; never ARRAY, since llama.cpp knows no nested arrays.
        count: number of items.
        data: bytes of the items, as in the file.
    """

    item_type: GGUFValueType
    count: int
    data: memoryview = field(repr=False, compare=False)

    def numbers(self) -> tuple[Any, ...]:
        """Return the items as Python numbers (booleans as 0 and 1).

        Raises:
            TypeError: the items are strings.
        """
        code = SCALAR_CODES.get(self.item_type)
        if code is None:
            raise TypeError(f"an array of {self.item_type.name} holds no numbers")
        return struct.unpack(f"<{self.count}{code}", self.data)

    def raw_strings(self) -> list[bytes]:
        """Return the items as bytes, in any encoding.

        Raises:
            TypeError: the items are not strings.
        """
        if self.item_type is not GGUFValueType.STRING:
            raise TypeError(f"an array of {self.item_type.name} holds no strings")
        data, unpack, position = bytes(self.data), U64.unpack_from, 0
        items: list[bytes] = []
        append = items.append
        for _ in repeat(None, self.count):
            start = position + 8
            position = start + unpack(data, position)[0]
            append(data[start:position])
        return items


@dataclass(frozen=True)
class GGUFValue:
    """One value of the header, with the type it has in the file.

    Attributes:
        type: the GGUF type; ARRAY for arrays.
        value: int, float, bool, GGUFArray, or the bytes of a string (see `GGUFHeader.text`).
    """

    type: GGUFValueType
    value: int | float | bool | bytes | GGUFArray

    @property
    def type_name(self) -> str:
        """The type in words, such as `UINT32` or `an array of STRING`."""
        if isinstance(self.value, GGUFArray):
            return f"an array of {self.value.item_type.name}"
        return str(self.type.name)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file.

    Attributes:
        name: its name.
        shape: sizes of its axes, the fastest first, as ggml counts them; one to four.
        type: storage type of its elements.
        offset: start of its data, in bytes from the start of the file.
        n_bytes: bytes of its data.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    n_bytes: int

    @property
    def trimmed_shape(self) -> tuple[int, ...]:
        """`shape` without axes of size 1 at its end; they mean nothing to llama.cpp."""
        shape = self.shape
        while len(shape) > 1 and shape[-1] == 1:
            shape = shape[:-1]
        return shape


@dataclass(frozen=True)
class GGUFHeader:
    """Everything in a GGUF file before its data.

    Attributes:
        label: name of the file in error messages.
        version: GGUF version, 2 or 3.
        byte_order: always "little"; big-endian files are refused.
        key_values: metadata by key.
        tensors: tensors by name, in the order of their data.
        alignment: the data of every tensor starts at a multiple of this, counted from `data_offset`.
        data_offset: start of the tensors' data, in bytes from the start of the file.
        file_size: bytes of the whole file.
    """

    label: str
    version: int
    byte_order: str
    key_values: Mapping[str, GGUFValue] = field(repr=False)
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    alignment: int
    data_offset: int
    file_size: int

    def __contains__(self, key: object) -> bool:
        return key in self.key_values

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number of any integer type; `default` if the key is missing.

        Raises:
            ModelFileError: missing without a default, or of another type.
        """
        found = self._value(key, _INTEGER_TYPES, "a whole number", default is None)
        return int(found.value) if found is not None else int(default or 0)  # type: ignore[arg-type]

    def number(self, key: str, default: float | None = None) -> float:
        """Return a float, or a whole number as a float; `default` if the key is missing.

        Raises:
            ModelFileError: missing without a default, or of another type.
        """
        found = self._value(key, _FLOAT_TYPES | _INTEGER_TYPES, "a number", default is None)
        return float(found.value) if found is not None else float(default or 0.0)  # type: ignore[arg-type]

    def boolean(self, key: str, default: bool | None = None) -> bool:
        """Return a boolean; `default` if the key is missing.

        Raises:
            ModelFileError: missing without a default, or of another type.
        """
        found = self._value(key, frozenset((GGUFValueType.BOOL,)), "BOOL", default is None)
        return bool(found.value) if found is not None else bool(default)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string; `default` if the key is missing.

        Raises:
            ModelFileError: missing without a default, of another type, or not UTF-8.
        """
        found = self._value(key, frozenset((GGUFValueType.STRING,)), "STRING", default is None)
        if found is None:
            return default or ""
        try:
            return bytes(found.value).decode("utf-8")  # type: ignore[arg-type]
        except UnicodeDecodeError:
            raise self.error(f"the text of {key} is not UTF-8") from None

    def array(self, key: str, item_type: GGUFValueType) -> GGUFArray:
        """Return an array whose items are of exactly `item_type`.

        Raises:
            ModelFileError: missing, no array, or an array of something else.
        """
        found = self._value(key, frozenset((GGUFValueType.ARRAY,)), f"an array of {item_type.name}", True)
        if found is None or not isinstance(found.value, GGUFArray) or found.value.item_type is not item_type:
            raise self._wrong_type(key, f"an array of {item_type.name}")
        return found.value

    def bounded_integer(self, key: str, lowest: int, highest: int, default: int | None = None) -> int:
        """Return a whole number within limits.

        Raises:
            ModelFileError: missing without a default, no whole number, or outside the limits.
        """
        value = self.integer(key, default)
        if not lowest <= value <= highest:
            raise self.error(f"{key} is {value}, outside {lowest} to {highest}")
        return value

    def bounded_number(self, key: str, lowest: float, highest: float, default: float | None = None) -> float:
        """Return a finite number within limits.

        Raises:
            ModelFileError: missing without a default, no number, or outside the limits.
        """
        value = self.number(key, default)
        if not (math.isfinite(value) and lowest <= value <= highest):
            raise self.error(f"{key} is {value:g}, outside {lowest:g} to {highest:g}")
        return value

    def error(self, what: str, hint: str = DAMAGED_HINT) -> ModelFileError:
        """Return the error for a fault in the file: "FILE: WHAT."."""
        return ModelFileError(f"{self.label}: {what}.", hint)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, padding not counted."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    def _value(self, key: str, types: frozenset[GGUFValueType], expected: str, required: bool) -> GGUFValue | None:
        found = self.key_values.get(key)
        if found is None:
            if required:
                raise self.error(f"the key {key} is missing")
            return None
        if found.type not in types:
            raise self._wrong_type(key, expected)
        return found

    def _wrong_type(self, key: str, expected: str) -> ModelFileError:
        found = self.key_values[key].type_name
        return self.error(f"the key {key} is {found} where {expected} belongs")
