"""What this package keeps in its cache folder, and taking it out. All of it can be made again (docs/caches.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from internvl_gguf.config import EngineConfig
from internvl_gguf.embedding_store import EmbeddingStore, embeddings_dir
from internvl_gguf.errors import InternVLError
from internvl_gguf.paths import cache_dir
from internvl_gguf.trial.record import RECORD

EMBEDDINGS: Final = "embeddings"
_FOLDERS: Final = {
    "mmproj": "vision encoders put right",
    "headers": "beginnings of files on the hub",
    "bench": "results of benchmarks, with what they are measured against",
}
_MEASURED: Final = "measured"
_RECORDS: Final = ("encoder-speed.json", "fingerprints.json", "roofline.json", RECORD)


@dataclass(frozen=True)
class CacheContents:
    """What one of the caches holds.

    Attributes:
        name: "embeddings", "mmproj", "headers", "bench" or "measured".
        what: what that is, in a few words.
        folder: where it is.
        entries: how many.
        n_bytes: what they take.
        max_bytes: what they may take where nothing else is said; None for those that stay small by themselves.
    """

    name: str
    what: str
    folder: Path
    entries: int
    n_bytes: int
    max_bytes: int | None = None


def cache_contents() -> tuple[CacheContents, ...]:
    """What each cache holds, the one that grows with use first."""
    stored = [file.n_bytes for file in _embeddings().files()]
    bound = EngineConfig.embedding_disk_bytes
    folder = embeddings_dir()
    return (
        CacheContents(EMBEDDINGS, "pictures as the model sees them", folder, len(stored), sum(stored), bound),
        *(_contents(name, what, cache_dir() / name, _files_in(name)) for name, what in _FOLDERS.items()),
        _contents(_MEASURED, "facts about machine and files", cache_dir(), _records()),
    )


def clear_caches(*, everything: bool) -> int:
    """Remove the embeddings, or everything that this package keeps; other files in the folder stay.

    Models that are loaded go on undisturbed.

    Args:
        everything: the other caches, too.

    Returns:
        The bytes set free.

    Raises:
        InternVLError: something cannot be removed.
    """
    try:
        freed = _embeddings().clear()
        if everything:
            for path, n_bytes in [*(file for name in _FOLDERS for file in _files_in(name)), *_records()]:
                path.unlink(missing_ok=True)
                freed += n_bytes
    except OSError as error:
        raise InternVLError(
            f"The caches in {cache_dir()} cannot be cleared: {error.strerror or error}.",
            "End what uses them, check whose the folder is, and try again.",
        ) from error
    return freed


def _embeddings() -> EmbeddingStore:
    return EmbeddingStore(embeddings_dir(), EngineConfig.embedding_disk_bytes)


def _contents(name: str, what: str, folder: Path, files: Iterable[tuple[Path, int]]) -> CacheContents:
    sizes = [n_bytes for _, n_bytes in files]
    return CacheContents(name, what, folder, len(sizes), sum(sizes))


def _files_in(name: str) -> Iterator[tuple[Path, int]]:
    """The files in one of the folders, however deep, and their sizes; none where it is missing or cannot be read."""
    with contextlib.suppress(OSError):
        yield from _sizes((cache_dir() / name).rglob("*"))


def _records() -> Iterator[tuple[Path, int]]:
    return _sizes(cache_dir() / name for name in _RECORDS)


def _sizes(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        with contextlib.suppress(OSError):  # not there, or removed meanwhile
            if path.is_file():
                yield path, path.stat().st_size
