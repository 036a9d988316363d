"""What this package keeps in its cache folder: each record and folder declared once, here.

Nothing else writes there (a test holds it), so that `internvl cache` shows and clears all of it. All of it can be made
again. To keep something more, declare it in `RECORDS` or `FOLDERS`.
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

_LOCK: Final = ".lock"  # one for all records: none is written for long
_LOCK_SECONDS: Final = 5.0  # a writer that takes longer is stopped, or its file system knows no locks
# What code that reads an entry raises where the entry is not what it should be.
_DAMAGE: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError)
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Record:
    """A JSON file of facts that were measured or computed, each under the key of what it depends on.

    Several machines may share the file: an entry counts under its own key only, and a writer leaves those of others.
    Another version of this package, another program or a user may have written it: damage, entries of another form and
    files of another version read as nothing, and what they held is measured anew.

    Attributes:
        name: its file name.
        purpose: what it holds, in a few words.
        version: of the form of its entries.
        most_entries: the newest so many are kept.
    """

    name: str
    purpose: str
    version: int = 1
    most_entries: int = 16

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return cache_dir() / self.name

    def get(self, key: str, read: Callable[[Any], _Read]) -> _Read | None:
        """The entry of a key, as `read` makes it of what was put; None where there is none that it can be made of.

        Args:
            key: what the entry depends on.
            read: makes the value; may raise ValueError, KeyError, TypeError, AttributeError, IndexError or
                ArithmeticError of an entry that is none.
        """
        return _entry(self._entries(), key, read)

    def put(self, key: str, value: Any) -> OSError | None:
        """Keep a JSON value as the entry of a key, in place of the one before; the others stay.

        Returns:
            Why it could not be kept, which costs the next process the work and no more; None where it was.
        """
        return self.merge(key, lambda entry: entry, lambda before: value)

    def merge(self, key: str, read: Callable[[Any], _Read], merged: Callable[[_Read | None], Any]) -> OSError | None:
        """Keep what is made of the entry of a key as the new one; no other process writes meanwhile.

        Args:
            key: what the entry depends on.
            read: as for `get`.
            merged: makes the JSON value to keep of the entry before, None where there was none.

        Returns:
            As `put`.
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
        """Its file, and what processes that were killed left of others."""
        yield self.path
        with suppress(OSError):
            yield from cache_dir().glob(f".{self.name}.*")


@dataclass(frozen=True)
class Folder:
    """A folder of files that are found by what they were made of.

    Attributes:
        name: its name.
        purpose: what its files are, in a few words.
    """

    name: str
    purpose: str

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return cache_dir() / self.name

    def files(self) -> Iterator[Path]:
        """The files in it, however deep; none where it is missing or cannot be read."""
        with suppress(OSError):
            yield from self.path.rglob("*")


EMBEDDINGS: Final = Folder("embeddings", "pictures as the model sees them")
CORRECTED_ENCODERS: Final = Folder("mmproj", "corrected vision encoders")
HEADERS: Final = Folder("headers", "file headers from the hub")
BENCHMARKS: Final = Folder("bench", "results of benchmarks")

ENCODER_SPEED: Final = Record("encoder-speed.json", "speed of the vision encoder by precision")
FINGERPRINTS: Final = Record("fingerprints.json", "contents of files already read", most_entries=64)
ROOFLINE: Final = Record("roofline.json", "speed of this machine")
SAID_ONCE: Final = Record("said-once.json", "what was said and is not said again")
TRIAL: Final = Record("trial.json", "what of the native library works on this machine")
TUNING: Final = Record("tuning.json", "threads and batches that suit this machine")

FOLDERS: Final = (EMBEDDINGS, CORRECTED_ENCODERS, HEADERS, BENCHMARKS)
RECORDS: Final = (ENCODER_SPEED, FINGERPRINTS, ROOFLINE, SAID_ONCE, TRIAL, TUNING)


def _entry(entries: Mapping[str, Any], key: str, read: Callable[[Any], _Read]) -> _Read | None:
    if key in entries:
        with suppress(*_DAMAGE):
            return read(entries[key])
    return None
