"""Results kept on disk under everything they depend on, so that adding a quant does not measure the others again.

There is one file for each part of each configuration (speed, memory, quality, a task), named by a digest of its key:
content of both model files, build of the library, version of this package, settings, and whatever else the part depends
on. It holds the full key and a checksum; if either does not match, the part is measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from internvl_gguf.bench.plain_json import as_plain, from_plain
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.atomic_write import write_atomically

_FORMAT: Final = 1
_DIGEST_BYTES: Final = 16
_Result = TypeVar("_Result")

Key = Mapping[str, Any]
"""Everything that a measurement depends on: strings, numbers, booleans and None by name."""


def digest_of(key: Key) -> str:
    """Return the digest of a key: 32 hexadecimal digits."""
    return _digest(json.dumps(as_plain(key), sort_keys=True))


class Store:
    """Results on disk.

    Args:
        folder: created when something is written.
        fresh: whether to read only the results that this object wrote.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self._folder = folder
        self._fresh = fresh
        self._written: set[Path] = set()

    def get(self, part: str, key: Key, kind: type[_Result]) -> _Result | None:
        """Return the result under a key; None if there is none, or it is damaged or of another format.

        Args:
            part: the part that was measured.
            key: everything it depends on.
            kind: the dataclass of the result.
        """
        path = self._path(part, key)
        if self._fresh and path not in self._written:
            return None
        try:
            kept = json.loads(path.read_bytes())
            if kept["format"] != _FORMAT or kept["key"] != as_plain(key) or kept["checksum"] != _checksum(kept):
                return None
            return from_plain(kind, kept["result"])
        except (OSError, ValueError, KeyError, TypeError, InvalidRequestError):
            return None

    def put(self, part: str, key: Key, result: Any) -> None:
        """Write a result.

        Raises:
            OSError: the folder cannot be written.
        """
        kept = {"format": _FORMAT, "part": part, "key": as_plain(key), "result": as_plain(result)}
        path = self._path(part, key)
        write_atomically(path, json.dumps({**kept, "checksum": _checksum(kept)}, indent=1).encode())
        self._written.add(path)

    def wrote(self, part: str, key: Key) -> bool:
        """Return whether this object wrote the result."""
        return self._path(part, key) in self._written

    def _path(self, part: str, key: Key) -> Path:
        return self._folder / f"{part}-{digest_of(key)}.json"


def _checksum(kept: Mapping[str, Any]) -> str:
    return _digest(json.dumps([kept["key"], kept["result"]], sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
