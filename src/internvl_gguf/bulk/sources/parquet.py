"""Rows of Parquet files: pictures as paths, as bytes, or as the objects {bytes, path} of Hugging Face's datasets."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.bulk.sources.source import (
    Source,
    Unusable,
    chosen_column,
    fields_of_row,
    numbered,
    refuse_hidden_pictures,
    text_alone,
)
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.utils.safe_text import error_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_ROWS_AT_ONCE: Final = 1024
_GROUPS: Final = 2
"""Row groups whose pictures are kept: lines come in order, and a few are read at once."""


def parquet_source(name: str, files: Sequence[str], image_column: str | None) -> Source:
    """Return a source with a line for each row of Parquet files with the same columns.

    Args:
        name: the file, or what named several.
        files: their paths.
        image_column: as in `csv_source`.

    Raises:
        InvalidRequestError: pyarrow is not installed, a file that cannot be read, or that has no such column.
    """
    opened = [_open(file) for file in files]
    header = tuple(opened[0].schema_arrow.names)
    count = sum(each.metadata.num_rows for each in opened)
    for path, each in zip(files, opened, strict=True):
        if tuple(each.schema_arrow.names) != header:
            raise InvalidRequestError(f"{path} has other columns than {files[0]}.", "Ask about them in two runs.")
        each.close()
    if not count:
        raise InvalidRequestError(f"{name} has no rows.", "Name another file.")
    column = chosen_column(files[0], header, image_column)
    if column is None:
        for each in opened[0].schema_arrow:
            if _has_data(each.type):
                refuse_hidden_pictures(files[0], each.name)

    def rows() -> Iterator[dict[str, Any] | Unusable]:
        for file in files:
            yield from _rows(file, column)

    notices = () if column is not None else (text_alone(name),)
    return Source(name, lambda: numbered(rows()), header, notices)


class ParquetPictures:
    """The pictures in the cells of a Parquet file, by names such as `17/image`; see `contained.Container`.

    Args:
        path: the file, which stays open.
    """

    def __init__(self, path: str) -> None:
        self._file = _open(path)
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
        """Bytes of a cell, see `Container`."""
        return len(self.read(name))

    def read(self, name: str) -> bytes:
        """Content of a cell, see `Container`; several threads may read."""
        row, _, column = name.partition("/")
        if not row.isdecimal() or int(row) >= (self._ends[-1] if self._ends else 0):
            raise KeyError(name)
        with self._one_reader:
            group = next(number for number, end in enumerate(self._ends) if int(row) < end)
            first = self._ends[group - 1] if group else 0
            value = self._cells(group, column)[int(row) - first].as_py()
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(data, bytes):
            raise PictureError(f"Cannot use {name}: the cell holds no picture.", "Leave the row out.")
        return data

    def _cells(self, group: int, column: str) -> pa.ChunkedArray:
        key = group, column
        if key not in self._kept:
            if column not in self._file.schema_arrow.names:
                raise KeyError(column)
            self._kept[key] = self._file.read_row_group(group, columns=[column]).column(0)
            while len(self._kept) > _GROUPS:
                self._kept.popitem(last=False)
        return self._kept[key]


def _open(path: str) -> pq.ParquetFile:
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


def _rows(path: str, column: str | None) -> Iterator[dict[str, Any] | Unusable]:
    with _open(path) as file:
        kept, in_cells = _read_columns(file.schema_arrow, column)
        place = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=kept):
            for row in batch.to_pylist():
                yield _fields(path, place, row, column, in_cells=in_cells)
                place += 1


def _read_columns(schema: pa.Schema, column: str | None) -> tuple[list[str], bool]:
    """Return the columns that a pass over the rows reads, and whether the pictures themselves are in the cells.

    Columns of bytes are left out: no prompt and no JSON can have them, and pictures are read when they are asked about.
    """
    in_cells = column is not None and _has_data(schema.field(column).type)
    return [each.name for each in schema if not _has_data(each.type)], in_cells


def _has_data(kind: pa.DataType) -> bool:
    """Return whether cells of a type hold bytes, or objects with bytes."""
    import pyarrow as pa

    def is_data(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))

    return is_data(kind) or (pa.types.is_struct(kind) and any(is_data(each.type) for each in kind))


def _fields(
    path: str, place: int, row: dict[str, Any], column: str | None, *, in_cells: bool
) -> dict[str, Any] | Unusable:
    given = row.pop(column, None) if column is not None else None
    cells = {name: _plain(value) for name, value in row.items()}
    if column is None:
        return fields_of_row(cells, None)
    if in_cells:
        return fields_of_row(cells, f"{path}/{place}/{column}")
    if not isinstance(given, str) or not given.strip():
        return Unusable(f"The row names no picture in the column {column}.", fields_of_row(cells, None))
    return fields_of_row(cells, given)


def _plain(value: Any) -> Any:
    """Return the value of a cell as JSON has it: dates and the like as text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)
