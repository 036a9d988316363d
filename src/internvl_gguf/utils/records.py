"""What this package keeps in its cache folder: each record and folder declared once, here.

Nothing else writes there (a test holds it), so that `internvl cache` shows and clears all of it. All of it can be made
again. To keep something more, declare it in `RECORDS` or `FOLDERS`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from internvl_gguf.utils.paths import cache_dir, write_atomically


@dataclass(frozen=True)
class Record:
    """A JSON file of facts that were measured or computed.

    Attributes:
        name: its file name.
        purpose: what it holds, in a few words.
    """

    name: str
    purpose: str

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return cache_dir() / self.name

    def read(self) -> Any:
        """The value that was written; None where there is none, or where it cannot be read or is no JSON.

        Another version of this package, another machine or a person may have written it: check what is in it.
        """
        try:
            return json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def write(self, value: Any) -> bool:
        """Keep a JSON value instead of the one before; whether it could be written.

        A folder that cannot be written costs the next process the work, no more.
        """
        try:
            write_atomically(self.path, json.dumps(value).encode())
        except OSError:
            return False
        return True

    def files(self) -> Iterator[Path]:
        """Its file, and what processes that were killed left of others."""
        yield self.path
        with contextlib.suppress(OSError):
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
        with contextlib.suppress(OSError):
            yield from self.path.rglob("*")


EMBEDDINGS: Final = Folder("embeddings", "pictures as the model sees them")
CORRECTED_ENCODERS: Final = Folder("mmproj", "vision encoders put right")
HEADERS: Final = Folder("headers", "beginnings of files on the hub")
COMPILED_ENCODERS: Final = Folder("openvino", "vision encoders compiled for this machine")
BENCHMARKS: Final = Folder("bench", "results of benchmarks, with what they are measured against")

ENCODER_SPEED: Final = Record("encoder-speed.json", "speed of the vision encoder by precision")
FINGERPRINTS: Final = Record("fingerprints.json", "contents of files already read")
ROOFLINE: Final = Record("roofline.json", "speed of this machine")
TRIAL: Final = Record("trial.json", "what of the native library works on this machine")
TUNING: Final = Record("tuning.json", "threads and batches that suit this machine")

FOLDERS: Final = (EMBEDDINGS, CORRECTED_ENCODERS, COMPILED_ENCODERS, HEADERS, BENCHMARKS)
RECORDS: Final = (ENCODER_SPEED, FINGERPRINTS, ROOFLINE, TRIAL, TUNING)
