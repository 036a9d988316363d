"""The lines of `internvl ask --batch`: read questions, write records, continue the output file of an earlier run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from internvl_gguf.config import PictureOptions, SamplingParams
from internvl_gguf.errors import InternVLError, InvalidRequestError
from internvl_gguf.session.question_options import unknown_option
from internvl_gguf.types import Question
from internvl_gguf.utils.atomic_write import write_atomically
from internvl_gguf.utils.kinds import Kind, Texts
from internvl_gguf.utils.options import options_of
from internvl_gguf.utils.text_data import decode_text

_SAMPLING: Final = options_of(SamplingParams)
_PICTURES: Final = options_of(PictureOptions)
_FIELDS: Final[dict[str, tuple[Kind, bool]]] = {
    "prompt": (Kind(), False),
    "images": (Texts("a list of paths", takes_one=True), False),
    "system": (Kind(), False),
    **{name: (each.kind, each.is_optional) for name, each in {**_PICTURES, **_SAMPLING}.items()},
}
"""What each field of a line must be, and whether null is one; `id` may be anything."""


@dataclass(frozen=True)
class Line:
    """A line of the input that is not blank.

    Attributes:
        number: from 1, blank lines counted.
        data: its bytes, without the end of the line.
    """

    number: int
    data: bytes

    @property
    def digest(self) -> str:
        """Digest of the line, which tells it from another line with the same number."""
        return hashlib.blake2b(self.data, digest_size=8).hexdigest()

    @property
    def fields(self) -> dict[str, Any]:
        """Return the JSON object of the line.

        Raises:
            InvalidRequestError: it is none.
        """
        try:
            value = json.loads(decode_text(self.data, "The line"))
        except InvalidRequestError:
            raise
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InvalidRequestError(f"The line is not JSON: {reason}.", _EXAMPLE) from error
        if not isinstance(value, dict):
            raise InvalidRequestError("The line is no JSON object.", _EXAMPLE)
        return value


_EXAMPLE: Final = 'Write one object a line, as {"prompt": "What is it?", "images": ["photo.jpg"]}.'


def read_lines(file: Iterable[bytes]) -> Iterator[Line]:
    """Return the lines of a file that are not blank."""
    for number, data in enumerate(file, 1):
        if data.strip():
            yield Line(number, data.rstrip(b"\r\n"))


def question_of(line: Line, sampling: SamplingParams) -> Question:
    """Return the question of a line.

    Args:
        line: the line.
        sampling: how tokens are chosen where the line does not say otherwise.

    Raises:
        InvalidRequestError: the line is no question, or an option is out of range.
    """
    values = line.fields
    known = ("id", *_FIELDS)
    for name, value in values.items():
        if name not in known:
            raise unknown_option("field", name, known)
        if name != "id":
            values[name] = _checked(name, value)
    if "prompt" not in values:
        raise InvalidRequestError("The line has no prompt.", _EXAMPLE)
    options: dict[str, Any] = {name: values[name] for name in _PICTURES if name in values}
    chosen = {name: values[name] for name in _SAMPLING if name in values}
    options["sampling"] = replace(sampling, **chosen)
    return Question(values["prompt"], values.get("images", ()), options, values.get("system"))


def _checked(name: str, value: Any) -> Any:
    kind, is_optional = _FIELDS[name]
    if value is None and is_optional:
        return None
    try:
        return kind.accept(name, value)
    except InvalidRequestError:
        raise InvalidRequestError(f"{name} is {json.dumps(value)[:80]}.", f"Give {kind.written}.") from None


def record_of(line: Line, outcome: dict[str, Any] | InternVLError) -> dict[str, Any]:
    """Return the record of a line: the number of the line, and its answer or its error."""
    record: dict[str, Any] = {"line": line.number}
    try:
        values = line.fields
    except InvalidRequestError:
        values = {}
    if "id" in values:
        record["id"] = values["id"]
    if isinstance(outcome, InternVLError):
        outcome = {"error": outcome.message, "hint": outcome.hint}
    return {**record, **outcome, "hash": line.digest}


def _as_line(record: dict[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON may hold and UTF-8 may not, stays the escape that it came as.
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class InOrder:
    """Writes records in the order of their places, each as soon as those before it are written.

    Args:
        file: gets one line for each record, flushed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._next = 0
        self._held: dict[int, bytes] = {}

    def put(self, place: int, record: dict[str, Any]) -> None:
        """Add the record of a place; places count from 0 without gaps."""
        self._held[place] = _as_line(record)
        while (data := self._held.pop(self._next, None)) is not None:
            self._next += 1
            self._write(data)

    def close(self) -> None:
        """Write the records that still wait for earlier ones, because the run ended before those came."""
        for place in sorted(self._held):
            self._write(self._held[place])
        self._held.clear()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


class AnswerFile:
    """The file that `--output` names: records of earlier runs stay, those of this one join them.

    While a run goes on records are appended, so that nothing is lost to a power failure but the one being written;
    `sort` brings them into the order of the lines.

    Args:
        path: the file, which need not exist.

    Raises:
        InvalidRequestError: there is a file that holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = self._read()

    def answers(self, line: Line) -> bool:
        """Return whether a line was answered before; a line that failed was not."""
        record = self._records.get(line.number)
        return record is not None and record.get("hash") == line.digest and "error" not in record

    def keep(self, lines: Iterable[Line]) -> None:
        """Drop the records of lines that changed, failed or are gone.

        Args:
            lines: the lines that were answered before.
        """
        numbers = {line.number for line in lines}
        kept = {number: record for number, record in self._records.items() if number in numbers}
        if kept != self._records:
            self._records = kept
            self._replace()

    def open(self) -> BinaryIO:
        """Open the file so that records can be appended.

        Raises:
            InvalidRequestError: it cannot be written.
        """
        try:
            return self._path.open("ab")
        except OSError as error:
            raise InvalidRequestError(
                f"{self._path} cannot be written: {error.strerror}.", "Name another file, or make its folder."
            ) from error

    def sort(self) -> None:
        """Bring the records into the order of the lines."""
        self._records = self._read()
        if list(self._records) != sorted(self._records):
            self._replace()

    def _read(self) -> dict[int, dict[str, Any]]:
        if not self._path.exists():
            return {}
        if not self._path.is_file():
            raise InvalidRequestError(
                f"{self._path} is no regular file.", "Leave --output out to have the answers on stdout."
            )
        lines = self._path.read_bytes().splitlines(keepends=True)
        records = {}
        for number, data in enumerate(lines, 1):
            try:
                record = json.loads(data)
                records[record["line"]] = record
                if not isinstance(record["line"], int) or not isinstance(record["hash"], str):
                    raise ValueError("a record of something else")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if number == len(lines) and number > 1 and not data.endswith(b"\n"):
                    break  # it was being written when the machine went down
                raise InvalidRequestError(
                    f"{self._path} holds something else than answers, in line {number}.", "Name another file."
                ) from error
        return records

    def _replace(self) -> None:
        """Write all records again, in order; a reader sees the old file or the new one, never a mixture."""
        lines = (_as_line(self._records[number]) for number in sorted(self._records))
        write_atomically(self._path, *lines, shared=True)
