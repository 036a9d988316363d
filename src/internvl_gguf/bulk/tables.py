"""Answers as a table: CSV for spreadsheets, Parquet for data frames; a row for each line, a column for each value."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES: Final = (".csv", ".parquet")
_FIRST: Final = ("line", "id", "image", "prompt")
_LAST: Final = (
    "answer", "parsed", "boxes", "confidence", "finish_reason", "thinking", "tool_calls", "prompt_tokens",
    "completion_tokens", "tiles", "seconds", "same_as", "model", "error", "hint",
)  # fmt: skip
_ALWAYS: Final = frozenset(("line", "image", "answer", "finish_reason", "error"))
_PHASES: Final = ("preprocess", "encode", "prefill", "decode")
_ROWS_AT_ONCE: Final = 1024

Row = dict[str, Any]
Records = Callable[[], Iterator[Mapping[str, Any]]]


class _Columns:
    """The columns of a table: those of the input, those of the answer, and the fields of the parsed values.

    A column of the input that is called as one of the answer gets `input_` before its name, a field `parsed_`. The
    question is a column where not all rows were asked the same.

    Args:
        records: gives the records from the beginning.
    """

    def __init__(self, records: Records) -> None:
        given: dict[str, None] = {}
        fields: dict[str, None] = {}
        used: set[str] = set(_ALWAYS)
        prompts: set[str] = set()
        for record in records():
            given |= dict.fromkeys(record.get("columns") or {})
            parsed = record.get("parsed")
            fields |= dict.fromkeys(map(str, parsed) if isinstance(parsed, Mapping) else ())
            used |= {name for name, value in _of_answer(record).items() if value not in (None, "", [], {})}
            if len(prompts) < 2 and "prompt" in record:
                prompts.add(record["prompt"])
        if len(prompts) < 2:
            used.discard("prompt")
        taken = {*_FIRST, *_LAST}
        self._given = {name: f"input_{name}" if name in taken else name for name in given}
        taken |= set(self._given.values())
        self._fields = {name: f"parsed_{name}" if name in taken else name for name in fields}
        last = [name for name in _LAST if name in used]
        at = last.index("answer") + 1
        self.names = (
            *(name for name in _FIRST if name in used),
            *self._given.values(),
            *last[:at],
            *self._fields.values(),
            *last[at:],
        )

    def row(self, record: Mapping[str, Any]) -> Row:
        """Return the row of a record: a value for each column, None for one that it does not have."""
        parsed = record.get("parsed")
        values = _of_answer(record)
        values |= {self._given[name]: value for name, value in (record.get("columns") or {}).items()}
        if isinstance(parsed, Mapping):
            values |= {self._fields[str(name)]: value for name, value in parsed.items()}
        return {name: values.get(name) for name in self.names}


def write_table(path: Path, suffix: str, records: Records) -> None:
    """Write the table of records.

    Args:
        path: the file.
        suffix: one of `TABLE_SUFFIXES`, which says the format.
        records: gives the records from the beginning.

    Raises:
        OSError: it cannot be written.
        InvalidRequestError: pyarrow is not installed.
    """
    columns = _Columns(records)
    if suffix == ".csv":
        _write_csv(path, columns, records)
    else:
        _write_parquet(path, columns, records)


def check_table(suffix: str) -> None:
    """Refuse a format whose library is not installed, before anything is answered.

    Raises:
        InvalidRequestError: it is not.
    """
    if suffix != ".parquet":
        return
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError as error:
        raise InvalidRequestError(
            "Parquet files need pyarrow, which is not installed.", "pip install 'internvl-gguf[parquet]', or use .csv."
        ) from error


def _of_answer(record: Mapping[str, Any]) -> Row:
    """Return what a record says of its line and its answer, by the names of columns."""
    usage, timings = record.get("usage") or {}, record.get("timings") or {}
    parsed, images = record.get("parsed"), record.get("images", record.get("video", record.get("videos")))
    return {
        "line": record["line"],
        "id": record.get("id"),
        "image": _one(images),
        "prompt": record.get("prompt"),
        "answer": record.get("text"),
        "parsed": None if isinstance(parsed, Mapping) else parsed,
        "boxes": record.get("boxes"),
        "confidence": record.get("confidence"),
        "finish_reason": record.get("finish_reason"),
        "thinking": record.get("thinking"),
        "tool_calls": record.get("tool_calls"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "tiles": usage.get("tiles"),
        "seconds": round(sum(timings[name] for name in _PHASES), 4) if timings else None,
        "same_as": _one(record.get("same_as")),
        "model": record.get("model"),
        "error": record.get("error"),
        "hint": record.get("hint"),
    }


def _one(images: Any) -> Any:
    """Return the one picture of a list, or what there is otherwise."""
    return images[0] if isinstance(images, list) and len(images) == 1 else images


def _write_csv(path: Path, columns: _Columns, records: Records) -> None:
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        file.write(_csv_line(columns.names))
        for record in records():
            file.write(_csv_line(map(_cell, columns.row(record).values())))


def _csv_line(cells: Iterable[Any]) -> str:
    """Return a row as it is written, with a line feed at its end; a cell with any end of a line in it is quoted."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)  # quotes what is in its own end of a row, which is both signs
    return f"{line.getvalue()[:-2]}\n"


def _cell(value: Any) -> Any:
    """Return a value as a cell of text: nothing for None and empty lists, JSON for lists and objects."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str | int | float) else _as_json(value)


def _write_parquet(path: Path, columns: _Columns, records: Records) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(columns, records)
    with pq.ParquetWriter(path, schema) as writer:
        rows: list[Row] = []
        for record in records():
            rows.append(_typed(columns.row(record), schema))
            if len(rows) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))


def _schema(columns: _Columns, records: Records) -> pa.Schema:
    """Return the types of the columns: booleans, whole numbers, numbers or boxes where all values are, else text."""
    import pyarrow as pa

    kinds: dict[str, set[type]] = {name: set() for name in columns.names}
    for record in records():
        for name, value in columns.row(record).items():
            if value is not None:
                kinds[name].add(type(value))
    types = {frozenset({bool}): pa.bool_(), frozenset({int}): pa.int64()}
    types |= dict.fromkeys((frozenset({float}), frozenset({int, float})), pa.float64())
    fields = [(name, _boxes() if name == "boxes" else types.get(frozenset(kinds[name]), pa.string())) for name in kinds]
    return pa.schema(fields)


def _boxes() -> pa.DataType:
    import pyarrow as pa

    box = {
        "label": pa.string(),
        "image": pa.int64(),
        "xyxy": pa.list_(pa.float64()),
        "thousandths": pa.list_(pa.int64()),
        "confidence": pa.float64(),
        "issues": pa.list_(pa.string()),
    }
    return pa.list_(pa.struct(list(box.items())))


def _typed(row: Row, schema: pa.Schema) -> Row:
    """Return a row whose texts are texts: what is none is JSON."""
    import pyarrow as pa

    is_text = {field.name: pa.types.is_string(field.type) for field in schema}
    return {name: _as_text(value) if is_text[name] and value is not None else value for name, value in row.items()}


def _as_text(value: Any) -> str:
    text = value if isinstance(value, str) else _as_json(value)
    return text.encode("utf-8", "backslashreplace").decode()  # JSON may hold half a surrogate pair


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
