"""The picture files of the history: the original bytes, each stored once, named by content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from internvl_gguf.utils.atomic_write import write_atomically

_DIGEST_BYTES: Final = 16
_NAME: Final = re.compile(r"[0-9a-f]{32}")


def digest_of(data: bytes) -> str:
    """Return the digest that names a picture's bytes: BLAKE2b-128, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def missing_picture_notice(name: str) -> str:
    """Return the notice about a picture that is missing from the history."""
    return f"{name} is not in the history any more: the conversation goes on without it."


class PictureFiles:
    """A folder of pictures, or only memory.

    Added pictures stay in memory until they are written. Files are written inside a transaction of the database, so
    that no other process removes them as unused in between.

    Args:
        folder: created by the first write; None keeps everything in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._pending: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        """Add the bytes of a picture's file; return their digest."""
        digest = digest_of(data)
        self._pending[digest] = data
        return digest

    def get(self, digest: str) -> bytes | None:
        """Return the bytes of a picture; None if the file is missing or changed."""
        if digest in self._pending:
            return self._pending[digest]
        path = self._path(digest)
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError:
            return None
        return data if digest_of(data) == digest else None

    def write(self, digests: Collection[str]) -> None:
        """Write those of these pictures whose files do not exist yet.

        Raises:
            OSError: the folder cannot be written.
        """
        for digest in digests:
            path, data = self._path(digest), self._pending.get(digest)
            if path is None or data is None or (path.is_file() and path.stat().st_size == len(data)):
                continue
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, data)

    def settle(self, digests: Collection[str]) -> None:
        """Drop these pictures from memory: the messages that show them are written."""
        if self._folder is not None:
            for digest in digests:
                self._pending.pop(digest, None)

    def sweep(self, shown: Collection[str]) -> None:
        """Remove the files that no message shows, and the leftovers of interrupted writes."""
        for path in self._files():
            if path.name not in shown:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def size(self) -> tuple[int, int]:
        """Return the number of files and their bytes."""
        sizes = []
        for path in self._files():
            with contextlib.suppress(OSError):
                sizes.append(path.stat().st_size)
        return len(sizes), sum(sizes)

    def _path(self, digest: str) -> Path | None:
        return self._folder / digest if self._folder is not None and _NAME.fullmatch(digest) else None

    def _files(self) -> Iterator[Path]:
        if self._folder is None:
            return
        with contextlib.suppress(OSError), os.scandir(self._folder) as listing:
            for item in listing:
                if _NAME.match(item.name.lstrip(".")) and item.is_file(follow_symlinks=False):
                    yield Path(item.path)
