"""List and clear the files of this package in its cache folder. All of them can be made again (docs/caches.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from internvl_gguf.config import EngineConfig
from internvl_gguf.engine.embedding_store import EmbeddingStore
from internvl_gguf.errors import InternVLError
from internvl_gguf.utils.paths import cache_dir
from internvl_gguf.utils.records import EMBEDDINGS, FOLDERS, RECORDS, Folder, Record

_MEASURED: Final = "measured"


@dataclass(frozen=True)
class CacheContents:
    """The contents of one of the caches.

    Attributes:
        name: "embeddings", "mmproj", "headers", "bench" or "measured".
        what: what that is, in a few words.
        folder: where it is.
        entries: how many.
        n_bytes: what they take.
        max_bytes: what they may take where nothing else is said; None for those that stay small by themselves.
        records: of "measured", the records that are there.
    """

    name: str
    what: str
    folder: Path
    entries: int
    n_bytes: int
    max_bytes: int | None = None
    records: tuple[Record, ...] = ()


def cache_contents() -> tuple[CacheContents, ...]:
    """Return the contents of each cache, the one that grows with use first."""
    stored = [file.n_bytes for file in _embeddings().files()]
    bound = EngineConfig.embedding_disk_bytes
    records = [n_bytes for record in RECORDS for _, n_bytes in _sizes(record.files())]
    return (
        CacheContents(EMBEDDINGS.name, EMBEDDINGS.purpose, EMBEDDINGS.path, len(stored), sum(stored), max_bytes=bound),
        *map(_contents, _other_folders()),
        CacheContents(
            _MEASURED,
            "measurements of this machine",
            cache_dir(),
            len(records),
            sum(records),
            records=tuple(record for record in RECORDS if any(_sizes([record.path]))),
        ),
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
            others: list[Folder | Record] = [*_other_folders(), *RECORDS]
            for kept in others:
                for path, n_bytes in list(_sizes(kept.files())):
                    path.unlink(missing_ok=True)
                    freed += n_bytes
    except OSError as error:
        raise InternVLError(
            f"The caches in {cache_dir()} cannot be cleared: {error.strerror or error}.",
            "End what uses them, check whose the folder is, and try again.",
        ) from error
    return freed


def _embeddings() -> EmbeddingStore:
    return EmbeddingStore(EMBEDDINGS.path, EngineConfig.embedding_disk_bytes)


def _other_folders() -> list[Folder]:
    """Return all cache folders but that of the embeddings, whose files only their store may remove."""
    return [folder for folder in FOLDERS if folder != EMBEDDINGS]


def _contents(folder: Folder) -> CacheContents:
    sizes = [n_bytes for _, n_bytes in _sizes(folder.files())]
    return CacheContents(folder.name, folder.purpose, folder.path, len(sizes), sum(sizes))


def _sizes(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        with contextlib.suppress(OSError):  # not there, or removed meanwhile
            if path.is_file():
                yield path, path.stat().st_size
