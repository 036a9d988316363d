"""The records of a batch: one line of JSON for each answer or error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from internvl_gguf.bulk.clip_fields import CLIP_FIELDS
from internvl_gguf.bulk.common import KNOWN_FIELDS, Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.errors import InternVLError
from internvl_gguf.types import Reply

_OF_LINE: Final = ("line", "id", "images", "prompt", "columns", "usage", "timings", "same_as", "hash")
"""Fields of a record that are of its line, not of the answer."""


def record_of(
    line: Line, outcome: Reply | InternVLError, common: Common, words: Callable[[str], str] = str
) -> dict[str, Any]:
    """Return the record of a line: what it is known by, pictures and question, the model, and its answer or error.

    Args:
        line: the line.
        outcome: its answer or error.
        common: what all lines have in common.
        words: says the message of an error in the words of those who read it.
    """
    given = line.known_fields
    known = {name: given[name] for name in ("id",) if name in given}
    for name in ("images", *CLIP_FIELDS):
        if name in given:
            known[name] = _without_data(given[name])
    asked, digest = _asked(line, common)
    answer: dict[str, Any] = outcome.to_dict()
    if isinstance(outcome, InternVLError):
        answer = {name: words(said) for name, said in answer.items()}
    return {
        "line": line.number,
        **known,
        **asked,
        "model": common.model,
        **answer,
        "hash": digest,
    }


def _asked(line: Line, common: Common) -> tuple[dict[str, Any], str]:
    """Return the question of a line with its places filled and its columns, as far as it has them, and its hash."""
    question, digest = common.asked(line)
    asked: dict[str, Any] = {"prompt": question.prompt} if question else {}
    if columns := _columns(line.known_fields, common):
        asked["columns"] = columns
    return asked, digest


def _columns(given: Mapping[str, Any], common: Common) -> dict[str, Any]:
    """Return what a line has for its prompt and its record only; also of a line that cannot be asked."""
    columns = given.get("columns")
    named = {name: given[name] for name in given if name in common.template.names and name not in KNOWN_FIELDS}
    return {**named, **(columns if isinstance(columns, Mapping) else {})}


def copied(record: Mapping[str, Any], line: Line, common: Common) -> dict[str, Any]:
    """Return the record of a line that asks the same about equal pictures as an answered one: nothing was computed.

    Args:
        record: of the answered line, with `usage`; its pictures are named in the copy.
        line: the line.
        common: what all lines have in common.
    """
    given = line.known_fields
    own = {"line": line.number, **({"id": given["id"]} if "id" in given else {})}
    own |= {name: _without_data(given[name]) for name in ("images",) if name in given}
    asked, digest = _asked(line, common)
    usage, of_answer = record["usage"], {name: record[name] for name in record if name not in _OF_LINE}
    known = {"cached_tokens": usage["prompt_tokens"], "tiles_encoded": 0, "tiles_cached": usage["tiles"]}
    timings = dict.fromkeys(record["timings"], 0.0)
    return {
        **own,
        **asked,
        **of_answer,
        "usage": {**usage, **known},
        "timings": timings,
        "same_as": record.get("same_as", record["images"]),
        "hash": digest,
    }


def _without_data(images: Any) -> Any:
    """Return pictures as they were given, but data URIs without their data."""
    if isinstance(images, list):
        return [_without_data(image) for image in images]
    if isinstance(images, dict):
        return {name: _without_data(value) for name, value in images.items()}
    is_data = isinstance(images, str) and images[:5].lower() == "data:"
    return f"{images.partition(',')[0]},..." if is_data else images


def as_line(record: dict[str, Any]) -> bytes:
    """Return a record as it is written: one line of JSON."""
    # Half a surrogate pair, which JSON may hold and UTF-8 may not, stays the escape that it came as.
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class RecordWriter:
    """Writes records in the order of their places, each as soon as those before it are written.

    Args:
        write: gets one line for each record.
        in_order: False writes each record at once, so that a crash takes none with it that waits for an earlier one.
    """

    def __init__(self, write: Callable[[bytes], object], *, in_order: bool = True) -> None:
        self._write = write
        self._in_order = in_order
        self._next = 0
        self._held: dict[int, bytes] = {}

    def put(self, place: int, record: dict[str, Any]) -> None:
        """Add the record of a place; places count from 0 without gaps."""
        if not self._in_order:
            self._write(as_line(record))
            return
        self._held[place] = as_line(record)
        while (data := self._held.pop(self._next, None)) is not None:
            self._next += 1
            self._write(data)

    def close(self) -> None:
        """Write the records that still wait for earlier ones, because the run ended before those came."""
        for place in sorted(self._held):
            self._write(self._held[place])
        self._held.clear()
