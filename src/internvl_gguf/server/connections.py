"""Bounds on connections: headers that come slowly, connections that say nothing, and too many of them.

uvicorn has no bound on the time that headers take; an idle connection, or one that drips a byte now and then, would be
held for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS: Final = 15.0
KEEP_ALIVE_SECONDS: Final = 60
_LISTENING: Final = 64  # descriptors for everything but connections
_MOST_CONNECTIONS: Final = 4096


class BoundedProtocol(H11Protocol):
    """One connection. Its whole request line and headers have to come in time, the first and each later one.

    Class attributes:
        most: most connections; when there are more, those that wait for a request are closed, the oldest first.
    """

    most: int = _MOST_CONNECTIONS
    header_seconds: float = HEADER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._header_timer: asyncio.TimerHandle | None = None
        self._since = self.loop.time()
        self._wait_for_headers(self.header_seconds)
        if len(self.connections) > self.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; once they are a whole request, its headers are waited for no more."""
        super().data_received(data)
        if not self.is_waiting:
            self._headers_came()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._since = self.loop.time()
        self._wait_for_headers(self.config.timeout_keep_alive + self.header_seconds)
        super().on_response_complete()
        if not self.is_waiting:  # it was here already
            self._headers_came()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_headers(self, seconds: float) -> None:
        self._headers_came()
        self._header_timer = self.loop.call_later(seconds, self._close)

    def _headers_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _make_room(self) -> None:
        waiting = [each for each in self.connections if isinstance(each, BoundedProtocol) and each.is_waiting]
        others: list[Any] = [each for each in waiting if each is not self]
        if others:
            min(others, key=lambda each: each._since)._close()
        else:
            self._close()


def raise_descriptor_limit() -> int:
    """Let this process have as many open files as the system allows, and return how many connections that is for."""
    most = _MOST_CONNECTIONS
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MOST_CONNECTIONS + _LISTENING
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
        if soft != resource.RLIM_INFINITY:
            most = min(most, max(soft - _LISTENING, 16))
    return most
