"""An engine in another process, as a session knows it: the calls of `engine.contract` go across the line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from internvl_gguf.engine.handle import Handle, LogitsHandle, stopped
from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.client import Client, FarRequest
from internvl_gguf.types import Span, Tile, TileSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.config import SamplingParams
    from internvl_gguf.engine.tile_run import TileProgress

_REMEMBERED_TEXTS = 256


class FarVocabulary:
    """The tokens of the text model. What was asked before is known without the process.

    Args:
        client: this side of the line.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ends: frozenset[int] | None = None
        self.tokenize = lru_cache(_REMEMBERED_TEXTS)(self._tokenize)

    @property
    def n_vocab(self) -> int:
        """Tokens there are."""
        return self._client.facts.tokens_in_all

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return cast("tuple[int, ...]", self._client.call("tokenize", text))

    def piece(self, token: int) -> bytes:
        """The UTF-8 bytes of a token.

        Raises:
            ValueError: an id outside the vocabulary.
            WorkerDiedError: it was not asked for before, and the process has ended.
        """
        known = self._client.pieces.get(token)
        if known is not None:
            return known
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token {token} is outside the vocabulary of {self.n_vocab}")
        self._fetch()
        return self._client.pieces[token]

    def is_end_of_generation(self, token: int) -> bool:
        """Whether a token ends an answer. Raises as `piece`."""
        return token in (self._fetch() if self._ends is None else self._ends)

    def _fetch(self) -> frozenset[int]:
        """Fetch all of it, in a fraction of a second: a conversation that is taken up asks for thousands."""
        pieces, ends = self._client.call("vocabulary")
        self._client.pieces.update(enumerate(pieces))
        self._ends = frozenset(ends)
        return self._ends


class FarEngine:
    """The engine of the newest process. Made by `WorkerRuntime`.

    Every call raises `WorkerDiedError` where the process has ended, and none starts another.

    Args:
        client: this side of the line.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.model = FarVocabulary(client)

    @property
    def n_ctx(self) -> int:
        """Positions one request can take, its answer included."""
        return self._client.facts.n_ctx

    @property
    def n_parallel(self) -> int:
        """Requests that run at once."""
        return self._client.facts.n_parallel

    def submit(self, prompt: Sequence[Span], sampling: SamplingParams, on_tiles: TileProgress | None = None) -> Handle:
        """As `Engine.submit`; what it would raise ends the answer."""
        request = FarRequest(prompt, on_tiles=on_tiles)
        spans = messages.without_pixels(prompt)
        number = self._client.submit(request, lambda number: messages.SubmitAnswer(number, spans, sampling))
        return Handle(request, self._client.work_until, lambda: self._client.cancel(number))

    def submit_logits(self, prompt: Sequence[Span], on_tiles: TileProgress | None = None) -> LogitsHandle:
        """As `Engine.submit_logits`; what it would raise ends the request."""
        request = FarRequest(prompt, on_tiles=on_tiles)
        spans = messages.without_pixels(prompt)
        number = self._client.submit(request, lambda number: messages.SubmitLogits(number, spans))
        return LogitsHandle(request, self._client.work_until, lambda: self._client.cancel(number))

    def embed(
        self,
        tiles: Sequence[Tile],
        on_tiles: TileProgress | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[NDArray[np.float32]]:
        """As `Engine.embed`."""
        request = FarRequest(tiles=tiles, on_tiles=on_tiles)
        keys = [tile.key for tile in tiles]
        number = self._client.submit(request, lambda number: messages.SubmitTiles(number, keys))
        try:
            self._client.work_until(lambda: request.ending is not None or is_cancelled())
        finally:
            self._client.cancel(number)
        if isinstance(request.ending, Exception):
            raise request.ending
        if request.ending is None:
            raise stopped()
        return cast("list[NDArray[np.float32]]", request.result)

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Wait until `is_done`; the process works by itself."""
        self._client.work_until(is_done)

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """As `Engine.export`."""
        found = self._client.call("export", messages.without_pixels(prompt))
        if found is None:
            return None
        spans, kv = found
        tiles = {span.tile.key: span.tile for span in prompt if isinstance(span, TileSpan)}
        return [replace(span, tile=tiles[span.tile.key]) if isinstance(span, TileSpan) else span for span in spans], kv

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """As `Engine.restore`."""
        self._client.call("restore", messages.without_pixels(spans), kv)

    def check_integrity(self) -> None:
        """As `Engine.check_integrity`."""
        self._client.call("check_integrity")
