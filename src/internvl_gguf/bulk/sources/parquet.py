"""Rows of Parquet files: pictures as paths, as bytes, as the objects {bytes, path} of Hugging Face, or as lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.bulk.sources.parquet_pictures import (
    PictureColumn,
    has_data,
    open_parquet,
    paths_in,
    picture_column,
)
from internvl_gguf.bulk.sources.picture_paths import IF_MISSING, first_folder, names_picture, starting_at
from internvl_gguf.bulk.sources.source import (
    Source,
    Unusable,
    chosen_column,
    fields_of_row,
    numbered,
    refuse_hidden_pictures,
    text_alone,
)
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_ROWS_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class _Table:
    """A file with rows.

    Attributes:
        path: its path.
        plain: its columns that prompts and JSON can have: those without bytes, and without the pictures.
        pictures: the column of the pictures; None for none.
        folder: where relative paths of pictures start; None for the current folder.
    """

    path: str
    plain: tuple[str, ...]
    pictures: PictureColumn | None
    folder: Path | None

    def rows(self) -> Iterator[dict[str, Any] | Unusable]:
        """Yield the fields of each row, or what is wrong with it."""
        read = [*self.plain, *([self.pictures.read] if self.pictures and self.pictures.read else [])]
        with open_parquet(self.path) as file:
            for number, row in enumerate(_cells(file, read), 1):
                yield self._fields(number, row)

    def _fields(self, number: int, row: dict[str, Any]) -> dict[str, Any] | Unusable:
        cells = {name: _plain(row[name]) for name in self.plain}
        if self.pictures is None:
            return fields_of_row(cells, [])
        column = self.pictures.name
        found = self.pictures.references(self.path, number, row.get(column))
        there = [each if self.pictures.in_cells else starting_at(self.folder, each) for each in found if each]
        fields = fields_of_row(cells, there)
        if not any(found):
            return Unusable(f"The row names no picture in the column {column}.", fields)
        if None in found:
            return Unusable(f"Picture {found.index(None) + 1} of the row is missing in the column {column}.", fields)
        return fields


def parquet_source(name: str, files: Sequence[str], image_column: str | None) -> Source:
    """Return a source with a line for each row of Parquet files with the same columns.

    Paths of pictures are meant as in `csv_source`.

    Args:
        name: the file, or what named several.
        files: their paths.
        image_column: as in `csv_source`.

    Raises:
        InvalidRequestError: pyarrow is not installed, a file that cannot be read, or that has no such column.
    """
    opened = [open_parquet(file) for file in files]
    header = tuple(opened[0].schema_arrow.names)
    for path, each in zip(files, opened, strict=True):
        if tuple(each.schema_arrow.names) != header:
            raise InvalidRequestError(f"{path} has other columns than {files[0]}.", "Ask about them in two runs.")
    if not any(each.metadata.num_rows for each in opened):
        raise InvalidRequestError(f"{name} has no rows.", "Name another file.")
    column = chosen_column(files[0], header, image_column)
    tables = [_table(path, each, column) for path, each in zip(files, opened, strict=True) if each.metadata.num_rows]
    if column is None:
        _refuse_hidden_pictures(files[0], opened[0])
    for each in opened:
        each.close()

    def rows() -> Iterator[dict[str, Any] | Unusable]:
        for table in tables:
            yield from table.rows()

    notices = () if column is not None else (text_alone(name),)
    return Source(name, lambda: numbered(rows(), IF_MISSING), tables[0].plain, notices)


def _table(path: str, file: pq.ParquetFile, column: str | None) -> _Table:
    plain = tuple(each.name for each in file.schema_arrow if each.name != column and not has_data(each.type))
    pictures = None if column is None else picture_column(file, column)
    folder = None
    if pictures and not pictures.in_cells and pictures.read:
        cells = (row[pictures.name] for row in _cells(file, [pictures.read]))
        folder = first_folder(path, next((first for cell in cells for first in paths_in(cell)), ""))
    return _Table(path, plain, pictures, folder)


def _refuse_hidden_pictures(path: str, file: pq.ParquetFile) -> None:
    """Refuse a file with bytes, or in whose first row a cell looks like a picture, where no column is known as theirs.

    Raises:
        InvalidRequestError: it is one.
    """
    for each in file.schema_arrow:
        if has_data(each.type):
            refuse_hidden_pictures(path, each.name)
    for name, cell in next(_cells(file, file.schema_arrow.names), {}).items():
        if any(names_picture(text, path) for text in paths_in(cell)):
            refuse_hidden_pictures(path, name)


def _cells(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the cells of each row by the names of their columns."""
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
        yield from batch.to_pylist()


def _plain(value: Any) -> Any:
    """Return the value of a cell as JSON has it: dates and the like as text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)
