"""Pictures in a zip or tar file, read in place; files beside a picture are its columns, as in WebDataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from internvl_gguf.bulk.contained import Container, member_stem, open_container
from internvl_gguf.bulk.sources.source import Source, Unusable, numbered
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.suffixes import PICTURE_SUFFIXES, UNREAD_SUFFIXES

_PICTURES: Final = PICTURE_SUFFIXES | UNREAD_SUFFIXES
_JSON, _TEXTS = ".json", (".txt", ".cls", ".caption", ".label")
_MOST_BYTES: Final = 2**20
"""Bytes of a file beside a picture; a larger one is no label."""


def archives_source(name: str, files: Sequence[str]) -> Source:
    """Return a source with a line for each picture of archives.

    Its columns are what the JSON object beside it says (`0001.json` beside `0001.jpg`), and what texts say, each by its
    suffix (`txt`, `cls`, `caption`, `label`).

    Args:
        name: the archive, or what named several.
        files: paths of the archives.

    Raises:
        InvalidRequestError: one cannot be read, or none has a picture.
    """
    for file in files:
        open_container(file)
    if not any(True for file in files for _ in _pictures(open_container(file))):
        raise InvalidRequestError(f"{name} has no picture in it.", "Name another archive, or a folder of pictures.")

    def rows() -> Iterator[dict[str, Any] | Unusable]:
        for file in files:
            yield from _rows(file)

    return Source(name, lambda: numbered(rows()))


def _pictures(container: Container) -> Iterator[str]:
    for member in container.names():
        path = PurePosixPath(member)
        is_hidden = any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in path.parts)
        if path.suffix.lower() in _PICTURES and not is_hidden:
            yield member


def _rows(file: str) -> Iterator[dict[str, Any] | Unusable]:
    container = open_container(file)
    beside: dict[str, dict[str, str]] = {}
    for member in container.names():
        suffix = PurePosixPath(member).suffix.lower()
        if suffix == _JSON or suffix in _TEXTS:
            beside.setdefault(member_stem(member), {})[suffix] = member
    for member in _pictures(container):
        try:
            columns = _columns(container, beside.get(member_stem(member), {}))
        except ValueError as error:
            yield Unusable(str(error), {"images": [f"{file}/{member}"]})
            continue
        yield {"images": [f"{file}/{member}"], **({"columns": columns} if columns else {})}


def _columns(container: Container, files: dict[str, str]) -> dict[str, Any]:
    """Return the columns that the files beside a picture give.

    Raises:
        ValueError: one of them cannot be read.
    """
    columns: dict[str, Any] = {}
    for suffix, member in files.items():
        if container.size(member) > _MOST_BYTES:
            raise ValueError(f"{member} is too large for a label.")
        try:
            text = container.read(member).decode("utf-8-sig")
            value = json.loads(text) if suffix == _JSON else text.strip()
        except (OSError, RuntimeError, ValueError, RecursionError) as error:
            raise ValueError(f"{member} cannot be read: {error}.") from error
        if suffix == _JSON and isinstance(value, dict):
            columns |= value
        else:
            columns[suffix.removeprefix(".")] = value
    return columns
