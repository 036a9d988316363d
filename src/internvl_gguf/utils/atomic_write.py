"""Atomic writes: readers see the old content of a file or the new, never a part.

All files that this package writes go through here, with three exceptions, which continue the work of an earlier process
under a lock and so have fixed temporary names: downloads (`models.hub.download`), the store of embeddings, and a
benchmark's reference logits.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on

_NAME_PART: Final = 40  # characters of the file's name in the temporary name, which may have 255 bytes at most


def write_atomically(path: Path, *parts: Buffer, shared: bool = False) -> None:
    """Write a file atomically from parts, one after the other. For arguments and errors, see `atomic_file`."""
    with atomic_file(path, shared=shared) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part)


@contextmanager
def atomic_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces `path` if the block succeeds, and is removed if it fails.

    It is flushed to the disk before it gets the name. Only a killed process leaves its temporary file.

    Args:
        path: the file; a link is replaced, not followed.
        shared: True for a file that the user named: it keeps the permissions of the file it replaces, else those of the
            umask, and its folder must exist. False for the package's own files: only their owner can read them, and the
            folder is created.

    Raises:
        OSError: the folder cannot be written, or has no room.
    """
    if not shared:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:_NAME_PART]}.{secrets.token_hex(4)}")
    try:  # from the first instruction on: Ctrl-C comes at any
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if shared else 0o600))
        yield temporary
        if shared:
            with suppress(FileNotFoundError):
                temporary.chmod(path.stat().st_mode & 0o777)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
