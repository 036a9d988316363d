"""The file of answers of a batch: those of earlier runs are found again, and none is lost."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from internvl_gguf.bulk.lines import DIGEST_LENGTH, Line
from internvl_gguf.bulk.records import as_line
from internvl_gguf.bulk.tables import TABLE_SUFFIXES, write_table
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.atomic_write import atomic_file

_BEGINNING: Final = b'{"line": '
"""How each record begins: a broken line that begins so is one that was being written when the machine went down."""
_NO_FOLDER: Final = "Name another file, or make its folder."
_NO_FILE: Final = "Leave --output out to have the answers on stdout."
_NO_ROOM: Final = "Make room for it; the same command goes on with the rest."

Record = dict[str, Any]


class Kept(NamedTuple):
    """The lines that earlier runs were asked.

    Attributes:
        answered: numbers of the lines whose answers stay.
        changed: numbers of those that were answered with another model, with other options, or worded otherwise.
        at_limit: numbers of those of `answered` whose answer ended at its limit of tokens.
    """

    answered: frozenset[int]
    changed: frozenset[int] = frozenset()
    at_limit: frozenset[int] = frozenset()


class _Entry(NamedTuple):
    """The part of a record that is kept in memory.

    Attributes:
        offset, size: where it stands in the file, in bytes.
        line: number of its line.
        hash: as `Common.hash_of` gives it.
        id_key: of its id; None if it has none.
        is_error: whether it has no answer.
        is_at_limit: whether its answer ended at its limit of tokens.
    """

    offset: int
    size: int
    line: int
    hash: str
    id_key: str | None
    is_error: bool
    is_at_limit: bool

    @property
    def keys(self) -> list[str]:
        """The keys by which the record is found if its line was changed."""
        line = self.hash[:DIGEST_LENGTH]
        return [line] if self.id_key is None else [line, self.id_key]


class AnswerFile:
    """The records of an output, held by one run at a time; see `hold_answers`.

    While a run goes on, records are only appended: a crash loses at most the one being written. `finish` brings them
    into the order of the lines; it writes a new file beside the old one and renames it. An older answer of a line is
    dropped only there, and only where the line has a newer record.

    The records of a table (`answers.csv`) stand beside it (`answers.csv.jsonl`); it is written from them when a run
    ends.

    Args:
        output: the file, which need not exist.

    Raises:
        InvalidRequestError: there is a file that holds something else.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._is_table = output.suffix.lower() in TABLE_SUFFIXES
        self._path = records_path(output)
        if self._is_table and output.exists() and output.stat().st_size and not self._path.exists():
            raise InvalidRequestError(
                f"{output} holds something else than answers: {self._path.name} with their records is not beside it.",
                "Name another file.",
            )
        self._entries, self._whole_bytes = _read(self._path)
        self._chosen: dict[int, _Entry] = {}
        self._is_broken = False

    def others(self, lines: Iterable[Line]) -> int:
        """Return the number of answers to lines that are not among these: neither the line is there nor its id."""
        known = _Known(lines)
        return sum(not entry.is_error and not known.has(entry) for entry in self._entries)

    def kept(self, lines: Callable[[], Iterable[Line]], hash_of: Callable[[Line], str]) -> Kept:
        """Find the answers of lines, whatever their numbers were; a line that failed has none.

        Args:
            lines: gives the lines from the beginning.
            hash_of: returns the hash that the record of a line has.
        """
        found = self._arranged(lines, hash_of)
        self._chosen = {number: entry for number, (entry, is_same) in found.items() if is_same}
        changed = {number for number, (entry, is_same) in found.items() if not is_same and not entry.is_error}
        at_limit = {number for number, entry in self._chosen.items() if entry.is_at_limit}
        return Kept(frozenset(self._chosen), frozenset(changed), frozenset(at_limit))

    @property
    def size(self) -> int:
        """Bytes of whole records: where the next one will begin."""
        return self._whole_bytes

    def offset(self, number: int) -> int:
        """Return where the record of a line begins that `kept` found answered, in bytes."""
        return self._chosen[number].offset

    def record_at(self, offset: int) -> Record:
        """Return the record that begins at a byte of the file."""
        with self._path.open("rb") as file:
            file.seek(offset)
            record: Record = json.loads(file.readline())
            return record

    @contextlib.contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """Open the file and yield what appends a whole record. A new file in which nothing was written is removed.

        Raises:
            InvalidRequestError: it cannot be written; also where a record is appended: then nothing else is.
        """
        is_new = not self._path.exists()
        try:
            with self._path.open("ab", buffering=0) as file:
                file.truncate(self._whole_bytes)
                if self._whole_bytes and not self._ends_a_line():
                    self._append(file, b"\n")
                yield lambda data: self._append(file, data)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        finally:
            with contextlib.suppress(OSError):
                if is_new and not self._path.stat().st_size:
                    self._path.unlink()

    def _append(self, file: Any, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            self._is_broken = True
            with contextlib.suppress(OSError):
                file.truncate(self._whole_bytes)
            raise _unwritable(self._path, error, _NO_ROOM) from error
        self._whole_bytes += len(data)

    def _ends_a_line(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(self._whole_bytes - 1)
            return file.read(1) == b"\n"

    def finish(self, lines: Callable[[], Iterable[Line]], hash_of: Callable[[Line], str], *, drop_others: bool) -> None:
        """Bring the records into the order of the lines, with their numbers of today, one for each line.

        Args:
            lines, hash_of: as in `kept`.
            drop_others: whether answers to lines that are not there any more are dropped.

        Raises:
            InvalidRequestError: there is no room; nothing is lost.
        """
        if self._is_broken:
            return
        self._entries, self._whole_bytes = _read(self._path)
        found = self._arranged(lines, hash_of)
        ordered = [(number, found[number][0]) for number in sorted(found)]
        if not drop_others:
            known = _Known(lines())
            ordered += [(entry.line, entry) for entry in self._entries if not entry.is_error and not known.has(entry)]
        try:
            if ordered != [(entry.line, entry) for entry in self._entries]:
                self._rewrite(ordered)
            self.write_table()
        except OSError as error:
            raise InvalidRequestError(
                f"{self._output} has all answers so far, but could not be put in order: {error.strerror}.", _NO_ROOM
            ) from error

    def _rewrite(self, ordered: list[tuple[int, _Entry]]) -> None:
        with (
            atomic_file(self._path, shared=True) as temporary,
            self._path.open("rb") as old,
            temporary.open("wb") as new,
        ):
            for number, entry in ordered:
                record = _record_at(old, entry)
                new.write(as_line({**record, "line": number}))

    def write_table(self) -> None:
        """Write the table of the records, if the output is one and they are newer.

        Raises:
            OSError: it cannot be written.
        """
        if not self._is_table or not self._path.exists():
            return
        if self._output.exists() and self._output.stat().st_mtime_ns >= self._path.stat().st_mtime_ns:
            return
        with atomic_file(self._output, shared=True) as temporary:
            write_table(temporary, self._output.suffix.lower(), self._records)

    def _records(self) -> Iterator[Record]:
        with self._path.open("rb") as file:
            for data in file:
                yield json.loads(data)

    def _arranged(
        self, lines: Callable[[], Iterable[Line]], hash_of: Callable[[Line], str]
    ) -> dict[int, tuple[_Entry, bool]]:
        """Return for each line that has a record its best, and whether that answers just what is asked today.

        That is an answer with the line's hash; else the newest record of the line or of its id.
        """
        answers: defaultdict[str, deque[int]] = defaultdict(deque)
        similar: defaultdict[str, list[int]] = defaultdict(list)
        for place, entry in enumerate(self._entries):
            if not entry.is_error:
                answers[entry.hash].append(place)
            for key in entry.keys:
                similar[key].append(place)
        if not self._entries:
            return {}
        chosen: dict[int, tuple[int, bool]] = {}
        for line in lines():  # first the answers that fit, so that a line with the same id takes none of them away
            if same := answers.get(hash_of(line)):
                chosen[line.number] = same.popleft(), True
        taken = {place for place, _ in chosen.values()}
        for line in lines():
            if line.number in chosen:
                continue
            free = [place for key in _keys_of(line) for place in similar.get(key, ()) if place not in taken]
            if free:
                chosen[line.number] = max(free), False
                taken.add(max(free))
        return {number: (self._entries[place], is_same) for number, (place, is_same) in chosen.items()}


def records_path(output: Path) -> Path:
    """Return the file of the records of an output: that itself, or the one beside a table."""
    return output.with_name(f"{output.name}.jsonl") if output.suffix.lower() in TABLE_SUFFIXES else output


class _Known:
    """The keys of the lines of an input: their contents and their ids."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._keys = {key for line in lines for key in _keys_of(line)}

    def has(self, entry: _Entry) -> bool:
        """Return whether a record belongs to one of the lines."""
        return not self._keys.isdisjoint(entry.keys)


@contextlib.contextmanager
def hold_answers(path: Path) -> Iterator[AnswerFile]:
    """Hold the output file of a batch, so that no second run writes into it meanwhile.

    The system frees the lock when the process ends, however it ends.

    Raises:
        InvalidRequestError: another run holds it, or it cannot be written or holds something else.
    """
    from filelock import FileLock, Timeout

    if path.exists() and not path.is_file():
        raise InvalidRequestError(f"{path} is no regular file.", _NO_FILE)
    if not path.parent.is_dir():
        raise InvalidRequestError(f"{path} cannot be written: there is no folder {path.parent}.", _NO_FOLDER)
    beside = path.with_name(f".{path.name}.lock")
    lock = FileLock(beside)
    try:
        beside.touch()  # where it cannot be made, filelock waits for one who holds it
        with contextlib.suppress(NotImplementedError):  # a file system without locks
            lock.acquire(timeout=0)
            while not beside.exists():  # its holder removed it at the same moment
                lock.release()
                lock.acquire(timeout=0)
    except Timeout:
        raise InvalidRequestError(
            f"Another run is writing {path} at this moment.", "Wait until it ends, or name another file with --output."
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield AnswerFile(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
        lock.release()


def _keys_of(line: Line) -> list[str]:
    own = line.known_fields
    return [line.digest, _id_key(own["id"])] if "id" in own else [line.digest]


def _id_key(value: object) -> str:
    return f"id {json.dumps(value, sort_keys=True)}"


def _record_at(file: Any, entry: _Entry) -> Record:
    file.seek(entry.offset)
    record: Record = json.loads(file.read(entry.size))
    return record


def _read(path: Path) -> tuple[list[_Entry], int]:
    """Return the records of a file, and how many of its bytes are whole records."""
    if not path.exists():
        return [], 0
    entries = []
    size, end = 0, path.stat().st_size
    with path.open("rb") as file:
        for number, data in enumerate(file, 1):
            try:
                entries.append(_entry(json.loads(data), size, len(data)))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                is_cut = data.startswith(_BEGINNING) or _BEGINNING.startswith(data)
                if size + len(data) >= end and is_cut and not data.endswith(b"\n"):
                    break
                raise InvalidRequestError(
                    f"{path} holds something else than answers, in line {number}.", "Name another file."
                ) from error
            size += len(data)
    return entries, size


def _entry(record: Any, offset: int, size: int) -> _Entry:
    number, digest = record["line"], record["hash"]
    if not isinstance(number, int) or not isinstance(digest, str):
        raise ValueError("a record of something else")
    id_key = _id_key(record["id"]) if "id" in record else None
    is_at_limit = record.get("finish_reason") == "length"
    return _Entry(offset, size, number, digest, id_key, "error" in record, is_at_limit)


def _unwritable(path: Path, error: OSError, hint: str = _NO_FOLDER) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be written: {error.strerror}.", hint)
