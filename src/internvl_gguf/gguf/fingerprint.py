"""Identity of a file by its content, remembered so that a large one is read once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from internvl_gguf.utils.records import FINGERPRINTS

_DIGEST_BYTES = 16
_REMEMBERED_FILES = 64


def remembered_fingerprint(path: Path) -> str | None:
    """The fingerprint of a file that was read before and has not changed since; None where that is not known."""
    try:
        return _remembered().get(_state(path))
    except OSError:
        return None


def file_fingerprint(path: Path) -> str:
    """BLAKE2b of a file's content, 32 hexadecimal digits.

    Remembered by path, size, modification time and inode. A cache that cannot be read or written costs time only.

    Raises:
        OSError: the file cannot be read.
    """
    known = _remembered()
    state = _state(path)
    if state in known:
        return known[state]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
    known[state] = digest
    FINGERPRINTS.write(dict(list(known.items())[-_REMEMBERED_FILES:]))
    return digest


def _state(path: Path) -> str:
    path = path.resolve()
    stat = path.stat()
    return f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"


def _remembered() -> dict[str, str]:
    content = FINGERPRINTS.read()
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)}
