"""The type of all sources of a batch, and rules that they share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from internvl_gguf.bulk.lines import Line
from internvl_gguf.errors import InvalidRequestError

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


@dataclass(frozen=True)
class Unusable:
    """A row that asks nothing.

    Attributes:
        problem: why, in one sentence.
        fields: what is known of it, for its record.
    """

    problem: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def numbered(items: Iterable[Mapping[str, Any] | Unusable], if_missing: str = "") -> Iterator[Line]:
    """Return lines of their fields, or of what is wrong with them, numbered from 1.

    Args:
        items: the fields, or what is wrong.
        if_missing: see `Line`.
    """
    for number, item in enumerate(items, 1):
        fields, problem = (item.fields, item.problem) if isinstance(item, Unusable) else (item, "")
        data = json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")
        yield Line(number, data, problem, if_missing)


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


def refuse_hidden_pictures(path: str, column: str) -> None:
    """Refuse a table whose pictures would not be shown.

    Raises:
        InvalidRequestError: always.
    """
    raise InvalidRequestError(
        f"{path} has pictures in the column {column}, which is none of the usual names.",
        f"Say so: --image-column {shlex.quote(column)}",
    )


def text_alone(name: str) -> str:
    """Return the notice for a table without pictures."""
    return f"{name} has no column of pictures: its questions are asked without any."


def fields_of_row(row: Mapping[str, Any], pictures: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a line for the row of a table.

    Args:
        row: its cells by their columns, without that of the pictures.
        pictures: paths of its pictures; none where the table has none.
    """
    asked = {name: row[name] for name in ASKED_COLUMNS if row.get(name) not in (None, "")}
    others = {name: value for name, value in row.items() if name not in ASKED_COLUMNS}
    return {**asked, **({"images": list(pictures)} if pictures else {}), **({"columns": others} if others else {})}
