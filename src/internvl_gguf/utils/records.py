"""Contents of the cache folder: each record and folder is declared here, once.

Nothing else writes there (a test checks that), so that `internvl cache` shows and clears all of it. All of it can be
computed again. To keep something more, declare it in `RECORDS` or `FOLDERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from internvl_gguf.utils.atomic_write import write_atomically
from internvl_gguf.utils.paths import cache_dir

_LOCK: Final = ".lock"  # one lock for all records, since each write is short
_LOCK_SECONDS: Final = 5.0  # after that, the other writer hangs, or the file system has no locks
# Errors of code that reads a damaged entry.
_DAMAGE: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError)
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Record:
    """A JSON file of measured or computed facts, each under a key of everything it depends on.

    Several machines may share the file: an entry is used under its own key only, and a writer keeps other entries.
    Another version of this package, another program or a user may have written it: damaged entries and files of another
    version are ignored, and their facts are measured again.

    Attributes:
        name: its file name.
        purpose: its contents, in a few words.
        version: version of its entries' format.
        most_entries: number of entries that are kept, the newest ones.
    """

    name: str
    purpose: str
    version: int = 1
    most_entries: int = 16

    @property
    def path(self) -> Path:
        """Its path, which need not exist."""
        return cache_dir() / self.name

    def get(self, key: str, read: Callable[[Any], _Read]) -> _Read | None:
        """Return the entry of a key, converted by `read`; None if there is none, or `read` cannot convert it.

        Args:
            key: key of the entry.
            read: converts the JSON value; may raise ValueError, KeyError, TypeError, AttributeError, IndexError or
                ArithmeticError for a damaged entry.
        """
        return _entry(self._entries(), key, read)

    def put(self, key: str, value: Any) -> OSError | None:
        """Write a JSON value as the entry of a key; other entries stay.

        Returns:
            The error if it could not be written, so that the next process has to measure again; None on success.
        """
        return self.merge(key, lambda entry: entry, lambda before: value)

    def merge(self, key: str, read: Callable[[Any], _Read], merged: Callable[[_Read | None], Any]) -> OSError | None:
        """Replace the entry of a key by a value computed from it; no other process writes meanwhile.

        Args:
            key: key of the entry.
            read: see `get`.
            merged: computes the JSON value to write from the previous entry, or None if there was none.

        Returns:
            See `put`.
        """
        from filelock import FileLock, Timeout  # only now: every command reads records, few write one

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as locked:
                with suppress(Timeout, NotImplementedError):
                    locked.enter_context(FileLock(self.path.with_name(_LOCK), timeout=_LOCK_SECONDS))
                entries = self._entries()
                value = merged(_entry(entries, key, read))
                entries.pop(key, None)
                newest = dict([*entries.items(), (key, value)][-self.most_entries :])
                write_atomically(self.path, json.dumps({"version": self.version, "entries": newest}).encode())
        except OSError as error:
            return error
        return None

    def _entries(self) -> dict[str, Any]:
        """The entries by key, the newest last."""
        with suppress(OSError, RecursionError, *_DAMAGE):
            kept = json.loads(self.path.read_bytes())
            if kept["version"] == self.version and isinstance(kept["entries"], dict):
                return dict(kept["entries"])
        return {}

    def files(self) -> Iterator[Path]:
        """Return its file, and temporary files that killed processes left."""
        yield self.path
        with suppress(OSError):
            yield from cache_dir().glob(f".{self.name}.*")


@dataclass(frozen=True)
class Folder:
    """A folder of files whose names are digests of everything they depend on.

    Attributes:
        name: its name.
        purpose: its contents, in a few words.
    """

    name: str
    purpose: str

    @property
    def path(self) -> Path:
        """Its path, which need not exist."""
        return cache_dir() / self.name

    def files(self) -> Iterator[Path]:
        """Return all files in it and its subfolders; none if it is missing or cannot be read."""
        with suppress(OSError):
            yield from self.path.rglob("*")


EMBEDDINGS: Final = Folder("embeddings", "pictures as the model sees them")
CORRECTED_ENCODERS: Final = Folder("mmproj", "corrected vision encoders")
HEADERS: Final = Folder("headers", "file headers from the hub")
COMPILED_ENCODERS: Final = Folder("openvino", "vision encoders compiled for this machine")
BENCHMARKS: Final = Folder("bench", "results of benchmarks")
RPC_WEIGHTS: Final = Folder("rpc", "weights that `internvl rpc-server` keeps")

ENCODER_SPEED: Final = Record("encoder-speed.json", "speed of the vision encoder by precision")
FINGERPRINTS: Final = Record("fingerprints.json", "contents of files already read", most_entries=64)
ROOFLINE: Final = Record("roofline.json", "speed of this machine")
RPC_PROTOCOL: Final = Record("rpc-protocol.json", "version of llama.cpp's RPC that is installed")
SAID_ONCE: Final = Record("said-once.json", "what was said and is not said again")
TRIAL: Final = Record("trial.json", "parts of llama.cpp that work on this machine")
TUNING: Final = Record("tuning.json", "threads and batches that suit this machine")
WORKERS: Final = Record("workers.json", "numbers of worker processes that suit models on this machine")

FOLDERS: Final = (EMBEDDINGS, CORRECTED_ENCODERS, COMPILED_ENCODERS, HEADERS, BENCHMARKS, RPC_WEIGHTS)
RECORDS: Final = (ENCODER_SPEED, FINGERPRINTS, ROOFLINE, RPC_PROTOCOL, SAID_ONCE, TRIAL, TUNING, WORKERS)


def _entry(entries: Mapping[str, Any], key: str, read: Callable[[Any], _Read]) -> _Read | None:
    if key in entries:
        with suppress(*_DAMAGE):
            return read(entries[key])
    return None
