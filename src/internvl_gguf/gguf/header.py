"""Read and check the header of a GGUF file without trusting any byte of it.

llama.cpp aborts the process on some damaged headers and accepts others in silence, so every model file is read here
first. The layout is the one of ggml's `gguf.cpp` (versions 2 and 3, little-endian): magic, version, two counts, typed
key-values, tensor infos, then the tensors' data one after the other, each padded to the alignment.

A header comes from a local file or from the first bytes of a remote one: `parse_header` takes a prefix and says through
`IncompleteHeaderError` how many bytes it wants, `read_header` asks a `ByteSource` for them until it has enough.
"""

from __future__ import annotations

import stat
import struct
from itertools import repeat
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.file_pieces import piece_error
from internvl_gguf.gguf.values import (
    DAMAGED_HINT,
    SCALAR_CODES,
    U64,
    GGUFArray,
    GGUFHeader,
    GGUFValue,
    TensorInfo,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DAMAGED_HINT",
    "ByteSource",
    "GGUFArray",
    "GGUFHeader",
    "GGUFValue",
    "IncompleteHeaderError",
    "LocalFile",
    "TensorInfo",
    "parse_header",
    "read_header",
]

MAX_HEADER_BYTES: Final = 256 * 1024**2
FIRST_WINDOW: Final = 8 * 1024**2  # a Qwen2.5 header is about 6 MB

_MAGIC: Final = b"GGUF"
_MAX_COUNT: Final = 65536  # tensors or key-values; the largest InternVL has about 1,000
_MAX_KEY_BYTES: Final = 65535
_MAX_NAME_BYTES: Final = 63  # GGML_MAX_NAME less its terminator
_MAX_DIMS: Final = 4
_MAX_ALIGNMENT: Final = 65536
_INT64_MAX: Final = 2**63 - 1
_LAYOUTS: Final = {code: struct.Struct(f"<{code}") for code in SCALAR_CODES.values()}


class IncompleteHeaderError(ModelFileError):
    """The given bytes end inside the header, although the file goes on.

    Attributes:
        needed: bytes from the start of the file that are needed to read on; the header may turn out longer still.
    """

    def __init__(self, label: str, needed: int) -> None:
        super().__init__(f"The header of {label} goes on beyond the bytes read so far.", "Read more of the file.")
        self.needed = needed


