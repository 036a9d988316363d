"""The server in the worker process: takes requests, makes the engine work, and sends what each request produces.

One thread computes (`Server.run`); another reads messages (`Server.take`) and answers at once those that do not need
the engine, so that one question can be prepared, and another cancelled, during a long computation.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from internvl_gguf.session.worker import messages
from internvl_gguf.session.worker.tiles import RemoteTile, TileSupply
from internvl_gguf.types import Span, TileSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.engine import Handle, LogitsHandle, RequestReport, TileProgress
    from internvl_gguf.session.in_process_runtime import InProcessRuntime
    from internvl_gguf.session.saved_file import ModelIdentity
    from internvl_gguf.session.worker.child_side import Send


class ImmediateCalls:
    """Methods that the parent can call while the engine works.

    Args:
        runtime: the model.
    """

    def __init__(self, runtime: InProcessRuntime) -> None:
        self._model = runtime.engine.model

    def ping(self) -> None:
        """Do nothing; the reply shows that the process runs."""

    def tokenize(self, text: str) -> tuple[int, ...]:
        """See `TextModel.tokenize`."""
        return self._model.tokenize(text)

    def vocabulary(self) -> tuple[list[bytes], list[int]]:
        """Return the bytes of every token, and the tokens that end an answer."""
        tokens = range(self._model.n_vocab)
        return [self._model.piece(token) for token in tokens], list(filter(self._model.is_end_of_generation, tokens))


class EngineCalls:
    """Methods of the parent that run between two steps of the engine.

    Args:
        runtime: the model.
        supply: gets the pixels of tiles.
    """

    def __init__(self, runtime: InProcessRuntime, supply: TileSupply) -> None:
        self._runtime = runtime
        self._supply = supply

    def identity(self) -> ModelIdentity:
        """See `ModelRuntime.identity`."""
        return self._runtime.identity

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """See `Engine.export`; the tiles are returned without their pixels."""
        found = self._runtime.engine.export(remote_spans(prompt, self._supply))
        return found and (messages.without_pixels(found[0]), found[1])

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """See `Engine.restore`."""
        self._runtime.engine.restore(remote_spans(spans, self._supply), kv)

    def keep_embeddings(self) -> None:
        """See `Engine.keep_embeddings`."""
        self._runtime.engine.keep_embeddings()

    def check_integrity(self) -> None:
        """See `Engine.check_integrity`."""
        self._runtime.engine.check_integrity()


class _RunningRequest(Protocol):
    """A request that the engine works on."""

    is_over: bool

    @property
    def is_readable(self) -> bool:
        """Whether there is something to send."""
        ...

    def cancel(self) -> None:
        """Cancel the request."""
        ...

    def update(self) -> messages.RequestUpdate:
        """Return the progress since the last call."""
        ...


class Server:
    """Serves one model.

    Args:
        runtime: the model.
        send: sends a message to the parent.
    """

    def __init__(self, runtime: InProcessRuntime, send: Send) -> None:
        self._engine = runtime.engine
        self._send = send
        self._supply = TileSupply(lambda keys: send(messages.PixelsWanted(keys)))
        self._quick, self._calls = ImmediateCalls(runtime), EngineCalls(runtime, self._supply)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._runs: dict[int, _RunningRequest] = {}
        self._cancelled: set[int] = set()
        self._steps = 0

    @property
    def progress(self) -> int:
        """A counter that grows while something is computed, and stands still while the library hangs."""
        return self._steps + self._engine.context.polls

    def take(self, message: object) -> None:
        """Handle one message of the parent, in the thread that reads from it."""
        if isinstance(message, messages.TilePixels):
            self._supply.put(message.key, message.pixels)
        elif isinstance(message, messages.Cancel):
            self._cancelled.add(message.request)
            run = self._runs.get(message.request)
            if run:
                run.cancel()
        elif isinstance(message, messages.Call) and hasattr(ImmediateCalls, message.method):
            self._answer(message, self._quick)
        else:
            self._inbox.put(message)

    def run(self) -> None:
        """Serve until the parent sends `Close`."""
        while True:
            if not self._runs or not self._inbox.empty():
                message = self._inbox.get()
                if isinstance(message, messages.Close):
                    return
                self._begin(message)
                continue
            self._engine.work_until(self._has_news)
            for number, run in list(self._runs.items()):
                if run.is_readable:
                    self._send_update(number, run)

    def _has_news(self) -> bool:
        self._steps += 1
        return not self._inbox.empty() or any(run.is_readable for run in self._runs.values())

    def _send_update(self, number: int, run: _RunningRequest) -> None:
        update = run.update()
        if run.is_over:
            del self._runs[number]
            self._cancelled.discard(number)
        self._send(update)

    def _begin(self, message: Any) -> None:
        """Start a request, or answer a call."""
        if isinstance(message, messages.Call):
            self._answer(message, self._calls)
            return
        number = message.request
        try:
            run = self._start(message)
        except Exception as error:
            self._send(messages.RequestUpdate(number, ending=error))
            return
        self._runs[number] = run
        if number in self._cancelled:  # cancelled while the request waited in the inbox
            run.cancel()

    def _start(self, message: Any) -> _RunningRequest:
        engine, supply = self._engine, self._supply
        on_tiles = self._tile_progress(message.request)
        if isinstance(message, messages.SubmitTiles):
            return _RunningEmbedding(message, engine.embed, supply, on_tiles)
        spans = remote_spans(message.spans, supply)
        tiles = [span.tile.key for span in spans if isinstance(span, TileSpan)]
        keys = [key for key in tiles if engine.cache.get(key) is None]
        if isinstance(message, messages.SubmitLogits):
            return _RunningLogits(message.request, engine.submit_logits(spans, on_tiles), supply, keys)
        answer = engine.submit(
            spans,
            message.sampling,
            on_tiles,
            evicts=message.evicts,
            top_logprobs=message.top_logprobs,
            logprobs_between=message.logprobs_between,
            grammar=message.grammar,
            thought=message.thought,
            candidates_of=message.candidates_of,
            tells_certainty=message.tells_certainty,
        )
        return _RunningAnswer(message.request, answer, engine.model.piece, supply, keys)

    def _tile_progress(self, number: int) -> TileProgress:
        def tell(done: int, total: int) -> None:
            run = self._runs.get(number)
            if isinstance(run, _RunningAnswer):  # how much of the prompt was read before these tiles
                self._send_update(number, run)
            self._send(messages.TilesEncoded(number, done, total))

        return tell

    def _answer(self, call: messages.Call, calls: object) -> None:
        try:
            update = messages.RequestUpdate(
                call.request, ending="stop", result=getattr(calls, call.method)(*call.arguments)
            )
        except Exception as error:
            update = messages.RequestUpdate(call.request, ending=error)
        self._send(update)


class _RunningAnswer:
    """A running request for an answer."""

    def __init__(
        self, number: int, handle: Handle, piece: Callable[[int], bytes], supply: TileSupply, keys: Sequence[bytes]
    ) -> None:
        self.is_over = False
        self._number, self._handle, self._piece = number, handle, piece
        self._supply, self._keys = supply, keys
        self._report: RequestReport | None = None
        self._n_sent = 0
        supply.want(keys)

    @property
    def is_readable(self) -> bool:
        read = self._report.prompt_read if self._report else 0
        return self._handle.is_readable or self._handle.report.prompt_read != read

    def cancel(self) -> None:
        self._handle.cancel()

    def update(self) -> messages.RequestUpdate:
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
        times, logprobs = handle.since(self._n_sent)
        self._n_sent += len(tokens)
        pieces = [*map(self._piece, tokens)]
        return messages.RequestUpdate(self._number, tokens, pieces, times, logprobs, report, ending)


class _RunningLogits:
    """A running request for logits."""

    def __init__(self, number: int, handle: LogitsHandle, supply: TileSupply, keys: Sequence[bytes]) -> None:
        self.is_over = False
        self._number, self._handle = number, handle
        self._supply, self._keys = supply, keys
        supply.want(keys)

    @property
    def is_readable(self) -> bool:
        return self._handle.is_over

    def cancel(self) -> None:
        self._handle.cancel()

    def update(self) -> messages.RequestUpdate:
        self.is_over = True
        self._supply.release(self._keys)
        try:
            logits = self._handle.result()
            return messages.RequestUpdate(self._number, report=self._handle.report, ending="stop", result=logits)
        except Exception as error:
            return messages.RequestUpdate(self._number, ending=error)


class _RunningEmbedding:
    """A request for the embeddings of tiles; they are all encoded in `update`."""

    def __init__(
        self, message: messages.SubmitTiles, embed: Callable[..., Any], supply: TileSupply, on_tiles: TileProgress
    ) -> None:
        self.is_over = False
        self.is_readable = True
        self._number = message.request
        self._tiles = [RemoteTile(key, supply) for key in message.keys]
        self._embed, self._on_tiles = embed, on_tiles
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True

    def update(self) -> messages.RequestUpdate:
        self.is_over = True
        try:
            embeddings = self._embed(self._tiles, self._on_tiles, lambda: self._is_cancelled)
            return messages.RequestUpdate(self._number, ending="stop", result=embeddings)
        except Exception as error:
            return messages.RequestUpdate(self._number, ending=error)


def remote_spans(spans: Sequence[Span], supply: TileSupply) -> list[Span]:
    """Return spans for the engine whose tiles get their pixels from the parent when they are encoded."""
    return [
        TileSpan(RemoteTile(span.tile.key, supply), span.length) if isinstance(span, TileSpan) else span
        for span in spans
    ]
