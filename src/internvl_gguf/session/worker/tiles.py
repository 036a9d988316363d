"""Pixels of tiles in the worker: requested from the parent when a prompt comes, waited for when a tile is encoded."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from internvl_gguf.errors import LibraryError
from internvl_gguf.types import Tile


class TileSupply:
    """The received pixels of tiles that running requests may have to encode.

    Args:
        ask: requests the pixels of tiles from the parent, by their keys.
    """

    def __init__(self, ask: Callable[[Sequence[bytes]], None]) -> None:
        self._ask = ask
        self._news = threading.Condition()
        self._users: Counter[bytes] = Counter()
        self._asked: set[bytes] = set()
        self._pixels: dict[bytes, bytes | None] = {}

    def want(self, keys: Sequence[bytes]) -> None:
        """Request the pixels of tiles that are neither here nor requested yet, and keep them until `release`."""
        with self._news:
            self._users.update(keys)
        self._ask_for(keys)

    def release(self, keys: Sequence[bytes]) -> None:
        """Undo one `want` of these tiles; pixels that no request wants any more are dropped."""
        with self._news:
            self._users.subtract(keys)
            for key in keys:
                if self._users[key] <= 0:
                    del self._users[key]
                    if key in self._pixels:
                        self._forget(key)

    def put(self, key: bytes, pixels: bytes | None) -> None:
        """Store the received pixels of a tile; None if the parent does not have them any more."""
        with self._news:
            if key in self._users:
                self._pixels[key] = pixels
            else:
                self._asked.discard(key)
            self._news.notify_all()

    def take(self, key: bytes) -> bytes:
        """Wait for the pixels of a tile, return them and drop them here.

        Raises:
            LibraryError: the parent does not have them any more: the requests with this tile have ended.
        """
        self.want([key])
        try:
            with self._news:
                self._news.wait_for(lambda: key in self._pixels)
                pixels = self._forget(key)
        finally:
            self.release([key])
        if pixels is None:
            raise LibraryError("The pixels of a tile are not there any more.", "Ask again.")
        return pixels

    def _ask_for(self, keys: Sequence[bytes]) -> None:
        with self._news:
            missing = [key for key in dict.fromkeys(keys) if key not in self._asked]
            self._asked.update(missing)
        if missing:
            self._ask(missing)

    def _forget(self, key: bytes) -> bytes | None:
        self._asked.discard(key)
        return self._pixels.pop(key)


class RemoteTile(Tile):
    """A tile whose pixels stay in the parent until it is encoded."""

    _supply: TileSupply

    def __init__(self, key: bytes, supply: TileSupply) -> None:
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "_supply", supply)

    @property
    def pixels(self) -> bytes:
        """See `Tile.pixels`. Waits for them if they have not come yet."""
        return self._supply.take(self.key)
