"""Send an answer, whole or as server-sent events, while listening whether the client is still there.

What can be said with an HTTP status is said so: the stream begins with its first event, or after a few seconds. An
error later is an event of its own, after which the stream ends without its usual last words. While nothing else is to
be sent, comments are: proxies cut connections that are silent, and a long picture takes minutes on a CPU.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from internvl_gguf.server.answering import AnswerEvent, Progress
from internvl_gguf.server.api_errors import Failure, failure_of, is_expected
from internvl_gguf.server.json_body import ClientLeftError

logger: Final = logging.getLogger("internvl_gguf.server")
Result = TypeVar("Result")

PING_SECONDS: Final = 10.0
_BEGIN_SECONDS: Final = 3.0
_HEADERS: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
                   (b"x-accel-buffering", b"no"))  # fmt: skip
_GONE: Final = 499  # as nginx counts a client that closed its request

_LINE_ENDS: Final = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""Characters at which some clients end a line, though the standard of server-sent events does not."""

ErrorBody = Callable[[Failure], dict[str, Any]]
"""Makes the body of an error, in the shape of an interface."""


@dataclass(frozen=True)
class Frame:
    """One server-sent event.

    Attributes:
        data: its data: a JSON object, or a word as it is.
        event: its name; None for none.
    """

    data: Mapping[str, Any] | str
    event: str | None = None

    def encoded(self) -> bytes:
        """Return it as it is sent."""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data, ensure_ascii=False)
        data = data.translate(_LINE_ENDS)
        name = f"event: {self.event}\n" if self.event else ""
        return f"{name}data: {data}\n\n".encode()


def comment(progress: Progress) -> bytes:
    """Return a progress as a comment of a stream, which clients pass over."""
    return f": {progress.phase} {progress.done}/{progress.total}\n\n".encode()


class Outcome:
    """What became of a request, for the counters. `responded` is called once with its status."""

    def __init__(self, responded: Callable[[int], None], cancelled: Callable[[], None]) -> None:
        self._responded = responded
        self._cancelled = cancelled

    def end(self, status: int) -> None:
        """Note the HTTP status of the response; 499 for a client that left."""
        if status == _GONE:
            self._cancelled()
        self._responded(status)


async def whole(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for the answer to a request as long as its client is there.

    Raises:
        ClientLeftError: the client left; the work was cancelled and has ended.
        What the work raises.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        watcher.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class EventStream(Response):
    """A streamed answer.

    Args:
        events: what the answer brings; closed at the end, whatever ends it.
        frames: makes the frames of an event; those of the end come with the last event.
        error_body: shape of an error.
        error_event: name of the event that tells an error; None for none.
        tells_progress: whether progress is told by events, made by `frames`; else by comments.
        outcome: told what became of it.
    """

    def __init__(
        self,
        events: AsyncGenerator[AnswerEvent],
        frames: Callable[[AnswerEvent], list[Frame]],
        error_body: ErrorBody,
        error_event: str | None,
        outcome: Outcome,
        *,
        tells_progress: bool,
    ) -> None:
        self._events = events
        self._frames = frames
        self._error_body = error_body
        self._error_event = error_event
        self._outcome = outcome
        self._tells_progress = tells_progress
        self._has_begun = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        watcher = asyncio.ensure_future(_left(receive))
        sending = asyncio.ensure_future(self._send(send))
        try:
            await asyncio.wait({watcher, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watcher.cancel()
            if not sending.done():
                sending.cancel()
                self._outcome.end(_GONE)
            with suppress(asyncio.CancelledError):
                await sending

    async def _send(self, send: Send) -> None:
        try:
            async with aclosing(self._payloads()) as payloads:
                async for payload in payloads:
                    await self._begin(send)
                    await send({"type": "http.response.body", "body": payload, "more_body": True})
        except Exception as error:
            if not is_expected(error):
                logger.exception("A request failed")
            failure = failure_of(error)
            if not self._has_begun:
                response = JSONResponse(self._error_body(failure), failure.status, headers=failure.headers)
                self._outcome.end(failure.status)
                await response({"type": "http"}, _nothing, send)
                return
            frame = Frame(self._error_body(failure), self._error_event)
            await send({"type": "http.response.body", "body": frame.encoded(), "more_body": True})
            self._outcome.end(failure.status)
        else:
            self._outcome.end(200)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        if not self._has_begun:
            self._has_begun = True
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})

    async def _payloads(self) -> AsyncGenerator[bytes]:
        """Yield what is sent: frames of events, and comments in silence."""
        async with aclosing(self._events) as events:
            waiting: asyncio.Future[AnswerEvent] | None = None
            last: Progress | None = None
            begin_at = time.monotonic() + _BEGIN_SECONDS  # however much progress there is until then
            try:
                while True:
                    waiting = waiting or asyncio.ensure_future(anext(events))
                    left = max(begin_at - time.monotonic(), 0)
                    await asyncio.wait({waiting}, timeout=PING_SECONDS if self._has_begun else left)
                    if not waiting.done():
                        for payload in self._in_silence(last):
                            yield payload
                        continue
                    event, waiting = _taken(waiting), None
                    if event is None:
                        return
                    if isinstance(event, Progress):
                        last = event
                        is_early = not self._has_begun and time.monotonic() < begin_at
                        # Until then it may still end in an error that has a status.
                        if is_early and not (self._tells_progress and event.phase in ("encoding", "reading")):
                            continue
                        if not self._tells_progress:
                            yield comment(event)
                            continue
                    for frame in self._frames(event):
                        yield frame.encoded()
            finally:
                if waiting:
                    waiting.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)

    def _in_silence(self, last: Progress | None) -> list[bytes]:
        """Return what is sent while nothing happens: the last progress again."""
        if last is None:
            return [b": waiting\n\n"]
        if not self._tells_progress:
            return [comment(last)]
        return [frame.encoded() for frame in self._frames(last)]


def _taken(done: asyncio.Future[AnswerEvent]) -> AnswerEvent | None:
    """Return the next event; None at the end."""
    try:
        return done.result()
    except StopAsyncIteration:
        return None


async def _left(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
