"""The cache of tile embeddings, by tile content: in memory, with a store on disk behind it."""

from __future__ import annotations

from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.engine.embedding_store import EmbeddingStore

_MAX_WAITING_BYTES: Final = 256 * 1024**2
_MAX_REFUSED: Final = 65_536  # keys of 16 bytes: about 5,000 pictures of 13 tiles


class EmbeddingCache:
    """A map from tile keys to embeddings, float32 [tokens_per_tile, n_embd].

    The key names everything the embeddings depend on (pixels, mmproj, correction, build, device), so an entry never
    goes stale. Entries are read-only: callers share them.

    Embeddings are also written to the disk, by a thread of this cache, so that no answer waits for it; `close` waits.
    If the disk is slower than the encoder for long, some embeddings are not kept there. An unwritable disk is reported
    once and not written again; it is still read.

    Most pictures of a batch occur once. Written like others, those of a large batch would drive out everything else,
    one another included, and none would be there when it is wanted. So a batch evicts nothing (`put`): what the store
    has no room for is only remembered by its key, and gets room as soon as it occurs again.

    Args:
        max_bytes: memory the embeddings may take; the least recently used are dropped first. 0 keeps none.
        store: embeddings on disk; None for none.
        on_notice: called with one line if the disk cannot be written.
    """

    def __init__(self, max_bytes: int, store: EmbeddingStore | None = None, on_notice: Notice = log_notice) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._entries: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._store = store
        self._on_notice = on_notice
        self._writer = ThreadPoolExecutor(1, "internvl-embeddings") if store else None
        self._writes: deque[tuple[Future[None], int]] = deque()
        self._trouble: Exception | None = None
        self._refused: OrderedDict[bytes, bool] = OrderedDict()  # keys that the store had no room for; True each

    def __len__(self) -> int:
        """Number of entries in memory."""
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        """Return whether the embeddings of a tile are in memory."""
        return key in self._entries

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """Return the embeddings of a tile; None if they are in neither memory nor store."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            if self._refused.pop(key, False):  # a memory of 0 bytes aside, this is how a second occurrence shows
                self._write(key, found, evicts=True)
        elif self._store is not None:
            found = self._store.get(key)
            if found is not None:
                self._remember(key, found)
        return found

    def put(self, key: bytes, embeddings: NDArray[np.float32], *, evicts: bool = True) -> None:
        """Keep the embeddings of a tile, unless they are larger than the whole cache.

        Args:
            key: key of the tile, 16 bytes.
            embeddings: float32 [tokens_per_tile, n_embd].
            evicts: whether the store makes room for them; False for the first occurrence of a tile in a batch.
        """
        self._remember(key, embeddings)
        self._write(key, embeddings, evicts=evicts or self._refused.pop(key, False))

    def clear(self) -> None:
        """Drop all entries in memory."""
        self._entries.clear()
        self.used_bytes = 0

    @property
    def unwritten(self) -> list[Future[None]]:
        """The writes that have not ended: wait for them where another process is to find what they write."""
        self._note_writes()
        return [written for written, _ in self._writes]

    def close(self) -> None:
        """Wait until all pending writes are on disk. Closing twice is harmless; nothing is written afterwards."""
        if self._writer:
            self._writer.shutdown()
            self._note_writes()
        self._writer = None

    def _remember(self, key: bytes, embeddings: NDArray[np.float32]) -> None:
        embeddings.setflags(write=False)
        if embeddings.nbytes > self.max_bytes or key in self._entries:
            return
        self._entries[key] = embeddings
        self.used_bytes += embeddings.nbytes
        while self.used_bytes > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.used_bytes -= dropped.nbytes

    def _write(self, key: bytes, embeddings: NDArray[np.float32], *, evicts: bool) -> None:
        self._note_writes()
        waiting = sum(n_bytes for _, n_bytes in self._writes)
        if self._writer and waiting + embeddings.nbytes <= _MAX_WAITING_BYTES:
            self._writes.append((self._writer.submit(self._write_now, key, embeddings, evicts), embeddings.nbytes))

    def _write_now(self, key: bytes, embeddings: NDArray[np.float32], evicts: bool) -> None:
        """Write one entry, in the writing thread; after the first failure no write is tried again."""
        if self._store is None or self._trouble:
            return
        try:
            is_stored = self._store.put(key, embeddings, evicts=evicts)
        except Exception as error:
            self._trouble = error
            return
        if not is_stored and not evicts:
            self._refused[key] = True
            if len(self._refused) > _MAX_REFUSED:
                self._refused.popitem(last=False)

    def _note_writes(self) -> None:
        """Drop finished writes from the list, and report a failed one, in the calling thread."""
        while self._writes and self._writes[0][0].done():
            self._writes.popleft()
        if self._trouble and self._writer:
            self._writer.shutdown()  # pending writes do nothing
            self._writer = None
            reason = getattr(self._trouble, "strerror", None) or self._trouble
            self._on_notice(
                f"Encoded pictures are not kept on disk for the next time: {reason}. "
                "INTERNVL_CACHE names another folder; --no-cache (embedding_disk_bytes=0) keeps none."
            )
