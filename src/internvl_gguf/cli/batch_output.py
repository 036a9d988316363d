"""The file that `internvl ask --batch --output` writes: answers of earlier runs are found again, and none is lost."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from internvl_gguf.cli.batch_lines import DIGEST_LENGTH, Line, as_line
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.atomic_write import write_atomically

_BEGINNING: Final = b'{"line": '
"""How each record begins: a broken line that begins so is one that was being written when the machine went down."""
_NO_FOLDER: Final = "Name another file, or make its folder."
_NO_FILE: Final = "Leave --output out to have the answers on stdout."

Record = dict[str, Any]


class Kept(NamedTuple):
    """The lines that earlier runs were asked.

    Attributes:
        answered: numbers of the lines whose answers stay.
        changed: number of lines that were answered with another model, with other options, or worded otherwise.
    """

    answered: frozenset[int]
    changed: int


class AnswerFile:
    """The records of an output file, held by one run at a time; see `hold_answers`.

    While a run goes on, records are only appended: a crash loses at most the one being written. `finish` brings them
    into the order of the lines; it writes a new file beside the old one and renames it. An older answer of a line is
    dropped only there, and only where the line has a newer record.

    Args:
        path: the file, which need not exist.

    Raises:
        InvalidRequestError: there is a file that holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records, self._whole_bytes = _read(path)

    def others(self, lines: Iterable[Line]) -> int:
        """Return the number of answers to lines that are not among these: neither the line is there nor its id."""
        known = _Known(lines)
        return sum("error" not in record and not known.has(record) for record in self._records)

    def kept(self, lines: Callable[[], Iterable[Line]], hash_of: Callable[[Line], str]) -> Kept:
        """Find the answers of lines, whatever their numbers were; a line that failed has none.

        Args:
            lines: gives the lines from the beginning.
            hash_of: returns the hash that the record of a line has.
        """
        found = self._arranged(lines, hash_of)
        answered = {number for number, (record, is_same) in found.items() if is_same}
        changed = sum(not is_same and "error" not in record for record, is_same in found.values())
        return Kept(frozenset(answered), changed)

    def open(self) -> BinaryIO:
        """Open the file so that whole records can be appended.

        Raises:
            InvalidRequestError: it cannot be written.
        """
        try:
            file = self._path.open("ab")
            file.truncate(self._whole_bytes)
            if self._whole_bytes and not self._ends_a_line():
                file.write(b"\n")
            return file
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _ends_a_line(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(self._whole_bytes - 1)
            return file.read(1) == b"\n"

    def finish(self, lines: Callable[[], Iterable[Line]], hash_of: Callable[[Line], str], *, drop_others: bool) -> None:
        """Bring the records into the order of the lines, with their numbers of today, one for each line.

        Args:
            lines, hash_of: as in `kept`.
            drop_others: whether answers to lines that are not there any more are dropped.
        """
        self._records, self._whole_bytes = _read(self._path)
        found = self._arranged(lines, hash_of)
        records = [{**found[number][0], "line": number} for number in sorted(found)]
        if not drop_others:
            known = _Known(lines())
            records += [record for record in self._records if "error" not in record and not known.has(record)]
        if records != self._records:
            write_atomically(self._path, *map(as_line, records), shared=True)
            self._records = records

    def _arranged(
        self, lines: Callable[[], Iterable[Line]], hash_of: Callable[[Line], str]
    ) -> dict[int, tuple[Record, bool]]:
        """Return for each line that has a record its best, and whether that answers just what is asked today.

        That is an answer with the line's hash; else the newest record of the line or of its id.
        """
        answers: defaultdict[str, deque[int]] = defaultdict(deque)
        similar: defaultdict[str, list[int]] = defaultdict(list)
        for place, record in enumerate(self._records):
            if "error" not in record:
                answers[record["hash"]].append(place)
            for key in _keys(record):
                similar[key].append(place)
        if not self._records:
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
        return {number: (self._records[place], is_same) for number, (place, is_same) in chosen.items()}


class _Known:
    """The keys of the lines of an input: their contents and their ids."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._keys = {key for line in lines for key in _keys_of(line)}

    def has(self, record: Record) -> bool:
        """Return whether a record belongs to one of the lines."""
        return not self._keys.isdisjoint(_keys(record))


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


def _keys(record: Record) -> list[str]:
    line = record["hash"][:DIGEST_LENGTH]
    return [line, _id_key(record["id"])] if "id" in record else [line]


def _keys_of(line: Line) -> list[str]:
    own = line.known_fields
    return [line.digest, _id_key(own["id"])] if "id" in own else [line.digest]


def _id_key(value: object) -> str:
    return f"id {json.dumps(value, sort_keys=True)}"


def _read(path: Path) -> tuple[list[Record], int]:
    """Return the records of a file, and how many of its bytes are whole records."""
    if not path.exists():
        return [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    records = []
    size = 0
    for number, data in enumerate(lines, 1):
        try:
            record = json.loads(data)
            if not isinstance(record["line"], int) or not isinstance(record["hash"], str):
                raise ValueError("a record of something else")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            is_cut = data.startswith(_BEGINNING) or _BEGINNING.startswith(data)
            if number == len(lines) and is_cut and not data.endswith(b"\n"):
                break
            raise InvalidRequestError(
                f"{path} holds something else than answers, in line {number}.", "Name another file."
            ) from error
        records.append(record)
        size += len(data)
    return records, size


def _unwritable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be written: {error.strerror}.", _NO_FOLDER)
