"""Identity of a file by its content, remembered so that a large one is read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from internvl_gguf.paths import cache_dir, write_atomically

_DIGEST_BYTES = 16
_REMEMBERED_FILES = 64


def file_fingerprint(path: Path) -> str:
    """BLAKE2b of a file's content, 32 hexadecimal digits.

    Remembered by path, size, modification time and inode. A cache that cannot be read or written costs time only.

    Raises:
        OSError: the file cannot be read.
    """
    path = path.resolve()
    stat = path.stat()
    state = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    record = cache_dir() / "fingerprints.json"
    known = _read(record)
    if state in known:
        return known[state]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
    known[state] = digest
    newest = dict(list(known.items())[-_REMEMBERED_FILES:])
    with contextlib.suppress(OSError):
        write_atomically(record, json.dumps(newest, indent=1).encode())
    return digest


def _read(record: Path) -> dict[str, str]:
    try:
        content = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)}
