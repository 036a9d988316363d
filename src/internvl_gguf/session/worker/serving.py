"""The work of a model's process: take requests, have the engine work, tell what came of each.

One thread computes (`Server.run`); another reads what comes (`Server.take`) and answers at once what needs no turn of
the engine, so that a question can be laid out, and another stopped, in the middle of a long computation.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.tiles import FarTile, TileSupply
from internvl_gguf.types import Span, TileSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.engine import Handle, LogitsHandle, Report, TileProgress
    from internvl_gguf.session.runtime import Runtime
    from internvl_gguf.session.saved_file import ModelIdentity

Send = Callable[[object], None]


class QuickCalls:
    """Calls that are answered while the engine works.

    Args:
        runtime: the model.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._model = runtime.engine.model

    def ping(self) -> None:
        """Say that the process is there."""

    def tokenize(self, text: str) -> tuple[int, ...]:
        """As `TextModel.tokenize`."""
        return self._model.tokenize(text)

    def vocabulary(self) -> tuple[list[bytes], list[int]]:
        """The bytes of every token, and the tokens that end an answer."""
        tokens = range(self._model.n_vocab)
        return [self._model.piece(token) for token in tokens], list(filter(self._model.is_end_of_generation, tokens))


class Calls:
    """Calls that take a turn of the engine.

    Args:
        runtime: the model.
        supply: pixels of tiles.
    """

    def __init__(self, runtime: Runtime, supply: TileSupply) -> None:
        self._runtime = runtime
        self._supply = supply

    def identity(self) -> ModelIdentity:
        """As `Runtime.identity`."""
        return self._runtime.identity

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """As `Engine.export`, the tiles without their pixels."""
        found = self._runtime.engine.export(far_spans(prompt, self._supply))
        return found and (messages.without_pixels(found[0]), found[1])

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """As `Engine.restore`."""
        self._runtime.engine.restore(far_spans(spans, self._supply), kv)

    def check_integrity(self) -> None:
        """As `Engine.check_integrity`."""
        self._runtime.engine.check_integrity()


class _Run(Protocol):
    """A request that the engine works on."""

    is_over: bool

    @property
    def has_news(self) -> bool:
        """Whether there is something to tell."""
        ...

    def cancel(self) -> None:
        """Nobody wants it any more."""
        ...

    def news(self) -> messages.News:
        """What came of it since the last time."""
        ...


class Server:
    """Serves one model.

    Args:
        runtime: the model.
        send: tells the other side something.
    """

    def __init__(self, runtime: Runtime, send: Send) -> None:
        self._engine = runtime.engine
        self._send = send
        self._supply = TileSupply(lambda keys: send(messages.WantPixels(keys)))
        self._quick, self._calls = QuickCalls(runtime), Calls(runtime, self._supply)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._runs: dict[int, _Run] = {}
        self._cancelled: set[int] = set()
        self._steps = 0

    @property
    def progress(self) -> int:
        """A number that grows while something is computed, and stands still where the library hangs."""
        return self._steps + self._engine.context.polls

    def take(self, message: object) -> None:
        """One message of the other side; in the thread that reads them."""
        if isinstance(message, messages.Pixels):
            self._supply.put(message.key, message.pixels)
        elif isinstance(message, messages.Cancel):
            self._cancelled.add(message.request)
            run = self._runs.get(message.request)
            if run:
                run.cancel()
        elif isinstance(message, messages.Call) and hasattr(QuickCalls, message.method):
            self._answer(message, self._quick)
        else:
            self._inbox.put(message)

    def run(self) -> None:
        """Serve until the other side has enough."""
        while True:
            if not self._runs or not self._inbox.empty():
                message = self._inbox.get()
                if isinstance(message, messages.Close):
                    return
                self._begin(message)
                continue
            self._engine.work_until(self._has_news)
            for number, run in list(self._runs.items()):
                if run.has_news:
                    self._tell(number, run)

    def _has_news(self) -> bool:
        self._steps += 1
        return not self._inbox.empty() or any(run.has_news for run in self._runs.values())

    def _tell(self, number: int, run: _Run) -> None:
        news = run.news()
        if run.is_over:
            del self._runs[number]
            self._cancelled.discard(number)
        self._send(news)

    def _begin(self, message: Any) -> None:
        """Take up a request."""
        if isinstance(message, messages.Call):
            self._answer(message, self._calls)
            return
        number = message.request
        try:
            run = self._run_of(message)
        except Exception as error:
            self._send(messages.News(number, ending=error))
            return
        self._runs[number] = run
        if number in self._cancelled:  # it came while the request waited
            run.cancel()

    def _run_of(self, message: Any) -> _Run:
        engine, supply = self._engine, self._supply
        on_tiles = self._tile_progress(message.request)
        if isinstance(message, messages.SubmitTiles):
            return _Embedding(message, engine.embed, supply, on_tiles)
        spans = far_spans(message.spans, supply)
        tiles = [span.tile.key for span in spans if isinstance(span, TileSpan)]
        keys = [key for key in tiles if engine.cache.get(key) is None]
        if isinstance(message, messages.SubmitLogits):
            return _Logits(message.request, engine.submit_logits(spans, on_tiles), supply, keys)
        answer = engine.submit(spans, message.sampling, on_tiles)
        return _Answer(message.request, answer, engine.model.piece, supply, keys)

    def _tile_progress(self, number: int) -> TileProgress:
        return lambda done, total: self._send(messages.TilesDone(number, done, total))

    def _answer(self, call: messages.Call, calls: object) -> None:
        try:
            news = messages.News(call.request, ending="stop", result=getattr(calls, call.method)(*call.arguments))
        except Exception as error:
            news = messages.News(call.request, ending=error)
        self._send(news)


