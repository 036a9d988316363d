"""Fingerprints of files by their content, remembered so that a large file is read once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from internvl_gguf.utils.records import FINGERPRINTS

_DIGEST_BYTES = 16


def remembered_fingerprint(path: Path) -> str | None:
    """Return the fingerprint of a file that was read before and has not changed since; None if there is none."""
    try:
        return FINGERPRINTS.get(_state(path), _text)
    except OSError:
        return None


def file_fingerprint(path: Path) -> str:
    """Return the BLAKE2b digest of a file's content, 32 hexadecimal digits.

    Remembered by path, size, modification time and inode. A cache that cannot be read or written costs time only.

    Raises:
        OSError: the file cannot be read.
    """
    state = _state(path)
    known = FINGERPRINTS.get(state, _text)
    if known is not None:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
    FINGERPRINTS.put(state, digest)
    return digest


def _state(path: Path) -> str:
    path = path.resolve()
    stat = path.stat()
    return f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"


def _text(entry: Any) -> str:
    if not isinstance(entry, str):
        raise TypeError("no fingerprint")
    return entry
