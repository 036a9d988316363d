"""Files that are written whole or not at all: readers see the old content or the new, never a part.

Everything that this package writes to a file of its own or of the user's goes through here, but for three that go on
with what an earlier process left and so have a fixed name for it, under a lock: downloads (`models.hub.download`), the
store of embeddings, and a benchmark's reference logits.
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

_NAME_PART: Final = 40  # characters of the name that the temporary's begins with: names may be 255 bytes long


def write_atomically(path: Path, *parts: Buffer, shared: bool = False) -> None:
    """Write a file from parts, one after the other, whole or not at all. Arguments and errors as `atomic_file`'s."""
    with atomic_file(path, shared=shared) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part)


@contextmanager
def atomic_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` to write to: it becomes `path` if the block ends well, and is removed if not.

    It is on the disk before it takes the name. Only a killed process leaves its temporary file.

    Args:
        path: the file; a link is replaced, not followed.
        shared: whether it is a file that the user named for others to read: it keeps the permissions of the one it
            replaces, else has what the umask leaves, and its folder is there. If not, only its owner can read it, and
            the folder is made.

    Raises:
        OSError: the folder cannot be written, or has no room.
    """
    if not shared:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:_NAME_PART]}.{secrets.token_hex(4)}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if shared else 0o600))
    try:
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
