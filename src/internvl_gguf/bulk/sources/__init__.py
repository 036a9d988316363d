"""Where the lines of a batch come from: files of lines or rows, folders, globs and archives of pictures."""

from __future__ import annotations

import contextlib
import glob
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from internvl_gguf.bulk.contained_paths import PARQUET_SUFFIXES, TAR_SUFFIXES, ZIP_SUFFIXES
from internvl_gguf.bulk.lines import Line, read_lines
from internvl_gguf.bulk.sources.folder import files_below, files_of_glob, pictures_source
from internvl_gguf.bulk.sources.picture_paths import is_shown
from internvl_gguf.bulk.sources.source import IMAGE_COLUMNS, Source
from internvl_gguf.bulk.sources.table import csv_source
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.text_data import as_utf8, has_wide_mark

__all__ = ["IMAGE_COLUMNS", "Source", "lines_of_text", "open_source"]

_CSV_SUFFIXES: Final = (".csv", ".tsv")
_ARCHIVE_SUFFIXES: Final = (*ZIP_SUFFIXES, *TAR_SUFFIXES)
_MARK_BYTES: Final = 4


@contextlib.contextmanager
def open_source(path: Path, image_column: str | None = None) -> Iterator[Source]:
    """Open what a batch asks about.

    Args:
        path: a folder or a glob of pictures; a file of JSON lines, CSV or Parquet; a zip or tar file of pictures; or a
            folder or glob of such files of one kind, which are taken one after the other.
        image_column: the column of a table with the pictures; None for the first of `IMAGE_COLUMNS` that is there.

    Raises:
        InvalidRequestError: it cannot be read, or has nothing to ask about.
    """
    name = str(path)
    if image_column is not None and not path.name.lower().endswith((*_CSV_SUFFIXES, *PARQUET_SUFFIXES)):
        raise InvalidRequestError("--image-column names a column of CSV and Parquet files.", "Leave it out.")
    if path.is_dir():
        files = list(files_below(path))
        shown = any(map(is_shown, files))
        yield (
            pictures_source(name, files, is_folder=True)
            if shown or not _kind(files)
            else _tables(name, files, image_column)
        )
    elif not path.exists() and glob.has_magic(name):
        files = files_of_glob(name)
        yield _tables(name, files, image_column) if _kind(files) else pictures_source(name, files, is_folder=False)
    elif _kind([path]):
        yield _tables(name, [path], image_column)
    elif is_shown(path):
        raise InvalidRequestError(
            f"{name} is one picture.", f"Ask about it with -i {name}, or give --batch the folder or a glob in quotes."
        )
    else:
        with _json_lines(path) as lines:
            yield Source(name, lines)


def lines_of_text(data: bytes, name: str) -> Callable[[], Iterator[Line]]:
    """Return a function that gives the lines of a text each time it is called.

    Args:
        data: the text, with a byte order mark if it is not UTF-8.
        name: its name in messages.

    Raises:
        InvalidRequestError: it is no text.
    """
    text = as_utf8(data, name)
    return lambda: read_lines(io.BytesIO(text))


def _kind(files: Sequence[Path]) -> tuple[str, ...] | None:
    """Return the suffixes of the one kind of tables or archives that all these files are of; None if they are not."""
    for suffixes in (_CSV_SUFFIXES, PARQUET_SUFFIXES, _ARCHIVE_SUFFIXES):
        if files and all(path.name.lower().endswith(suffixes) for path in files):
            return suffixes
    return None


def _tables(name: str, files: Sequence[Path], image_column: str | None) -> Source:
    paths, kind = list(map(str, files)), _kind(files)
    if kind == _CSV_SUFFIXES:
        return csv_source(name, paths, image_column)
    if kind == PARQUET_SUFFIXES:
        from internvl_gguf.bulk.sources.parquet import parquet_source

        return parquet_source(name, paths, image_column)
    from internvl_gguf.bulk.sources.archive import archives_source

    return archives_source(name, paths)


@contextlib.contextmanager
def _json_lines(path: Path) -> Iterator[Callable[[], Iterator[Line]]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    with file:
        head = file.peek(_MARK_BYTES)
        if not file.seekable() or has_wide_mark(head):  # a pipe, as <(command) makes it, or UTF-16
            yield lines_of_text(file.read(), str(path))
            return

        def lines() -> Iterator[Line]:
            file.seek(0)
            yield from read_lines(file)

        yield lines