class ByteSource(Protocol):
    """Source of a header's bytes: a local file, or a remote one read by ranged requests."""

    @property
    def label(self) -> str:
        """Its name in error messages."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    @property
    def first_window(self) -> int:
        """Number of bytes to read first; if needed, each further request is at least twice as large."""

    def read_prefix(self, length: int) -> bytes:
        """Return the first `length` bytes; `length` is at most `size`."""


class LocalFile:
    """A file on this machine as a `ByteSource`.

    Raises:
        ModelFileError: there is no such file, it is a folder or device, it is empty, or it may not be read.
    """

    first_window = FIRST_WINDOW

    def __init__(self, path: str | PathLike[str]) -> None:
        self.label = str(path)
        try:
            self._path = Path(path)
            status = self._path.stat()
        except (OSError, ValueError) as error:
            raise _unreadable(self.label, error) from None
        if stat.S_ISDIR(status.st_mode):
            raise ModelFileError(f"{path} is a folder.", "Name the .gguf file inside it.")
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"{path} is not an ordinary file.", "Name a .gguf file.")
        if status.st_size == 0:
            raise ModelFileError(f"{path} is empty.", DAMAGED_HINT)
        self.size = status.st_size

    def read_prefix(self, length: int) -> bytes:
        """Return the first `length` bytes, fewer if the file has shrunk since it was opened.

        Raises:
            ModelFileError: the file cannot be read.
        """
        try:
            with self._path.open("rb") as stream:
                return stream.read(length)
        except OSError as error:
            raise _unreadable(self.label, error) from None


def read_header(source: str | PathLike[str] | ByteSource) -> GGUFHeader:
    """Read the header of a GGUF file.

    Args:
        source: a path, or anything that gives the first bytes of a file.

    Returns:
        The header, with every count, length, type, shape and offset checked against the file's size.

    Raises:
        ModelFileError: the file cannot be read, is no GGUF, or is damaged or cut.
    """
    file = LocalFile(source) if isinstance(source, str | PathLike) else source
    try:
        return _read_header(file)
    except ModelFileError as error:
        raise piece_error(file.label) or error from None


def _read_header(file: ByteSource) -> GGUFHeader:
    length = min(file.first_window, file.size)
    while True:
        data = file.read_prefix(length)
        if len(data) < length:
            raise ModelFileError(f"{file.label} got shorter while it was read.", "Wait until it is fully written.")
        try:
            return parse_header(data, file.size, file.label)
        except IncompleteHeaderError as error:
            length = min(max(2 * length, error.needed), file.size)


def parse_header(data: bytes, file_size: int, label: str) -> GGUFHeader:
    """Parse the header from the first bytes of a file.

    Args:
        data: bytes from the start of the file; at least the whole header for success.
        file_size: bytes of the whole file.
        label: what error messages call the file.

    Raises:
        IncompleteHeaderError: `data` ends inside the header but the file goes on.
        ModelFileError: no GGUF, damaged, or cut.
    """
    cursor = _Cursor(memoryview(data), file_size, label)
    version, n_tensors, n_keys = _read_counts(cursor)
    key_values: dict[str, GGUFValue] = {}
    for index in range(n_keys):
        key = cursor.name(f"key {index}", _MAX_KEY_BYTES)
        if key in key_values:
            raise cursor.damaged(f"the key {key} appears twice")
        key_values[key] = _read_value(cursor, key)
    alignment = _alignment(cursor, key_values)
    infos = [_read_tensor_info(cursor, index) for index in range(n_tensors)]
    data_offset = _padded(cursor.position, alignment)
    tensors = _lay_out(cursor, infos, data_offset, alignment)
    return GGUFHeader(label, version, "little", key_values, tensors, alignment, data_offset, file_size)


class _Cursor:
    """A position in the bytes of a header, which never goes past the end of the file."""

    def __init__(self, data: memoryview, file_size: int, label: str) -> None:
        self.data = data
        self.position = 0
        self.file_size = file_size
        self.label = label

    def damaged(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.label} is damaged: {what}.", DAMAGED_HINT)

    def require(self, end: int) -> None:
        """Check that the bytes before `end` have been read."""
        if end <= len(self.data):
            return
        if end > self.file_size:
            raise self.damaged("its header wants more bytes than the file has")
        if end > MAX_HEADER_BYTES:
            raise self.damaged(f"its header claims to be longer than {MAX_HEADER_BYTES // 1024**2} MiB")
        raise IncompleteHeaderError(self.label, end)

    def take(self, length: int) -> memoryview:
        start, end = self.position, self.position + length
        self.require(end)
        self.position = end
        return self.data[start:end]

    def scalar(self, code: str) -> Any:
        layout = _LAYOUTS[code]
        return layout.unpack(self.take(layout.size))[0]

    def string(self) -> bytes:
        return bytes(self.take(self.scalar("Q")))

    def name(self, what: str, longest: int) -> str:
        """Read a key or a tensor's name: text that C code reads up to its first NUL."""
        length = self.scalar("Q")
        if not 1 <= length <= longest:
            raise self.damaged(f"the name of {what} has {length} bytes, not 1 to {longest}")
        raw = bytes(self.take(length))
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"the name of {what} is not UTF-8") from None
        if not text.isprintable():
            raise self.damaged(f"the name of {what} holds unprintable characters")
        return text

    def skip_strings(self, count: int) -> memoryview:
        """Return the bytes of `count` strings, each a 64-bit length and that many bytes."""
        start = position = self.position
        if count > (self.file_size - start) // 8:
            raise self.damaged("an array of strings wants more bytes than the file has")
        data, unpack = self.data, U64.unpack_from
        try:
            for _ in repeat(None, count):  # runs 300,000 times for a Qwen2.5, so it does nothing but sum
                position += 8 + unpack(data, position)[0]
        except (struct.error, OverflowError):
            self.require(position + 8)
        self.require(position)
        self.position = position
        return data[start:position]


def _read_counts(cursor: _Cursor) -> tuple[int, int, int]:
    """Check magic and version; return the version, the number of tensors and the number of keys."""
    if bytes(cursor.take(min(4, cursor.file_size))) != _MAGIC:
        raise ModelFileError(f"{cursor.label} is not a GGUF file.", "Name a model in GGUF format (.gguf).")
    version = cursor.scalar("I")
    if version & 0xFFFF == 0 and version:
        raise ModelFileError(f"{cursor.label} is a big-endian GGUF.", "Use a little-endian file of the model.")
    if version not in (2, 3):
        raise ModelFileError(
            f"{cursor.label} is a GGUF of version {version}.", "Use a file of version 2 or 3, which llama.cpp reads."
        )
    n_tensors, n_keys = cursor.scalar("Q"), cursor.scalar("Q")
    for count, what in ((n_tensors, "tensors"), (n_keys, "keys")):
        if count > _MAX_COUNT:
            raise cursor.damaged(f"it claims to hold {count} {what}")
    return version, n_tensors, n_keys


