"""The pictures of a Parquet file: how its column holds them, and how they are read out of its cells."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.bulk.sources.picture_paths import first_folder, starting_at
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.images.sources import file_bytes, local_path
from internvl_gguf.utils.safe_text import error_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_GROUPS: Final = 2
"""Row groups whose pictures are kept: lines come in order, and a few are read at once."""
_BYTES: Final = "bytes"
_PATH: Final = "path"
"""Fields of a picture as Hugging Face's datasets have it; both may be null, but not at once."""


@dataclass(frozen=True)
class PictureColumn:
    """How a column holds pictures.

    Attributes:
        name: its name.
        in_cells: whether they are in its cells, as bytes or as objects {bytes, path}; else these name files.
        read: what a pass over the rows reads of it: all of it, only its paths, or nothing (None).
        counts: how many pictures each row has, where nothing that is read tells it; None else.
    """

    name: str
    in_cells: bool
    read: str | None
    counts: array[int] | None = None

    def references(self, file: str, row: int, cell: Any) -> list[str | None]:
        """Return the paths of the pictures of a row; None for one that is missing.

        Args:
            file: the path of the file.
            row: the row's number, from 1.
            cell: what was read of the cell.
        """
        if not self.in_cells:
            return [_text(_path_of(each)) for each in _each(cell)]
        place = f"{file}/{row}/{self.name}"
        if self.counts is not None:
            return [f"{place}/{number}" for number in range(1, self.counts[row - 1] + 1)]
        if self.read is None:
            return [place]
        if not isinstance(cell, list):
            return [] if cell is None else [_named(place, cell)]
        return [each and _named(f"{place}/{number}", each) for number, each in enumerate(cell, 1)]


def picture_column(file: pq.ParquetFile, name: str) -> PictureColumn:
    """Return how a column of an open file holds pictures. A list of bytes is read once, to count them."""
    import pyarrow.compute as pc

    kind, is_list = file.schema_arrow.field(name).type, False
    if is_list_type(kind):
        kind, is_list = kind.value_type, True
    fields = _fields_of(kind)
    if not has_data(kind) or (_BYTES in fields and _is_empty(file, name, _BYTES)):
        return PictureColumn(name, in_cells=False, read=_leaf(file, name, _PATH) if _PATH in fields else name)
    if _PATH in fields:
        return PictureColumn(name, in_cells=True, read=_leaf(file, name, _PATH))
    if not is_list:
        return PictureColumn(name, in_cells=True, read=None)
    counts = array("L")
    for group in range(file.num_row_groups):
        cells = file.read_row_group(group, columns=[name]).column(name)
        counts.extend(count or 0 for count in pc.list_value_length(cells).to_pylist())
    return PictureColumn(name, in_cells=True, read=None, counts=counts)


def paths_in(cell: Any) -> Iterator[str]:
    """Yield the texts in a cell that may be paths of pictures: itself, those of a list, or of objects {path}."""
    for each in _each(cell):
        if text := _text(_path_of(each)):
            yield text


def has_data(kind: pa.DataType) -> bool:
    """Return whether cells of a type hold bytes, within lists and objects perhaps."""
    import pyarrow as pa

    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return pa.types.is_nested(kind) and any(has_data(kind.field(index).type) for index in range(kind.num_fields))


