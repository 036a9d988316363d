"""Rows of CSV files: one picture each, in a column, and columns for the prompt."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

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
from internvl_gguf.utils.sizes import counted
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

    def rows(self) -> Iterator[list[str] | Unusable]:
        """Yield the rows behind the header that are not blank; of one that cannot be read what is wrong with it."""
        reader = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.delimiter)
        next(reader)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield Unusable(f"The row cannot be read: {error}.")
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
        InvalidRequestError: a table that cannot be read, has no names of columns, or no such column.
    """
    csv.field_size_limit(_LONGEST_CELL)
    tables = [_read(file, image_column) for file in files]
    for table in tables:
        if table.header != tables[0].header:
            raise InvalidRequestError(
                f"{table.path} has other columns than {tables[0].path}.", "Ask about them in two runs."
            )
        _check(table)
    header = tables[0].header
    column = chosen_column(tables[0].path, header, image_column)
    if column is None:
        _refuse_hidden_pictures(tables[0])
    folders = [_folder(table, column) for table in tables]

    def rows() -> Iterator[dict[str, Any] | Unusable]:
        for table, folder in zip(tables, folders, strict=True):
            yield from (_fields(row, header, column, folder) for row in table.rows())

    notices = () if column is not None else (text_alone(name),)
    columns = tuple(each for each in header if each != column)
    return Source(name, lambda: numbered(rows(), IF_MISSING), columns, notices)


def _read(path: str, image_column: str | None) -> _Table:
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
    _refuse_missing_header(path, names, delimiter, image_column)
    twice = next((each for each in names if names.count(each) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"{path} has two columns {twice!r}.", "Give each column a name of its own.")
    return _Table(path, text, delimiter, names)


def _refuse_missing_header(path: str, names: Sequence[str], delimiter: str, image_column: str | None) -> None:
    """Refuse a table whose first row is a row of data: taken for names of columns it would be lost.

    Args:
        path: of the table.
        names: cells of its first row.
        delimiter: what stands between them.
        image_column: as in `csv_source`.

    Raises:
        InvalidRequestError: it is one: a cell looks like a picture, and no other is the name of the pictures' column.
    """
    column = image_column if image_column in names else None
    if image_column is None:
        column = chosen_column(path, names, None)
    are_pictures = [names_picture(each, path) for each in names]
    if not any(are_pictures) or (column is not None and not are_pictures[names.index(column)]):
        return
    first = names[are_pictures.index(True)]
    raise InvalidRequestError(
        f"{path} begins with a row of data ({first[:80]}): its first row must name its columns.",
        f"Add a header, for example {_example_header(are_pictures, delimiter)}",
    )


def _example_header(are_pictures: Sequence[bool], delimiter: str) -> str:
    names: list[str] = []
    for is_picture in are_pictures:
        name = "image" if is_picture else "label"
        count = sum(each.startswith(name) for each in names)
        names.append(f"{name}{count + 1}" if count else name)
    return (
        f"{' and '.join(names)} with tabs between." if delimiter == "\t" and len(names) > 1 else delimiter.join(names)
    )


def _check(table: _Table) -> None:
    """Refuse a table without rows, and one with a quote that is never closed, which would swallow the rows behind it.

    Raises:
        InvalidRequestError: it is one.
    """
    rows = csv.reader(io.StringIO(table.text, newline=""), delimiter=table.delimiter, strict=True)
    count = 0
    try:
        for row in rows:
            count += any(map(str.strip, row))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise InvalidRequestError(
                f"{table.path} has a quote in row {count:,} that is never closed.", "Close it, or double it."
            ) from error
        return  # the row says so when it is asked
    if count < 2:
        raise InvalidRequestError(f"{table.path} has no rows below the names of its columns.", "Name another file.")


def _refuse_hidden_pictures(table: _Table) -> None:
    """Refuse a table in whose first row a cell looks like a picture, in a column that is not known as theirs.

    Raises:
        InvalidRequestError: it is one.
    """
    first = next((row for row in table.rows() if isinstance(row, list)), [])
    for name, cell in zip(table.header, first, strict=False):
        if names_picture(cell, table.path):
            refuse_hidden_pictures(table.path, name)


def _folder(table: _Table, column: str | None) -> Path | None:
    """Return the folder at which relative paths of pictures start; None for the current one."""
    if column is None:
        return None
    at = table.header.index(column)
    cells = (row[at].strip() for row in table.rows() if isinstance(row, list) and len(row) > at)
    first = next((cell for cell in cells if cell), "")
    return first_folder(table.path, first)


def _fields(
    row: list[str] | Unusable, header: tuple[str, ...], column: str | None, folder: Path | None
) -> dict[str, Any] | Unusable:
    if isinstance(row, Unusable):
        return row
    cells = dict(zip(header, row, strict=False))
    given = cells.pop(column, "").strip() if column is not None else ""
    pictures = [starting_at(folder, given)] if given else []
    fields = fields_of_row(cells, pictures)
    if len(row) != len(header):
        return Unusable(
            f"The row has {counted(len(row), 'cell')}, and the table {counted(len(header), 'column')}.", fields
        )
    if column is not None and not pictures:
        return Unusable(f"The row names no picture in the column {column}.", fields)
    return fields