class _Answer:
    """An answer under way."""

    def __init__(
        self, number: int, handle: Handle, piece: Callable[[int], bytes], supply: TileSupply, keys: Sequence[bytes]
    ) -> None:
        self.is_over = False
        self._number, self._handle, self._piece = number, handle, piece
        self._supply, self._keys = supply, keys
        self._report: Report | None = None
        supply.want(keys)

    @property
    def has_news(self) -> bool:
        return self._handle.has_news

    def cancel(self) -> None:
        self._handle.cancel()

    def news(self) -> messages.News:
        handle = self._handle
        tokens: list[int] = []
        ending: Any = None
        try:
            tokens += handle.ready()
            ending = handle.finish_reason
        except Exception as error:
            ending = error
        report = None
        if handle.report != self._report:
            report = self._report = replace(handle.report)
        if ending is not None:
            self.is_over = True
            self._supply.release(self._keys)
        times = handle.times[-len(tokens) :] if tokens else []
        return messages.News(self._number, tokens, [*map(self._piece, tokens)], times, report, ending)


class _Logits:
    """Logits under way."""

    def __init__(self, number: int, handle: LogitsHandle, supply: TileSupply, keys: Sequence[bytes]) -> None:
        self.is_over = False
        self._number, self._handle = number, handle
        self._supply, self._keys = supply, keys
        supply.want(keys)

    @property
    def has_news(self) -> bool:
        return self._handle.is_over

    def cancel(self) -> None:
        self._handle.cancel()

    def news(self) -> messages.News:
        self.is_over = True
        self._supply.release(self._keys)
        try:
            return messages.News(self._number, ending="stop", result=self._handle.result())
        except Exception as error:
            return messages.News(self._number, ending=error)


class _Embedding:
    """Tiles to be encoded, in one go when its turn comes."""

    def __init__(
        self, message: messages.SubmitTiles, embed: Callable[..., Any], supply: TileSupply, on_tiles: TileProgress
    ) -> None:
        self.is_over = False
        self.has_news = True
        self._number = message.request
        self._tiles = [FarTile(key, supply) for key in message.keys]
        self._embed, self._on_tiles = embed, on_tiles
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True

    def news(self) -> messages.News:
        self.is_over = True
        try:
            embeddings = self._embed(self._tiles, self._on_tiles, lambda: self._is_cancelled)
            return messages.News(self._number, ending="stop", result=embeddings)
        except Exception as error:
            return messages.News(self._number, ending=error)


def far_spans(spans: Sequence[Span], supply: TileSupply) -> list[Span]:
    """Spans as the engine takes them, the pixels of their tiles still on the other side."""
    return [
        TileSpan(FarTile(span.tile.key, supply), span.length) if isinstance(span, TileSpan) else span for span in spans
    ]
