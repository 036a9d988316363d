"""Rows of CSV files: one picture each, in a column, and columns for the prompt."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from internvl_gguf.bulk.sources.source import IMAGE_COLUMNS, Source, fields_of_row, numbered
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.text_data import decode_text

_DELIMITERS: Final = ",;\t|"
_LONGEST_CELL: Final = 2**24
"""Characters of a cell: more than a picture in base64 has that somebody puts into a table."""


@dataclass(frozen=True)
class _Table:
    """A table of texts.

    Attributes:
        path: its file.
        text: its content.
        delimiter: what stands between cells.
        header: names of the columns.
    """

    path: str
    text: str
    delimiter: str
    header: tuple[str, ...]

    def rows(self) -> Iterator[list[str] | str]:
        """Yield the rows behind the header that are not blank; of one that cannot be read what is wrong with it."""
        reader = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.delimiter)
        next(reader)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield f"The row cannot be read: {error}."
                continue
            if row is None:
                return
            if any(map(str.strip, row)):
                yield row


def csv_source(name: str, files: Sequence[str], image_column: str | None) -> Source:
    """Return a source with a line for each row of tables with the same columns.

    Relative paths of pictures start at the current folder; where the first picture is not there, at the table's folder.

    Args:
        name: the table, or what named several.
        files: paths of the tables.
        image_column: the column of the pictures; None for the first of `IMAGE_COLUMNS` that is there.

    Raises:
        InvalidRequestError: a table that cannot be read, or has no such column.
    """
    csv.field_size_limit(_LONGEST_CELL)
    tables = [_read(file) for file in files]
    for table in tables[1:]:
        if table.header != tables[0].header:
            raise InvalidRequestError(
                f"{table.path} has other columns than {tables[0].path}.", "Ask about them in two runs."
            )
    header = tables[0].header
    column = chosen_column(tables[0].path, header, image_column)
    folders = [_folder(table, column) for table in tables]

    def rows() -> Iterator[dict[str, Any] | str]:
        for table, folder in zip(tables, folders, strict=True):
            yield from (_fields(row, header, column, folder) for row in table.rows())

    return Source(name, lambda: numbered(rows()), header)


def chosen_column(path: str, header: Sequence[str], wanted: str | None) -> str | None:
    """Return the column of the pictures; None if none was asked for and none is there.

    Raises:
        InvalidRequestError: the one that was asked for is not there.
    """
    if wanted is None:
        by_name = {name.lower(): name for name in reversed(header)}
        return next((by_name[name] for name in IMAGE_COLUMNS if name in by_name), None)
    if wanted not in header:
        raise InvalidRequestError(
            f"{path} has no column {wanted}.", f"Its columns are {', '.join(header)[:300]}; --image-column names one."
        )
    return wanted


def _read(path: str) -> _Table:
    try:
        text = decode_text(Path(path).read_bytes(), path)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        header = tuple(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), ()))
    except csv.Error as error:
        raise InvalidRequestError(f"{path} is no CSV file: {error}.", "Save it as CSV in UTF-8.") from error
    names = tuple(map(str.strip, header))
    if not any(names):
        raise InvalidRequestError(f"{path} has no first row with the names of its columns.", "Add one.")
    twice = next((each for each in names if names.count(each) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"{path} has two columns {twice!r}.", "Give each column a name of its own.")
    return _Table(path, text, delimiter, names)


def _folder(table: _Table, column: str | None) -> Path | None:
    """Return the folder at which relative paths of pictures start; None for the current one."""
    if column is None:
        return None
    at = table.header.index(column)
    cells = (row[at].strip() for row in table.rows() if isinstance(row, list) and len(row) > at)
    first = next((cell for cell in cells if cell), "")
    beside = Path(table.path).parent
    return beside if first and not Path(first).exists() and (beside / first).exists() else None


def _fields(
    row: list[str] | str, header: tuple[str, ...], column: str | None, folder: Path | None
) -> dict[str, Any] | str:
    if isinstance(row, str):
        return row
    if len(row) != len(header):
        return f"The row has {len(row)} cells, and the table {len(header)} columns."
    cells = dict(zip(header, row, strict=True))
    if column is None:
        return fields_of_row(cells, None)
    given = cells.pop(column).strip()
    if not given:
        return f"The row names no picture in the column {column}."
    return fields_of_row(cells, given if folder is None else str(folder / given))
