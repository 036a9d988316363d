"""Embeddings of tiles already encoded, by content, bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EmbeddingCache:
    """A least-recently-used map from tile keys to embeddings, float32 [tokens_per_tile, n_embd].

    The key names everything the embeddings depend on (pixels, mmproj, correction, build), so an entry never goes
    stale. Entries are read-only: callers share them.

    Args:
        max_bytes: memory the embeddings may take; the least recently used go first. 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._entries: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """The embeddings of a tile, or None when they are not known (any more)."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, embeddings: NDArray[np.float32]) -> None:
        """Remember the embeddings of a tile; larger ones than the whole cache are not kept."""
        if embeddings.nbytes > self.max_bytes or key in self._entries:
            return
        embeddings.setflags(write=False)
        self._entries[key] = embeddings
        self.used_bytes += embeddings.nbytes
        while self.used_bytes > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.used_bytes -= dropped.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.used_bytes = 0
