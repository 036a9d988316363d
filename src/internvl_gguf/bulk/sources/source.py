"""What all sources of a batch have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.bulk.lines import Line

IMAGE_COLUMNS: Final = ("image", "images", "image_path", "path", "file", "file_name", "filename", "picture")
"""Columns that are taken for that of the pictures, the first of them that a table has."""
ASKED_COLUMNS: Final = ("prompt", "id")
"""Columns of a table that mean what the fields of a line mean; all others are passed on to the records."""


@dataclass(frozen=True)
class Source:
    """Where the lines of a batch come from.

    Attributes:
        name: its name in messages.
        lines: gives all lines from the beginning, as often as it is called.
        columns: names that every line has beside what is known of its picture; None where each line has its own.
        notices: what the user should know of it, a line each.
    """

    name: str
    lines: Callable[[], Iterator[Line]]
    columns: tuple[str, ...] | None = None
    notices: tuple[str, ...] = ()


def numbered(items: Iterable[Mapping[str, Any] | str]) -> Iterator[Line]:
    """Return lines of their fields, or of what is wrong with them, numbered from 1."""
    for number, item in enumerate(items, 1):
        if isinstance(item, str):
            yield Line(number, b"", problem=item)
        else:
            yield Line(number, json.dumps(item, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def fields_of_row(row: Mapping[str, Any], picture: str | None) -> dict[str, Any]:
    """Return the fields of a line for the row of a table.

    Args:
        row: its cells by their columns, without that of the pictures.
        picture: the path of its picture; None where the table has none.
    """
    asked = {name: row[name] for name in ASKED_COLUMNS if row.get(name) not in (None, "")}
    others = {name: value for name, value in row.items() if name not in ASKED_COLUMNS}
    pictures = {} if picture is None else {"images": [picture]}
    return {**asked, **pictures, **({"columns": others} if others else {})}
