"""A run of consecutive tiles of a prompt: their embeddings are looked up in the cache or encoded batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.types import Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from internvl_gguf.engine.embedding_cache import EmbeddingCache
    from internvl_gguf.vision.contract import TileEncoder

TileProgress = Callable[[int, int], None]
"""Called with (tiles encoded, tiles to encode) before the first tile and after each batch of them."""


@dataclass
class RequestReport:
    """Counters and times of one request.

    Attributes:
        cached_tokens: positions whose KV was already there.
        prompt_read: positions of the prompt that its sequence holds so far, cached ones included.
        tiles_encoded: tiles the vision encoder had to see.
        encode_seconds: time in the vision encoder.
        prefill_seconds: time in the text model; of a call shared with others, this prompt's part by positions.
        drafted_tokens: tokens of the answer that were guessed.
        accepted_tokens: guesses that were right.
        forced_tokens: tokens of the answer that its grammar left no choice for.
        has_waited: whether it waited for room that other answers to the same question took.
    """

    cached_tokens: int = 0
    prompt_read: int = 0
    tiles_encoded: int = 0
    encode_seconds: float = 0.0
    prefill_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    forced_tokens: int = 0
    has_waited: bool = False


class TileRun:
    """Consecutive tiles and those of their embeddings that are known.

    Args:
        tiles: the tiles; a tile that occurs twice is encoded once.
        vision: the encoder.
        cache: embeddings by tile; asked first, and given what is encoded.
        evicts: see `EmbeddingCache.put`.

    Raises:
        ValueError: there is no encoder.
    """

    def __init__(
        self, tiles: Sequence[Tile], vision: TileEncoder | None, cache: EmbeddingCache, *, evicts: bool = True
    ) -> None:
        if vision is None:
            raise ValueError("tiles for an engine without a vision encoder")
        self._vision = vision
        self._cache = cache
        self._evicts = evicts
        self._known = {tile.key: cache.get(tile.key) for tile in tiles}
        self._missing = list({tile.key: tile for tile in tiles if self._known[tile.key] is None}.values())
        self._to_encode = len(self._missing)

    @property
    def is_complete(self) -> bool:
        """Whether all embeddings are known."""
        return not self._missing

    def knows(self, tiles: Sequence[Tile]) -> bool:
        """Return whether the embeddings of these tiles are known."""
        return all(self._known[tile.key] is not None for tile in tiles)

    def rows(self, tiles: Sequence[Tile]) -> NDArray[np.float32]:
        """Return the embeddings of known tiles, float32 [tiles * tokens_per_tile, n_embd]."""
        return np.concatenate([found for tile in tiles if (found := self._known[tile.key]) is not None])

    def embeddings(self, tiles: Sequence[Tile]) -> list[NDArray[np.float32]]:
        """Return the embeddings of known tiles, float32 [tokens_per_tile, n_embd] each."""
        return [found for tile in tiles if (found := self._known[tile.key]) is not None]

    def encode_batch(self, report: RequestReport, on_tiles: TileProgress | None) -> None:
        """Encode one batch of missing tiles, as many as the encoder takes at once.

        Raises:
            LibraryError: llama.cpp refused.
        """
        self._look_up_next_batch()
        batch = self._missing[: self._vision.tiles_per_batch]
        if not batch:
            return
        if on_tiles and len(self._missing) == self._to_encode:
            on_tiles(0, self._to_encode)
        started = time.perf_counter()
        encoded = self._vision.encode([tile.pixels for tile in batch])
        report.encode_seconds += time.perf_counter() - started
        report.tiles_encoded += len(batch)
        for tile, embeddings in zip(batch, encoded, strict=True):
            self._known[tile.key] = embeddings
            self._cache.put(tile.key, embeddings, evicts=self._evicts)
        del self._missing[: len(batch)]
        if on_tiles:
            on_tiles(self._to_encode - len(self._missing), self._to_encode)

    def _look_up_next_batch(self) -> None:
        """Look up the next batch in the cache again: another request may have encoded its tiles meanwhile."""
        for tile in self._missing[: self._vision.tiles_per_batch]:
            self._known[tile.key] = self._cache.get(tile.key)
        self._missing = [tile for tile in self._missing if self._known[tile.key] is None]
