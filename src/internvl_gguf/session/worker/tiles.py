"""Pixels of tiles on the model's side of the line: asked for when a prompt comes, waited for when one is encoded."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

from internvl_gguf.errors import LibraryError
from internvl_gguf.types import Tile


class TileSupply:
    """The pixels that have come and were not used yet, of tiles that somebody may encode.

    Args:
        ask: asks the other side for the pixels of tiles, by their keys.
    """

    def __init__(self, ask: Callable[[Sequence[bytes]], None]) -> None:
        self._ask = ask
        self._news = threading.Condition()
        self._users: Counter[bytes] = Counter()
        self._asked: set[bytes] = set()
        self._pixels: dict[bytes, bytes | None] = {}

    def want(self, keys: Sequence[bytes]) -> None:
        """Ask for the pixels of tiles, those that are here or on their way left out. `release` ends it."""
        with self._news:
            self._users.update(keys)
        self._ask_for(keys)

    def release(self, keys: Sequence[bytes]) -> None:
        """Whoever wanted these does not any more; what nobody wants is dropped."""
        with self._news:
            self._users.subtract(keys)
            for key in keys:
                if self._users[key] <= 0:
                    del self._users[key]
                    if key in self._pixels:
                        self._forget(key)

    def put(self, key: bytes, pixels: bytes | None) -> None:
        """The pixels of a tile have come; None where the other side has forgotten them."""
        with self._news:
            if key in self._users:
                self._pixels[key] = pixels
            else:
                self._asked.discard(key)
            self._news.notify_all()

    def take(self, key: bytes) -> bytes:
        """The pixels of a tile, waited for; they are not kept.

        Raises:
            LibraryError: the other side has forgotten them: nobody waits for this tile any more.
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


class FarTile(Tile):
    """A tile whose pixels are on the other side of the line until it is encoded."""

    _supply: TileSupply

    def __init__(self, key: bytes, supply: TileSupply) -> None:
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "_supply", supply)

    @property
    def pixels(self) -> bytes:
        """As `Tile.pixels`. Waited for where they have not come yet."""
        return self._supply.take(self.key)
