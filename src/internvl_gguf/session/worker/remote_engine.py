"""An engine in the worker process: forwards the calls of `engine.contract` to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from internvl_gguf.engine.handle import Handle, LogitsHandle, cancelled_error
from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.worker_client import RemoteRequest, WorkerClient
from internvl_gguf.types import Span, Tile, TileSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.config import SamplingParams
    from internvl_gguf.engine.thought import ThoughtBounds
    from internvl_gguf.engine.tile_run import TileProgress

_REMEMBERED_TEXTS = 256
_LONGEST_REMEMBERED = 16_384  # characters: with their tokens, all of them take up to 50 MB


class RemoteVocabulary:
    """The vocabulary of the text model; results are cached in this process.

    Args:
        client: the connection to the worker process.
    """

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self._ends: frozenset[int] | None = None
        self._remembered = lru_cache(_REMEMBERED_TEXTS)(self._tokenize)

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        return self._client.facts.n_vocab

    def tokenize(self, text: str) -> tuple[int, ...]:
        """See `TextModel.tokenize`."""
        return self._remembered(text) if len(text) <= _LONGEST_REMEMBERED else self._tokenize(text)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return cast("tuple[int, ...]", self._client.call("tokenize", text))

    def piece(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token.

        Raises:
            ValueError: an id outside the vocabulary.
            WorkerDiedError: the bytes are not cached, and the process has ended.
        """
        known = self._client.pieces.get(token)
        if known is not None:
            return known
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token {token} is outside the vocabulary of {self.n_vocab}")
        self._fetch()
        return self._client.pieces[token]

    def is_end_of_generation(self, token: int) -> bool:
        """Return whether a token ends an answer. Raises as `piece`."""
        return token in (self._fetch() if self._ends is None else self._ends)

    def _fetch(self) -> frozenset[int]:
        """Fetch the whole vocabulary, in a fraction of a second: restoring a conversation needs thousands of tokens."""
        pieces, ends = self._client.call("vocabulary")
        self._client.pieces.update(enumerate(pieces))
        self._ends = frozenset(ends)
        return self._ends


class RemoteEngine:
    """The engine of the current worker process. Made by `WorkerRuntime`.

    Every call raises `WorkerDiedError` if the process has ended; none starts another.

    Args:
        client: the connection to the worker process.
    """

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self.model = RemoteVocabulary(client)

    @property
    def n_ctx(self) -> int:
        """Number of positions one request can take, answer included."""
        return self._client.facts.n_ctx

    @property
    def n_parallel(self) -> int:
        """Number of requests that run at once."""
        return self._client.facts.n_parallel

    @property
    def n_candidates(self) -> int:
        """Number of answers to one question that are written at once."""
        return self._client.facts.n_candidates

    def submit(
        self,
        prompt: Sequence[Span],
        sampling: SamplingParams,
        on_tiles: TileProgress | None = None,
        *,
        evicts: bool = True,
        top_logprobs: int | None = None,
        logprobs_between: tuple[int, int] | None = None,
        grammar: str | None = None,
        thought: ThoughtBounds | None = None,
        candidates_of: int | None = None,
        tells_certainty: bool = False,
    ) -> Handle:
        """See `Engine.submit`; its errors end the answer instead of being raised here."""
        request = RemoteRequest(prompt, on_tiles=on_tiles)
        spans = messages.without_pixels(prompt)
        number = self._client.submit(
            request,
            lambda number: messages.SubmitAnswer(
                number,
                spans,
                sampling,
                evicts,
                top_logprobs,
                logprobs_between,
                grammar,
                thought,
                candidates_of,
                tells_certainty,
            ),
        )
        return Handle(request, self._client.work_until, lambda: self._client.cancel(number))

    def submit_logits(self, prompt: Sequence[Span], on_tiles: TileProgress | None = None) -> LogitsHandle:
        """See `Engine.submit_logits`; its errors end the request instead of being raised here."""
        request = RemoteRequest(prompt, on_tiles=on_tiles)
        spans = messages.without_pixels(prompt)
        number = self._client.submit(request, lambda number: messages.SubmitLogits(number, spans))
        return LogitsHandle(request, self._client.work_until, lambda: self._client.cancel(number))

    def embed(
        self,
        tiles: Sequence[Tile],
        on_tiles: TileProgress | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[NDArray[np.float32]]:
        """See `Engine.embed`."""
        request = RemoteRequest(tiles=tiles, on_tiles=on_tiles)
        keys = [tile.key for tile in tiles]
        number = self._client.submit(request, lambda number: messages.SubmitTiles(number, keys))
        try:
            self._client.work_until(lambda: request.ending is not None or is_cancelled())
        finally:
            self._client.cancel(number)
        if isinstance(request.ending, Exception):
            raise request.ending
        if request.ending is None:
            raise cancelled_error()
        return cast("list[NDArray[np.float32]]", request.result)

    def keep_embeddings(self) -> None:
        """See `Engine.keep_embeddings`."""
        self._client.call("keep_embeddings")

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Wait until `is_done` is true; the process works by itself."""
        self._client.work_until(is_done)

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """See `Engine.export`."""
        found = self._client.call("export", messages.without_pixels(prompt))
        if found is None:
            return None
        spans, kv = found
        tiles = {span.tile.key: span.tile for span in prompt if isinstance(span, TileSpan)}
        return [replace(span, tile=tiles[span.tile.key]) if isinstance(span, TileSpan) else span for span in spans], kv

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """See `Engine.restore`."""
        self._client.call("restore", messages.without_pixels(spans), kv)

    def check_integrity(self) -> None:
        """See `Engine.check_integrity`."""
        self._client.call("check_integrity")
