"""File of the reference's next-token distributions, written row by row by one configuration and read by the others.

The format, numbers little-endian:

    8 bytes   "IVLREFS" and a newline
    uint32    version of the format, 1
    uint32    bytes of the head
    head      JSON in UTF-8: what the rows belong to, see `ReferenceHead`
    32 bytes  BLAKE2b of everything before
    rows      see `packed_rows`
    index     JSON in UTF-8: a list of `ReferenceItem`
    trailer   uint64 rows, uint64 bytes of the index, 32 bytes BLAKE2b of both and the index, "IVLREFE" and a newline

The later checksums are keyed with the first one, and a row's checksum includes its number, so a row of another file or
in another place is found as damage, too. The file gets its final name only after the trailer is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from os import fsync
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from gguf import GGUFValueType

from internvl_gguf.bench.quality.packed_rows import PackedRow, ReferenceRow, row_bytes
from internvl_gguf.errors import BenchmarkError
from internvl_gguf.gguf.header import read_header
from internvl_gguf.utils.paths import free_bytes
from internvl_gguf.utils.sizes import format_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["write", "read"]
"""Role of a configuration in the comparison: the reference writes, the others read."""

_MAGIC: Final = b"IVLREFS\n"
_END: Final = b"IVLREFE\n"
_VERSION: Final = 1
_FIXED: Final = struct.Struct("<8sII")
_COUNTS: Final = struct.Struct("<QQ")
_DIGEST: Final = 32
_TRAILER: Final = _COUNTS.size + _DIGEST + len(_END)
_SPARE_BYTES: Final = 64 * 1024**2  # left free on the disk
_AGAIN: Final = "Measure the reference configuration again."


def vocabulary_digest(text_model: Path) -> str:
    """Return the identity of a text model's vocabulary: BLAKE2b of its tokens in the file, 32 hexadecimal digits.

    Raises:
        ModelFileError: the file cannot be read.
    """
    tokens = read_header(text_model).array("tokenizer.ggml.tokens", GGUFValueType.STRING)
    return hashlib.blake2b(tokens.data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class ReferenceHead:
    """The model and the set that reference logits belong to.

    Attributes:
        model: the configuration that wrote them: names and fingerprints of its files.
        n_vocab: tokens of its vocabulary.
        vocabulary: its `vocabulary_digest`.
        set_name: description of the scored set.
        set_digest: digest of the set's content.
    """

    model: dict[str, str]
    n_vocab: int
    vocabulary: str
    set_name: str
    set_digest: str


@dataclass(frozen=True)
class ReferenceItem:
    """One scored item: a chunk of text, or an answer.

    Attributes:
        number: its place in the set, from 0.
        positions: positions of the prompt before its tokens.
        tokens: the scored tokens; empty if the item was skipped.
        first_row: row of the first token.
        skipped: why the item was skipped; "" otherwise.
    """

    number: int
    positions: int
    tokens: tuple[int, ...]
    first_row: int
    skipped: str = ""


class ReferenceWriter:
    """Writes reference logits. Use it in a `with` statement: the file appears only if that ends without an error.

    Args:
        path: of the file; its folder is created.
        head: the model and the set.
        rows: number of rows that will be written, to check the room on the disk beforehand.

    Raises:
        BenchmarkError: the file cannot be written, or there is no room for it.
    """

    def __init__(self, path: Path, head: ReferenceHead, rows: int) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.part")
        self._items: list[ReferenceItem] = []
        self._rows = 0
        start, self._key = _start(head)
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.unlink(missing_ok=True)
            _check_room(path, rows * row_bytes(head.n_vocab))
            self._file = self._partial.open("wb")
            self._file.write(start + self._key)

    def begin(self, number: int, positions: int, tokens: Sequence[int]) -> None:
        """Begin an item: the next rows belong to it; see `ReferenceItem`."""
        self._check_rows()
        self._items.append(ReferenceItem(number, positions, tuple(tokens), self._rows))

    def skip(self, number: int, reason: str) -> None:
        """Record that an item cannot be scored, so that readers skip it."""
        self._check_rows()
        self._items.append(ReferenceItem(number, 0, (), self._rows, reason))

    def exchange(self, log_probs: NDArray[np.float64]) -> ReferenceRow:
        """Write the next row.

        Args:
            log_probs: natural-log probabilities, float64 [n_vocab].

        Returns:
            The row as readers will read it, rounded.

        Raises:
            BenchmarkError: the file cannot be written.
        """
        row = PackedRow.of(log_probs)
        with _writing(self._path):
            row.write(self._file.write, self._key, self._rows)
        self._rows += 1
        return row.unpacked()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
                self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._check_rows()
        index = json.dumps([asdict(item) for item in self._items], ensure_ascii=False).encode()
        counts = _COUNTS.pack(self._rows, len(index))
        with _writing(self._path):
            self._file.write(index + counts + _digest(counts + index, self._key) + _END)
            self._file.flush()
            fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self._path)

    def _check_rows(self) -> None:
        last = self._items[-1] if self._items else None
        if last and last.first_row + len(last.tokens) != self._rows:
            raise ValueError(f"item {last.number} has {len(last.tokens)} tokens; {self._rows} rows were written")


class ReferenceReader:
    """Reads reference logits. Use it in a `with` statement.

    Args:
        path: of the file.
        head: the vocabulary and the set that it must belong to; any model may have written it.

    Attributes:
        items: scored items by their place in the set.

    Raises:
        BenchmarkError: there is no such file, it is damaged or cut, or of another vocabulary or set.
    """

    def __init__(self, path: Path, head: ReferenceHead) -> None:
        self._path = path
        self._next = 0
        with _reading(path), contextlib.ExitStack() as opening:
            self._file = opening.enter_context(path.open("rb"))
            written = self._read_head()
            _check_head(path, written, head)
            self._buffer = memoryview(bytearray(row_bytes(written.n_vocab)))
            self._first = self._file.tell()
            self.items = self._read_index()
            opening.pop_all()

    def begin(self, number: int, positions: int, tokens: Sequence[int]) -> None:
        """Begin an item: the next rows belong to it; see `ReferenceItem`.

        Raises:
            BenchmarkError: the reference scored other tokens, or after another prompt.
        """
        item = self.items.get(number)
        if item is None or item.positions != positions or item.tokens != tuple(tokens):
            raise BenchmarkError(
                f"Item {number + 1} comes to other tokens or tiles here than in the reference {self._path}.",
                "Compare quants of one model, with one tile limit and one version of llama.cpp.",
            )
        self._next = item.first_row
        self._file.seek(self._first + self._next * len(self._buffer))

    def exchange(self, log_probs: NDArray[np.float64]) -> ReferenceRow:
        """Read the next row.

        Args:
            log_probs: of the configuration being measured; a reader ignores them.

        Raises:
            BenchmarkError: the row is damaged or cannot be read.
        """
        with _reading(self._path):
            self._file.readinto(self._buffer)
            row = PackedRow.read(self._buffer, self._key, self._next)
        self._next += 1
        return row.unpacked()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _read_head(self) -> ReferenceHead:
        fixed = self._file.read(_FIXED.size)
        magic, version, length = _FIXED.unpack(fixed)
        if magic != _MAGIC:
            raise BenchmarkError(f"{self._path} holds no reference logits.", _AGAIN)
        if length > self._path.stat().st_size:
            raise _damaged(self._path, "its head is longer than the file")
        text = self._file.read(length)
        self._key = self._file.read(_DIGEST)
        if hashlib.blake2b(fixed + text, digest_size=_DIGEST).digest() != self._key:
            raise _damaged(self._path, "the checksum of its head does not hold")
        if version != _VERSION:  # not damage, since the checksum is right
            raise BenchmarkError(
                f"{self._path} is of format {version}; this version of the package reads {_VERSION}.", _AGAIN
            )
        fields: dict[str, Any] = json.loads(text)
        return ReferenceHead(**fields)

    def _read_index(self) -> dict[int, ReferenceItem]:
        """Read the items of the index; the rest of this class seeks before it reads."""
        size = self._file.seek(0, 2)
        self._file.seek(max(0, size - _TRAILER))
        trailer = self._file.read()
        counts, digest, end = trailer[: _COUNTS.size], trailer[_COUNTS.size : -len(_END)], trailer[-len(_END) :]
        rows, length = _COUNTS.unpack(counts)
        start = self._first + rows * len(self._buffer)
        if end != _END or start + length + _TRAILER != size:
            raise _damaged(self._path, "it is cut off or goes on behind its end")
        self._file.seek(start)
        index = self._file.read(length)
        if _digest(counts + index, self._key) != digest:
            raise _damaged(self._path, "the checksum of its index does not hold")
        items = [ReferenceItem(**{**item, "tokens": tuple(item["tokens"])}) for item in json.loads(index)]
        return {item.number: item for item in items}


def _start(head: ReferenceHead) -> tuple[bytes, bytes]:
    """Return the first bytes of a file, and their checksum."""
    text = json.dumps(asdict(head), ensure_ascii=False).encode()
    start = _FIXED.pack(_MAGIC, _VERSION, len(text)) + text
    return start, hashlib.blake2b(start, digest_size=_DIGEST).digest()


def _digest(data: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=_DIGEST).digest()


def _check_head(path: Path, written: ReferenceHead, wanted: ReferenceHead) -> None:
    if (written.n_vocab, written.vocabulary) != (wanted.n_vocab, wanted.vocabulary):
        raise BenchmarkError(
            f"The reference {written.model['text']} has another vocabulary than {wanted.model['text']}.",
            "Compare quants of one model only.",
        )
    if written.set_digest != wanted.set_digest:
        raise BenchmarkError(
            f"The reference logits {path} are of {written.set_name}, not of {wanted.set_name} as it is now.", _AGAIN
        )


def _check_room(path: Path, needed: int) -> None:
    free = free_bytes(path)
    if free is not None and needed + _SPARE_BYTES > free:
        raise BenchmarkError(
            f"The reference logits take {format_size(needed)}; {path.parent} has room for {format_size(free)}.",
            "Free some space, or score a shorter text and fewer pictures.",
        )


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BenchmarkError(
            f"The reference logits {path} cannot be written: {error.strerror or error}.",
            "Free some space, or set INTERNVL_CACHE to another folder.",
        ) from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BenchmarkError(
            f"The reference logits {path} cannot be read: {error.strerror or error}.",
            "Measure the reference configuration first.",
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise _damaged(path, "its parts do not belong together") from error


def _damaged(path: Path, what: str) -> BenchmarkError:
    return BenchmarkError(f"The reference logits {path} are damaged: {what}.", _AGAIN)
