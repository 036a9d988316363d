"""Embeddings of tiles on disk: a file for each, whole or not there, shared by processes, bounded by bytes.

A file is named by its tile's key and begins with a header: magic, version, rows, columns and a checksum over these, the
values and the key. Nothing of it is executed or trusted: what does not check is a miss, and is removed. Files are not
flushed to the disk one by one; what a power failure tears is found by its checksum.

Writers take turns by a lock file that the system frees when its holder dies. The one whose turn it is writes under a
name that is the same for all and renames the file when it is whole, so that crashes leave one part behind at most, and
the next writer overwrites that. Readers take no lock.

Why not `diskcache`: with a bound of 64 MiB it held 530 MiB after sixty writers had been killed, for it never counts the
files that they leave; docs/caches.md has the whole comparison.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from filelock import FileLock

if TYPE_CHECKING:
    from io import FileIO

    from numpy.typing import NDArray

_HEADER: Final = struct.Struct("<4sIII16s")  # magic, version, rows, columns, checksum; 32 bytes
_MAGIC: Final = b"IVTE"
_VERSION: Final = 1
_NAME: Final = re.compile(r"[0-9a-f]{32}\.tile")
_BLOCK: Final = 4096  # file systems give room in blocks: a small file takes one
_LOCK_SECONDS: Final = 5.0  # a turn takes milliseconds; who waits so long waits for a process that is stopped


@dataclass(frozen=True)
class StoredFile:
    """A file of the store.

    Attributes:
        used: when it was last read or written, in nanoseconds of the file system's clock.
        n_bytes: what it takes, whole blocks.
        path: where it is.
    """

    used: int
    n_bytes: int
    path: Path


class EmbeddingStore:
    """A folder of embeddings, the least recently used of which go first.

    Args:
        folder: made when something is written.
        max_bytes: what the files may take together, in whole blocks of 4 KiB; several stores on one folder may have
            different bounds, and each that writes holds its own.

    Attributes:
        folder, max_bytes: as given.

    One thread writes at a time; any may read.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS)
        self._partial = folder / ".partial"
        self._total = folder / ".total"
        self._has_counted = False

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """The embeddings of a tile, float32 [tokens_per_tile, n_embd], bit for bit as they were put.

        None where they are not here, cannot be read or are damaged; damaged ones are removed.

        Args:
            key: of 16 bytes.
        """
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                found = _read(file, key)
        except OSError:
            return None
        with contextlib.suppress(OSError):  # where nothing can be written, the order of use is not kept
            if found is None:
                path.unlink()
            else:
                os.utime(path)
        return found

    def put(self, key: bytes, embeddings: NDArray[np.float32]) -> None:
        """Keep the embeddings of a tile, unless they are here or larger than the whole store.

        Args:
            key: of 16 bytes.
            embeddings: C-contiguous float32 [tokens_per_tile, n_embd].

        Raises:
            OSError: the folder cannot be written, or another process has had the lock for five seconds.
        """
        size = _blocks(_HEADER.size + embeddings.nbytes)
        if size > self.max_bytes:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # pictures can be guessed from embeddings
        path = self._path(key)
        with self._lock:
            if path.exists() or not self._make_room(size):
                return
            try:
                with self._partial.open("wb", buffering=0) as file:
                    _write(file, key, embeddings)
                self._partial.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._partial.unlink(missing_ok=True)
                raise

    def files(self) -> Iterator[StoredFile]:
        """The entries, in no order; none where the folder is missing or cannot be read."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as listing:
            for item in listing:
                with contextlib.suppress(OSError):  # removed meanwhile
                    if _NAME.fullmatch(item.name) and item.is_file(follow_symlinks=False):
                        stat = item.stat()
                        yield StoredFile(stat.st_mtime_ns, _blocks(stat.st_size), Path(item.path))

    def clear(self) -> int:
        """Remove every entry; who reads one at that moment gets it whole.

        Returns:
            The bytes set free.

        Raises:
            OSError: the folder cannot be written, or another process has had the lock for five seconds.
        """
        if not self.folder.is_dir():
            return 0
        freed = 0
        with self._lock:
            self._total.unlink(missing_ok=True)
            self._partial.unlink(missing_ok=True)
            for file in self.files():
                file.path.unlink(missing_ok=True)
                freed += file.n_bytes
        return freed

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}.tile"

    def _make_room(self, size: int) -> bool:
        """Remove what was used least recently until there is room, and claim it; whether there is.

        All processes share one running total. It is written before the file it counts: who dies in between leaves it
        too large, never too small. The first time, and whenever the store is full, the files are counted anew.
        """
        total = self._running_total() if self._has_counted else None
        if total is None or total + size > self.max_bytes:
            total = self._count_and_evict(size)
        self._has_counted = True
        has_room = total + size <= self.max_bytes
        self._total.write_text(str(total + size if has_room else total), "ascii")
        return has_room

    def _running_total(self) -> int | None:
        try:
            return int(self._total.read_text("ascii"))
        except (OSError, ValueError):
            return None

    def _count_and_evict(self, size: int) -> int:
        """What the files take; where `size` more has no room, an eighth is freed at once, for counting costs time."""
        files = sorted(self.files(), key=lambda file: file.used)
        total = sum(file.n_bytes for file in files)
        if total + size <= self.max_bytes:
            return total
        goal = max(0, self.max_bytes - self.max_bytes // 8 - size)
        for file in files:
            if total <= goal:
                break
            with contextlib.suppress(OSError):  # open in another process, on Windows
                file.path.unlink(missing_ok=True)
                total -= file.n_bytes
        return total


def _blocks(n_bytes: int) -> int:
    return -(-n_bytes // _BLOCK) * _BLOCK


def _read(file: FileIO, key: bytes) -> NDArray[np.float32] | None:
    """The values of an open entry; None if it is not what was written under this key."""
    header = file.read(_HEADER.size)
    if len(header) != _HEADER.size:
        return None
    magic, version, rows, columns, checksum = _HEADER.unpack(header)
    n_bytes = 4 * rows * columns
    if (magic, version) != (_MAGIC, _VERSION) or not 0 < n_bytes == os.fstat(file.fileno()).st_size - _HEADER.size:
        return None
    embeddings = np.empty((rows, columns), dtype="<f4")
    rest = embeddings.data.cast("B")
    while rest:
        count = file.readinto(rest)
        if not count:
            return None
        rest = rest[count:]
    return embeddings if _checksum(key, embeddings) == checksum else None


def _write(file: FileIO, key: bytes, embeddings: NDArray[np.float32]) -> None:
    header = _HEADER.pack(_MAGIC, _VERSION, *embeddings.shape, _checksum(key, embeddings))
    for part in (memoryview(header), embeddings.data.cast("B")):
        rest = part
        while rest:
            rest = rest[file.write(rest) :]


def _checksum(key: bytes, embeddings: NDArray[np.float32]) -> bytes:
    """Over the key too, so that an entry under another's name is none."""
    digest = hashlib.blake2b(_HEADER.pack(_MAGIC, _VERSION, *embeddings.shape, b""), key=key, digest_size=16)
    digest.update(embeddings.data)
    return digest.digest()
