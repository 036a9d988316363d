"""Paths of pictures as folders and tables have them: what looks like one, and where a relative one starts."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Final

from internvl_gguf.bulk.contained_paths import split_contained
from internvl_gguf.images.sources import is_data_uri
from internvl_gguf.images.suffixes import PICTURE_SUFFIXES, UNREAD_SUFFIXES
from internvl_gguf.video.formats import ENDINGS

_CLIP_SUFFIXES: Final = frozenset(f".{ending}" for ending in ENDINGS.replace("mpe?g", "mpg|mpeg").split("|"))
_SHOWN: Final = PICTURE_SUFFIXES | UNREAD_SUFFIXES | _CLIP_SUFFIXES

IF_MISSING: Final = (
    "Check the path; a relative one starts at the current folder, or at the table's where only that has the first one."
)
"""What to do where a picture that a table names is not there."""


def is_shown(path: PurePath) -> bool:
    """Return whether a file is a picture or a clip by its name."""
    return path.suffix.lower() in _SHOWN


def names_picture(cell: str, table: str) -> bool:
    """Return whether a cell of a table looks like the path of a picture or a clip, or is one in a `data:` URI.

    One word with the ending of a picture does. A cell with spaces may be a sentence, and one without such an ending any
    word: these do where there is such a file.

    Args:
        cell: the cell.
        table: path of the table: relative paths may start at its folder.
    """
    text = cell.strip()
    if is_data_uri(text):
        return True
    is_called_so = is_shown(PurePath(text))
    if is_called_so and not any(map(str.isspace, text)):
        return True
    may_be = is_called_so or "/" in text or "\\" in text
    return may_be and any(_is_file(path) for path in (Path(text), Path(table).parent / text))


def first_folder(table: str, first: str) -> Path | None:
    """Return the folder at which relative paths in a table start; None for the current one.

    Args:
        table: path of the table.
        first: the first picture that it names; "" if it names none.
    """
    beside = Path(table).parent
    if not first or not _is_relative(first) or _is_there(Path(first)):
        return None
    return beside if _is_there(beside / first) else None


def starting_at(folder: Path | None, path: str) -> str:
    """Return a path that may be relative to a folder; None for the current one."""
    return str(folder / path) if folder is not None and _is_relative(path) else path


def _is_relative(path: str) -> bool:
    return not (is_data_uri(path) or "://" in path or path.startswith("~/") or Path(path).is_absolute())


def _is_there(path: Path) -> bool:
    try:
        return path.exists() or split_contained(str(path)) is not None
    except OSError:  # a name that is too long
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