def is_list_type(kind: pa.DataType) -> bool:
    """Return whether cells of a type are lists."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


class ParquetPictures:
    """The pictures in the cells of a Parquet file; see `contained.Container`.

    Their names are `17/image` for row 17, counted from 1, `17/images/2` for the second of a list, and
    `17/image/cat.jpg` where the cell knows the path `cat.jpg`.

    Args:
        path: the file, which stays open.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open_parquet(path)
        metadata = self._file.metadata
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._ends: list[int] = []
        for size in sizes:
            self._ends.append((self._ends[-1] if self._ends else 0) + size)
        self._kept: OrderedDict[tuple[int, str], pa.ChunkedArray] = OrderedDict()
        self._one_reader = threading.Lock()

    def names(self) -> list[str]:
        """No names: which column has the pictures, the source of the lines says."""
        return []

    def size(self, name: str) -> int:
        """Bytes of a picture, see `Container`."""
        return len(self.read(name))

    def read(self, name: str) -> bytes:
        """Content of a picture, see `Container`; several threads may read. One that has only a path is read there."""
        value, known_as = self._cell(name)
        if isinstance(value, list):
            number, _, known_as = known_as.partition("/")
            if not number.isdecimal() or not 1 <= int(number) <= len(value):
                raise KeyError(name)
            value = value[int(number) - 1]
        path = _path_of(value) if isinstance(value, Mapping) else None
        if known_as and known_as != _shown(path):
            raise KeyError(name)
        data = value.get(_BYTES) if isinstance(value, Mapping) else value
        if isinstance(data, bytes):
            return data
        if path := _text(path):
            found = starting_at(first_folder(self._path, path), path)
            return file_bytes(local_path(found, found), found)
        raise PictureError(f"Cannot use {name}: the cell holds no picture.", "Leave the row out.")

    def _cell(self, name: str) -> tuple[Any, str]:
        """Return the cell that a name begins with, and the rest of the name."""
        row, _, rest = name.partition("/")
        if not row.isdecimal() or not 1 <= int(row) <= (self._ends[-1] if self._ends else 0):
            raise KeyError(name)
        columns = [each for each in self._file.schema_arrow.names if rest == each or rest.startswith(f"{each}/")]
        if not columns:
            raise KeyError(name)
        column, place = max(columns, key=len), int(row) - 1
        with self._one_reader:
            group = next(number for number, end in enumerate(self._ends) if place < end)
            first = self._ends[group - 1] if group else 0
            value = self._cells(group, column)[place - first].as_py()
        return value, rest[len(column) + 1 :]

    def _cells(self, group: int, column: str) -> pa.ChunkedArray:
        key = group, column
        if key not in self._kept:
            self._kept[key] = self._file.read_row_group(group, columns=[column]).column(column)
            while len(self._kept) > _GROUPS:
                self._kept.popitem(last=False)
        return self._kept[key]


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        InvalidRequestError: pyarrow is not installed, or it cannot be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidRequestError(
            "Parquet files need pyarrow, which is not installed.", "pip install 'internvl-gguf[parquet]'"
        ) from error
    if not Path(path).is_file():
        raise InvalidRequestError(f"{path} cannot be read: there is no such file.", "Check the path.")
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InvalidRequestError(
            f"{path} is no Parquet file that can be read: {error_line(error)}.", "Write it again, or name another file."
        ) from error


def _fields_of(kind: pa.DataType) -> list[str]:
    """Return the names of the single values of objects; none of another type."""
    import pyarrow as pa

    fields = map(kind.field, range(kind.num_fields)) if pa.types.is_struct(kind) else ()
    return [each.name for each in fields if not pa.types.is_nested(each.type)]


def _chunks(file: pq.ParquetFile, column: str, field: str) -> Iterator[pq.ColumnChunkMetaData]:
    """Yield what is known of a field of a column's objects, for each row group."""
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        chunks = map(metadata.column, range(metadata.num_columns))
        names = ((each, each.path_in_schema) for each in chunks)  # of a list `images.list.element.path`
        yield next(each for each, path in names if path.startswith(f"{column}.") and path.endswith(f".{field}"))


def _leaf(file: pq.ParquetFile, column: str, field: str) -> str:
    return str(next(_chunks(file, column, field)).path_in_schema)


def _is_empty(file: pq.ParquetFile, column: str, field: str) -> bool:
    """Return whether a field of a column's objects is null in all rows, as far as the file tells without being read."""
    known = ((each.statistics, each.num_values) for each in _chunks(file, column, field))
    return all(found is not None and found.has_null_count and found.null_count == count for found, count in known)


def _each(cell: Any) -> list[Any]:
    if isinstance(cell, list):
        return cell
    return [] if cell is None else [cell]


def _path_of(cell: Any) -> Any:
    return cell.get(_PATH) if isinstance(cell, Mapping) else cell


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _shown(path: Any) -> str:
    """Return how the path that a cell knows stands behind the cell's own."""
    return path.strip().lstrip("/") if isinstance(path, str) else ""


def _named(place: str, cell: Mapping[str, Any]) -> str:
    shown = _shown(_path_of(cell))
    return f"{place}/{shown}" if shown else place