def _read_value(cursor: _Cursor, key: str) -> GGUFValue:
    kind = _value_type(cursor, key)
    if kind is GGUFValueType.STRING:
        return GGUFValue(kind, cursor.string())
    if kind is not GGUFValueType.ARRAY:
        value = cursor.scalar(SCALAR_CODES[kind])
        if kind is GGUFValueType.BOOL:
            if value > 1:
                raise cursor.damaged(f"the truth value of {key} is {value}")
            value = bool(value)
        return GGUFValue(kind, value)
    item_type = _value_type(cursor, key)
    if item_type is GGUFValueType.ARRAY:
        raise cursor.damaged(f"{key} is an array of arrays, which llama.cpp cannot read")
    count = cursor.scalar("Q")
    if item_type is GGUFValueType.STRING:
        return GGUFValue(kind, GGUFArray(item_type, count, cursor.skip_strings(count)))
    data = cursor.take(count * _LAYOUTS[SCALAR_CODES[item_type]].size)
    return GGUFValue(kind, GGUFArray(item_type, count, data))


def _value_type(cursor: _Cursor, key: str) -> GGUFValueType:
    code = cursor.scalar("I")
    try:
        return GGUFValueType(code)
    except ValueError:
        raise cursor.damaged(f"the key {key} is of the unknown type {code}") from None


def _alignment(cursor: _Cursor, key_values: Mapping[str, GGUFValue]) -> int:
    found = key_values.get("general.alignment")
    if found is None:
        return 32
    if found.type is not GGUFValueType.UINT32:
        raise cursor.damaged(f"general.alignment is {found.type_name}, not UINT32")
    alignment = found.value
    if not isinstance(alignment, int) or not 8 <= alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.damaged(f"its alignment is {alignment!r}, not a power of two from 8 to {_MAX_ALIGNMENT}")
    return alignment


def _read_tensor_info(cursor: _Cursor, index: int) -> TensorInfo:
    """Read one entry of the tensor table; its offset still counts from the start of the data."""
    name = cursor.name(f"tensor {index}", _MAX_NAME_BYTES)
    n_dims = cursor.scalar("I")
    if not 1 <= n_dims <= _MAX_DIMS:
        raise cursor.damaged(f"the tensor {name} has {n_dims} dimensions, not 1 to {_MAX_DIMS}")
    shape = tuple(cursor.scalar("Q") for _ in range(n_dims))
    code = cursor.scalar("I")
    try:
        kind = GGMLQuantizationType(code)
    except ValueError:
        raise ModelFileError(
            f"{cursor.label}: the tensor {name} is of type {code}, which this version does not know.",
            "Use another quant of the model, or download the file again if it may be damaged.",
        ) from None
    elements = 1
    for size in shape:
        elements *= size
    if min(shape) < 1 or elements > _INT64_MAX:
        raise cursor.damaged(f"the tensor {name} has the shape {list(shape)}")
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[0] % block:
        raise cursor.damaged(f"rows of {name} have {shape[0]} elements, no multiple of the {block} of {kind.name}")
    return TensorInfo(name, shape, kind, cursor.scalar("Q"), elements // block * block_bytes)


def _lay_out(cursor: _Cursor, infos: list[TensorInfo], data_offset: int, alignment: int) -> dict[str, TensorInfo]:
    """Compute the tensors' places in the file; they must follow each other without gap or overlap, and fill it."""
    tensors: dict[str, TensorInfo] = {}
    expected = 0
    for info in infos:
        if info.name in tensors:
            raise cursor.damaged(f"the tensor {info.name} appears twice")
        if info.offset != expected:
            raise cursor.damaged(f"the data of {info.name} starts at {info.offset}, not at {expected}")
        start = data_offset + info.offset
        if start + info.n_bytes > cursor.file_size:
            missing = start + info.n_bytes - cursor.file_size
            raise ModelFileError(
                f"{cursor.label} is cut: at least {missing:,} bytes are missing, from inside {info.name} on.",
                DAMAGED_HINT,
            )
        expected = _padded(info.offset + info.n_bytes, alignment)
        tensors[info.name] = TensorInfo(info.name, info.shape, info.type, start, info.n_bytes)
    surplus = cursor.file_size - data_offset - expected
    if infos and surplus > 0:  # the last tensor is smaller than its data, or of another type
        raise cursor.damaged(f"{surplus:,} bytes follow the last tensor")
    return tensors


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment


def _unreadable(label: str, error: Exception) -> ModelFileError:
    if isinstance(error, FileNotFoundError):
        return ModelFileError(f"There is no file {label}.", "Check the path.")
    if isinstance(error, PermissionError):
        return ModelFileError(f"{label} may not be read by this user.", "Change its permissions or copy it.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ModelFileError(f"{label} cannot be read: {reason}.", "Check the path and the disk.")
