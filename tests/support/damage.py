"""GGUF files written byte by byte from a plan, so that a test can write the ones no honest writer would.

A `Blueprint` is the plan of a valid file; change its keys and tensors, or the bytes that `serialise` gives, and write.
"""

from __future__ import annotations

import struct
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from internvl_gguf.gguf.header import GGUFHeader, parse_header

if TYPE_CHECKING:
    from pathlib import Path

_CODES = {
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


@dataclass
class Key:
    """One key-value; `item_type` is set for arrays, whose `value` is a list."""

    name: str | bytes
    type: GGUFValueType
    value: Any
    item_type: GGUFValueType | None = None


@dataclass
class Tensor:
    """One tensor: `shape` with the fastest axis first, `data` as stored; `offset` overrides where it claims to lie."""

    name: str | bytes
    shape: tuple[int, ...]
    type: GGMLQuantizationType | int
    data: bytes = field(repr=False)
    offset: int | None = None


@dataclass
class Blueprint:
    """The plan of a GGUF file."""

    keys: list[Key]
    tensors: list[Tensor]
    version: int = 3
    alignment: int = 32

    def copy(self) -> Blueprint:
        """A plan that can be changed without changing this one."""
        return deepcopy(self)

    def key(self, name: str) -> Key:
        """The key of that name."""
        return next(key for key in self.keys if key.name == name)

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name."""
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def set(self, name: str, value: Any, kind: GGUFValueType | None = None) -> None:
        """Give a key another value, and another type where one is given; a new key needs one."""
        for key in self.keys:
            if key.name == name:
                key.value, key.type = value, kind or key.type
                return
        assert kind is not None
        self.keys.append(Key(name, kind, value))

    def remove(self, name: str) -> None:
        """Take out the key or tensor of that name."""
        before = len(self.keys) + len(self.tensors)
        self.keys = [key for key in self.keys if key.name != name]
        self.tensors = [tensor for tensor in self.tensors if tensor.name != name]
        assert len(self.keys) + len(self.tensors) == before - 1

    def fill(self, name: str, shape: tuple[int, ...], value: float = 0.0) -> None:
        """Give a tensor another shape, filled with one value, as F32."""
        tensor = self.tensor(name)
        data = np.full(int(np.prod(shape)), value, np.float32).tobytes()
        tensor.shape, tensor.type, tensor.data = shape, GGMLQuantizationType.F32, data

    def retype(self, name: str, kind: GGMLQuantizationType) -> None:
        """Store an F32 tensor as `kind`."""
        tensor = self.tensor(name)
        assert tensor.type is GGMLQuantizationType.F32
        values = np.frombuffer(tensor.data, np.float32).reshape(tensor.shape[::-1])
        tensor.type, tensor.data = kind, gguf.quants.quantize(values, kind).tobytes()


def number(name: str, value: int, kind: GGUFValueType = GGUFValueType.UINT32) -> Key:
    """A whole number."""
    return Key(name, kind, value)


def real(name: str, value: float) -> Key:
    """A FLOAT32."""
    return Key(name, GGUFValueType.FLOAT32, value)


def text(name: str, value: str | bytes) -> Key:
    """A string."""
    return Key(name, GGUFValueType.STRING, value)


def truth(name: str, value: bool) -> Key:
    """A BOOL."""
    return Key(name, GGUFValueType.BOOL, value)


def array(name: str, item_type: GGUFValueType, values: list[Any]) -> Key:
    """An array."""
    return Key(name, GGUFValueType.ARRAY, values, item_type)


def serialise(blueprint: Blueprint) -> bytes:
    """The bytes of the file the plan describes."""
    header = serialise_header(blueprint)
    data = b"".join(_padded(tensor.data, blueprint.alignment) for tensor in blueprint.tensors)
    return header + data


def serialise_header(blueprint: Blueprint) -> bytes:
    """The bytes before the data of the tensors, padding included."""
    parts = [b"GGUF", struct.pack("<IQQ", blueprint.version, len(blueprint.tensors), len(blueprint.keys))]
    for key in blueprint.keys:
        parts += [_string(key.name), struct.pack("<I", key.type), _value(key)]
    offset = 0
    for tensor in blueprint.tensors:
        claimed = offset if tensor.offset is None else tensor.offset
        parts += [_string(tensor.name), struct.pack("<I", len(tensor.shape))]
        parts += [struct.pack("<q", size) for size in tensor.shape]
        parts += [struct.pack("<IQ", tensor.type, claimed)]
        offset += _rounded(stored_bytes(tensor), blueprint.alignment)
    return _padded(b"".join(parts), blueprint.alignment)


def header_of(blueprint: Blueprint, label: str = "model.gguf") -> GGUFHeader:
    """The header of the file the plan describes, as the package reads it.

    Raises:
        ModelFileError: the package refuses it.
    """
    data = serialise(blueprint)
    return parse_header(data, len(data), label)


def write(path: Path, blueprint: Blueprint) -> Path:
    """Write the file the plan describes; returns its path."""
    path.write_bytes(serialise(blueprint))
    return path


def write_sparse(path: Path, blueprint: Blueprint) -> Path:
    """Write the header alone and let zeros follow it for the data, without taking disk space."""
    header = serialise_header(blueprint)
    sizes = (_rounded(stored_bytes(tensor), blueprint.alignment) for tensor in blueprint.tensors)
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + sum(sizes))
    return path


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of the tensor's data; where it has none, what its shape and type ask for."""
    if tensor.data:
        return len(tensor.data)
    block, block_bytes = gguf.GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
    n_bytes: int = int(np.prod(tensor.shape)) // block * block_bytes
    return n_bytes


def _value(key: Key) -> bytes:
    if key.type is not GGUFValueType.ARRAY:
        return _item(key.type, key.value)
    assert key.item_type is not None
    items = b"".join(_item(key.item_type, value) for value in key.value)
    return struct.pack("<IQ", key.item_type, len(key.value)) + items


def _item(kind: GGUFValueType, value: Any) -> bytes:
    if kind is GGUFValueType.STRING:
        return _string(value)
    return struct.pack(f"<{_CODES[kind]}", value)


def _string(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def _padded(data: bytes, alignment: int) -> bytes:
    return data + bytes(-len(data) % alignment)


def _rounded(size: int, alignment: int) -> int:
    return size + -size % alignment
