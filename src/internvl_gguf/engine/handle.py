"""Handles of running requests: callers wait for a request, read it and cancel it through its handle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from internvl_gguf.errors import SessionStateError
from internvl_gguf.types import FinishReason, TokenLogprobs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.engine.tile_run import RequestReport


class RequestState(Protocol):
    """State of a request. Its engine writes it, a handle reads it.

    Attributes:
        report: counters and times so far.
        is_cancelled: whether the caller has cancelled it.
        ending: its finish reason, or the error that ended it; None while it goes on.
    """

    report: RequestReport
    is_cancelled: bool
    ending: FinishReason | Exception | None


class AnswerState(RequestState, Protocol):
    """State of a request for an answer.

    Attributes:
        tokens: the answer so far, without the token that ended it.
        times: time.perf_counter() at which each token was sampled.
        logprobs: how likely each token was; empty unless that was asked for.
        n_delivered: number of tokens that its reader has received.
    """

    tokens: list[int]
    times: list[float]
    logprobs: list[TokenLogprobs]
    n_delivered: int

    def is_readable(self) -> bool:
        """Return whether its reader would not have to wait."""
        ...


class LogitsState(RequestState, Protocol):
    """State of a request for logits."""

    @property
    def logits(self) -> NDArray[np.float32] | None:
        """The logits, float32 [n_vocab]; None before they are computed."""
        ...


WorkUntil = Callable[[Callable[[], bool]], None]
"""Works for all requests of an engine, or waits while another thread does, until the given function returns True."""


class Handle:
    """Handle of a running answer. Made by `submit` of an engine.

    The answer goes on whenever any thread waits for any answer of the engine; tokens that were not read yet are kept
    for the reader. One thread reads a handle; any thread may cancel it.

    Args:
        request: state of the request.
        work_until: makes the engine work.
        on_cancel: cancels the request in the engine; callable from any thread.

    Attributes:
        finish_reason: why the answer ended, as far as it was read; None before, or where an error ended it.
    """

    def __init__(self, request: AnswerState, work_until: WorkUntil, on_cancel: Callable[[], None]) -> None:
        self._request = request
        self._work_until = work_until
        self._on_cancel = on_cancel
        self.finish_reason: FinishReason | None = None

    @property
    def tokens(self) -> list[int]:
        """The tokens read so far, without the one that ended the answer."""
        return self._request.tokens[: self._request.n_delivered]

    @property
    def times(self) -> list[float]:
        """time.perf_counter() at which each of `tokens` was sampled, whenever it was read."""
        return self._request.times[: self._request.n_delivered]

    @property
    def logprobs(self) -> list[TokenLogprobs]:
        """How likely each of `tokens` was; empty unless that was asked for."""
        return self._request.logprobs[: self._request.n_delivered]

    def since(self, start: int) -> tuple[list[float], list[TokenLogprobs]]:
        """Return `times` and `logprobs` from the token number `start` on, however long the answer is before it."""
        end = self._request.n_delivered
        return self._request.times[start:end], self._request.logprobs[start:end]

    @property
    def report(self) -> RequestReport:
        """Counters and times of the request."""
        return self._request.report

    @property
    def is_over(self) -> bool:
        """Whether the answer has ended and was read to its end."""
        return self.finish_reason is not None or isinstance(self._request.ending, Exception)

    @property
    def is_readable(self) -> bool:
        """Whether reading would not have to wait."""
        return self._request.is_readable()

    def stream(self) -> Iterator[int]:
        """Yield the tokens of the answer as they come. Closing the iterator cancels the rest.

        Raises:
            InternVLError: the error that ended this answer; other answers go on.
        """
        try:
            while (token := self._next()) is not None:
                yield token
        finally:
            self.cancel()

    def result(self) -> list[int]:
        """Wait for the end of the answer and return all its tokens; an interrupted wait cancels the rest.

        Raises:
            InternVLError: as in `stream`.
        """
        for _ in self.stream():
            pass
        return self.tokens

    def ready(self) -> Iterator[int]:
        """Yield the tokens that were sampled and not read yet, without waiting.

        Raises:
            InternVLError: as in `stream`.
        """
        while self.finish_reason is None and self.is_readable:
            token = self._next()
            if token is not None:
                yield token

    def cancel(self, reason: FinishReason = "aborted") -> None:
        """End the answer here; callable from any thread. An answer that was read to its end stays as it is.

        Args:
            reason: its `finish_reason` from now on; "stop" if the reader found a stop string.
        """
        request = self._request
        if self.is_over:
            return
        ending = request.ending
        if isinstance(ending, str) and request.n_delivered == len(request.tokens):
            self.finish_reason = ending
            return
        self.finish_reason = reason
        self._on_cancel()

    def _next(self) -> int | None:
        """Wait for the next token and return it; None at the end."""
        request = self._request
        while self.finish_reason is None:
            ending = request.ending  # read before the tokens: the last of them may come with it
            if request.n_delivered < len(request.tokens):
                request.n_delivered += 1
                return request.tokens[request.n_delivered - 1]
            if isinstance(ending, Exception):
                raise ending
            if ending is not None:
                self.finish_reason = ending
            else:
                self._work_until(request.is_readable)
        return None


class LogitsHandle:
    """Handle of a request for logits. Made by `submit_logits` of an engine."""

    def __init__(self, request: LogitsState, work_until: WorkUntil, on_cancel: Callable[[], None]) -> None:
        self._waiting = _ResultWaiter(request, work_until, on_cancel)
        self._request = request

    @property
    def is_over(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._waiting.is_over

    @property
    def report(self) -> RequestReport:
        """Counters and times of the request."""
        return self._request.report

    def result(self) -> NDArray[np.float32]:
        """Wait for the logits of the token after the prompt and return them, float32 [n_vocab].

        Raises:
            SessionStateError: the request was cancelled.
            InternVLError: any other error that ended it.
        """
        self._waiting.wait()
        if self._request.logits is None:
            raise cancelled_error()
        return self._request.logits

    def cancel(self) -> None:
        """Cancel the request; callable from any thread."""
        self._waiting.cancel()


class ScoreHandle:
    """Handle of a request for the logits of many positions. Made by `Engine.submit_scores`."""

    def __init__(self, request: RequestState, work_until: WorkUntil, on_cancel: Callable[[], None]) -> None:
        self._waiting = _ResultWaiter(request, work_until, on_cancel)
        self._request = request

    @property
    def is_over(self) -> bool:
        """Whether `result` would not have to wait."""
        return self._waiting.is_over

    def result(self) -> RequestReport:
        """Wait until all rows were passed to `on_row`, and return the counters and times of the request.

        Raises:
            SessionStateError: the request was cancelled.
            InternVLError: any other error that ended it, that of `on_row` included.
        """
        self._waiting.wait()
        if self._request.ending != "stop":
            raise cancelled_error()
        return self._request.report

    def cancel(self) -> None:
        """Cancel the request; callable from any thread."""
        self._waiting.cancel()


class _ResultWaiter:
    """Waits for a request that has a single result, or cancels it."""

    def __init__(self, request: RequestState, work_until: WorkUntil, on_cancel: Callable[[], None]) -> None:
        self._request = request
        self._work_until = work_until
        self._on_cancel = on_cancel

    @property
    def is_over(self) -> bool:
        return self._request.ending is not None or self._request.is_cancelled

    def wait(self) -> None:
        """Wait until the request has ended; raise the error that ended it."""
        try:
            self._work_until(lambda: self.is_over)
        finally:
            self.cancel()
        if isinstance(self._request.ending, Exception):
            raise self._request.ending

    def cancel(self) -> None:
        if self._request.ending is None:
            self._on_cancel()


def cancelled_error() -> SessionStateError:
    """Return the error of a cancelled request that has a single result."""
    return SessionStateError("The request was cancelled by abort().", "Ask again.")
