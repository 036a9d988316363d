"""The on-disk store of tile embeddings: one file per tile, written atomically, shared by processes, bounded in bytes.

A file is named by its tile's key and begins with a header: magic, version, rows, columns and a checksum over these, the
values and the key. Its content is never executed or trusted: an entry that fails the checks is a miss, and is removed.
Files are not flushed to the disk one by one; the checksum finds entries that a power failure has damaged.

Writers share a lock file that the system releases when its holder dies. The holder writes under a temporary name that
is the same for all and renames the file when it is complete, so that crashes leave at most one partial file, which the
next writer overwrites. Readers take no lock.

Why not `diskcache`: with a bound of 64 MiB it held 530 MiB after sixty writers had been killed, because it never counts
the files that they leave; docs/caches.md has the whole comparison.
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
_BLOCK: Final = 4096  # file systems allocate whole blocks: a small file takes one
_LOCK_SECONDS: Final = 5.0  # a write takes milliseconds: after so long the holder of the lock must be a stopped process


@dataclass(frozen=True)
class StoredFile:
    """A file of the store.

    Attributes:
        used: time of the last read or write, in nanoseconds of the file system's clock.
        n_bytes: bytes on disk, in whole blocks.
        path: path of the file.
    """

    used: int
    n_bytes: int
    path: Path


class EmbeddingStore:
    """A folder of embeddings; the least recently used are removed first.

    Args:
        folder: created by the first write.
        max_bytes: most bytes of all files together, in whole blocks of 4 KiB; several stores on one folder may have
            different bounds, and each enforces its own when it writes.

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
        """Return the embeddings of a tile, float32 [tokens_per_tile, n_embd], bit for bit as they were put.

        None if they are missing, unreadable or damaged; damaged ones are removed.

        Args:
            key: key of the tile, 16 bytes.
        """
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                found = _read(file, key)
        except OSError:
            return None
        if found is not None:
            _mark_used(path)
            return found
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def put(self, key: bytes, embeddings: NDArray[np.float32], *, evicts: bool = True) -> bool:
        """Write the embeddings of a tile, unless they are larger than the whole store.

        Args:
            key: key of the tile, 16 bytes.
            embeddings: C-contiguous float32 [tokens_per_tile, n_embd].
            evicts: whether other entries are removed where there is no room. Without that the entry is written only
                into free room, and counts as used longest ago until it is read: it is the first to go.

        Returns:
            Whether they are stored now.

        Raises:
            OSError: the folder cannot be written, or another process has had the lock for five seconds.
        """
        size = _blocks(_HEADER.size + embeddings.nbytes)
        if size > self.max_bytes:
            return False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # pictures can be guessed from embeddings
        path = self._path(key)
        with self._lock:
            if path.exists():
                if evicts:
                    _mark_used(path)
                return True
            if not self._make_room(size, evicts):
                return False
            try:
                with self._partial.open("wb", buffering=0) as file:
                    _write(file, key, embeddings)
                if not evicts:
                    _mark_used(self._partial, (0, 0))
                self._partial.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._partial.unlink(missing_ok=True)
                raise
        return True

    def files(self) -> Iterator[StoredFile]:
        """Yield the entries, unordered; none if the folder is missing or cannot be read."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as listing:
            for item in listing:
                with contextlib.suppress(OSError):  # removed meanwhile
                    if _NAME.fullmatch(item.name) and item.is_file(follow_symlinks=False):
                        stat = item.stat()
                        yield StoredFile(stat.st_mtime_ns, _blocks(stat.st_size), Path(item.path))

    def clear(self) -> int:
        """Remove every entry; a reader of an entry at that moment still gets it whole.

        Returns:
            Number of bytes freed.

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

    def _make_room(self, size: int, evicts: bool) -> bool:
        """Reserve `size` bytes if they fit, after removing the least recently used entries if `evicts`; return whether.

        All processes share one running total. It is written before the file it counts: a process that dies in between
        leaves it too large, never too small. The files are counted again on the first write and whenever the store is
        full and room is to be made.
        """
        total = self._running_total() if self._has_counted else None
        if total is None or (evicts and total + size > self.max_bytes):
            total = self._count_and_evict(size, evicts)
        self._has_counted = True
        has_room = total + size <= self.max_bytes
        if has_room or evicts:
            self._total.write_text(str(total + size if has_room else total), "ascii")
        return has_room

    def _running_total(self) -> int | None:
        try:
            return int(self._total.read_text("ascii"))
        except (OSError, ValueError):
            return None

    def _count_and_evict(self, size: int, evicts: bool) -> int:
        """Return the bytes of all files; if `size` more do not fit, free an eighth at once, as counting costs time."""
        files = sorted(self.files(), key=lambda file: file.used)
        total = sum(file.n_bytes for file in files)
        if total + size <= self.max_bytes or not evicts:
            return total
        goal = max(0, self.max_bytes - self.max_bytes // 8 - size)
        for file in files:
            if total <= goal:
                break
            with contextlib.suppress(OSError):  # open in another process, on Windows
                file.path.unlink(missing_ok=True)
                total -= file.n_bytes
        return total


def _mark_used(path: Path, times: tuple[int, int] | None = None) -> None:
    """Set the time of the last use, now by default; in a read-only folder the order of use is not kept."""
    with contextlib.suppress(OSError):
        os.utime(path, times)


def _blocks(n_bytes: int) -> int:
    return -(-n_bytes // _BLOCK) * _BLOCK


def _read(file: FileIO, key: bytes) -> NDArray[np.float32] | None:
    """Return the values of an open entry; None if it is not what was written under this key."""
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
    """Return the checksum of an entry, its key included: an entry under another tile's name is not accepted."""
    digest = hashlib.blake2b(_HEADER.pack(_MAGIC, _VERSION, *embeddings.shape, b""), key=key, digest_size=16)
    digest.update(embeddings.data)
    return digest.digest()
