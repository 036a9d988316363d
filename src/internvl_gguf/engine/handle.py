"""What a caller holds of a request: wait for it, read it, cancel it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from internvl_gguf.errors import SessionStateError
from internvl_gguf.types import FinishReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.engine.tile_run import Report


class RequestState(Protocol):
    """How far a request is. Its engine writes it, a handle reads it.

    Attributes:
        report: what the prompt took so far.
        is_cancelled: nobody wants it any more.
        ending: why it is over, or the error that ended it; None while it goes on.
    """

    report: Report
    is_cancelled: bool
    ending: FinishReason | Exception | None


class AnswerState(RequestState, Protocol):
    """How far an answer is.

    Attributes:
        tokens: the answer so far, without the token that ended it.
        times: time.perf_counter() when each was there.
        handed_out: how many of them its reader has.
    """

    tokens: list[int]
    times: list[float]
    handed_out: int

    def has_news(self) -> bool:
        """Whether its reader would not have to wait."""
        ...


class LogitsState(RequestState, Protocol):
    """How far a request for logits is."""

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """The logits, float32 [n_vocab], once they are there."""
        ...


WorkUntil = Callable[[Callable[[], bool]], None]
"""Has all requests of an engine worked for until what it is given says that it is done."""


class Handle:
    """One answer under way. Made by `submit` of an engine.

    The answer goes on whenever anyone waits for any answer of the engine, read or not; what was not read yet waits in
    the handle. One thread reads a handle; any may cancel it.

    Args:
        request: how far it is.
        work_until: has the engine work.
        let_go: tells the engine that nobody wants it any more, from any thread.

    Attributes:
        finish_reason: why the answer ended, as far as it was read; None before, or where an error ended it.
    """

    def __init__(self, request: AnswerState, work_until: WorkUntil, let_go: Callable[[], None]) -> None:
        self._request = request
        self._work_until = work_until
        self._let_go = let_go
        self.finish_reason: FinishReason | None = None

    @property
    def tokens(self) -> list[int]:
        """The tokens read so far, without the one that ended the answer."""
        return self._request.tokens[: self._request.handed_out]

    @property
    def times(self) -> list[float]:
        """time.perf_counter() when each of `tokens` was there, read or not."""
        return self._request.times[: self._request.handed_out]

    @property
    def report(self) -> Report:
        """What the prompt took."""
        return self._request.report

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to read."""
        return self.finish_reason is not None or isinstance(self._request.ending, Exception)

    @property
    def has_news(self) -> bool:
        """Whether reading would not have to wait."""
        return self._request.has_news()

    def stream(self) -> Iterator[int]:
        """The tokens of the answer as they come. Closing the iterator cancels the rest.

        Raises:
            InternVLError: what ended this answer before its time; the others go on.
        """
        try:
            while (token := self._next()) is not None:
                yield token
        finally:
            self.cancel()

    def result(self) -> list[int]:
        """All tokens of the answer, when it is over; the rest of it is cancelled if waiting is interrupted.

        Raises:
            InternVLError: as `stream`.
        """
        for _ in self.stream():
            pass
        return self.tokens

    def ready(self) -> Iterator[int]:
        """The tokens that are there and were not read yet, without waiting.

        Raises:
            InternVLError: as `stream`.
        """
        while self.finish_reason is None and self.has_news:
            token = self._next()
            if token is not None:
                yield token

    def cancel(self, reason: FinishReason = "aborted") -> None:
        """End the answer here, from any thread; one that was read to its end stays as it is.

        Args:
            reason: its `finish_reason` from now on; "stop" where the reader found a stop string.
        """
        request = self._request
        if self.is_over:
            return
        ending = request.ending
        if isinstance(ending, str) and request.handed_out == len(request.tokens):
            self.finish_reason = ending
            return
        self.finish_reason = reason
        self._let_go()

    def _next(self) -> int | None:
        """The next token, waited for; None at the end."""
        request = self._request
        while self.finish_reason is None:
            ending = request.ending  # looked at before the tokens: the last of them may come with it
            if request.handed_out < len(request.tokens):
                request.handed_out += 1
                return request.tokens[request.handed_out - 1]
            if isinstance(ending, Exception):
                raise ending
            if ending is not None:
                self.finish_reason = ending
            else:
                self._work_until(request.has_news)
        return None


class LogitsHandle:
    """Logits under way. Made by `submit_logits` of an engine."""

    def __init__(self, request: LogitsState, work_until: WorkUntil, let_go: Callable[[], None]) -> None:
        self._waiting = _Waiting(request, work_until, let_go)
        self._request = request

    @property
    def is_over(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._waiting.is_over

    def result(self) -> NDArray[np.float32]:
        """Logits of the token after the prompt, float32 [n_vocab].

        Raises:
            SessionStateError: it was cancelled.
            InternVLError: what else ended it.
        """
        self._waiting.wait()
        if self._request.logits is None:
            raise stopped()
        return self._request.logits

    def cancel(self) -> None:
        """It is not wanted any more; from any thread."""
        self._waiting.cancel()


class ScoreHandle:
    """Logits of many positions under way. Made by `Engine.submit_scores`."""

    def __init__(self, request: RequestState, work_until: WorkUntil, let_go: Callable[[], None]) -> None:
        self._waiting = _Waiting(request, work_until, let_go)
        self._request = request

    @property
    def is_over(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._waiting.is_over

    def result(self) -> Report:
        """What it took, once all rows were handed on.

        Raises:
            SessionStateError: it was cancelled.
            InternVLError: what else ended it, or what the receiver of the rows raised.
        """
        self._waiting.wait()
        if self._request.ending != "stop":
            raise stopped()
        return self._request.report

    def cancel(self) -> None:
        """It is not wanted any more; from any thread."""
        self._waiting.cancel()


class _Waiting:
    """For a request with one result: wait until it is over, or give it up."""

    def __init__(self, request: RequestState, work_until: WorkUntil, let_go: Callable[[], None]) -> None:
        self._request = request
        self._work_until = work_until
        self._let_go = let_go

    @property
    def is_over(self) -> bool:
        return self._request.ending is not None or self._request.is_cancelled

    def wait(self) -> None:
        """Until it is over; raises what ended it."""
        try:
            self._work_until(lambda: self.is_over)
        finally:
            self.cancel()
        if isinstance(self._request.ending, Exception):
            raise self._request.ending

    def cancel(self) -> None:
        if self._request.ending is None:
            self._let_go()


def stopped() -> SessionStateError:
    """The error of a request with one result that was cancelled."""
    return SessionStateError("The request was stopped by abort().", "Ask again.")
