"""Open the port, and run the service until a signal ends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import uvicorn

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.models.local_files import ModelFiles
from internvl_gguf.server.app import Service, ServiceSettings
from internvl_gguf.server.connections import KEEP_ALIVE_SECONDS, BoundedProtocol, raise_descriptor_limit
from internvl_gguf.server.guard import is_loopback
from internvl_gguf.server.model_pool import ModelPool, ModelSettings, ServedModel
from internvl_gguf.utils.notices import Notice

_LONGEST_HEADERS: Final = 32 * 1024
_BACKLOG: Final = 1024
_LAST_SECONDS: Final = 2  # for the last words of requests that were ended


@dataclass(frozen=True)
class ListenSettings:
    """How the service ends, and how it is encrypted.

    Attributes:
        grace_seconds: seconds that requests under way have to finish after a signal.
        certificate: file of a TLS certificate; None for no TLS.
        private_key: file of its key.
    """

    grace_seconds: float = 30.0
    certificate: str | None = None
    private_key: str | None = None


def listen(host: str, port: int) -> socket.socket:
    """Open a port; 0 takes a free one.

    Raises:
        InvalidRequestError: the name is not known, or the port cannot be had.
    """
    shown = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InvalidRequestError(f"The host {host} is not known.", "Use 127.0.0.1.") from None
    family, kind, protocol, _, address = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        hint = "Use another --port."
        if error.errno == errno.EADDRINUSE:
            raise InvalidRequestError(f"Another program listens on {shown} already.", hint) from None
        if error.errno == errno.EACCES:
            raise InvalidRequestError(f"There is no permission to listen on {shown}.", hint) from None
        raise InvalidRequestError(f"{shown} cannot be listened on: {error.strerror}.", "Use another --host.") from None
    opened.setblocking(False)
    return opened


def address_of(opened: socket.socket, host: str, *, is_encrypted: bool) -> str:
    """Return the URL at which a browser on this machine finds the service, and whether others find it, too.

    Args:
        opened: the port.
        host: the name that it was opened by.
        is_encrypted: whether it has a certificate.
    """
    host = host if is_loopback(host) else opened.getsockname()[0]
    port = opened.getsockname()[1]
    is_for_all = host in ("0.0.0.0", "::")
    if is_for_all:
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    others = f" and, for other machines, on port {port} of this one" if is_for_all else ""
    return f"{'https' if is_encrypted else 'http'}://{shown}:{port}{others}"


def serve(
    models: Sequence[tuple[str, ModelFiles]],
    aliases: Sequence[str],
    model_settings: ModelSettings,
    service_settings: ServiceSettings,
    listening: ListenSettings,
    opened: socket.socket,
    tell: Notice,
) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    Args:
        models: names and files of the models.
        aliases: other names of the first.
        model_settings, service_settings, listening: how, what, where.
        opened: the port, from `listen`.
        tell: tells the owner something, in one line.
    """
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of each bad request of a stranger
    BoundedProtocol.most = raise_descriptor_limit()
    asyncio.run(_run(models, aliases, model_settings, service_settings, listening, opened, tell))


async def _run(
    models: Sequence[tuple[str, ModelFiles]],
    aliases: Sequence[str],
    model_settings: ModelSettings,
    service_settings: ServiceSettings,
    listening: ListenSettings,
    opened: socket.socket,
    tell: Notice,
) -> None:
    served = [ServedModel(name, files, model_settings) for name, files in models]
    pool = ModelPool(served, aliases, model_settings, tell)
    service = Service(pool, service_settings)
    server = _Server(
        uvicorn.Config(
            service.app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_LAST_SECONDS,
            h11_max_incomplete_event_size=_LONGEST_HEADERS,
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.private_key,
        )
    )
    stop = _StopSignals()
    with stop.caught():
        pool.start()
        serving = asyncio.create_task(server.serve(sockets=[opened]))
        await asyncio.wait({serving, asyncio.create_task(stop.first.wait())}, return_when=asyncio.FIRST_COMPLETED)
        service.is_stopping = True
        if service.busy:
            some = "one request has" if service.busy == 1 else f"{service.busy} requests have"
            tell(f"Stopping: {some} {listening.grace_seconds:g} s to finish; Ctrl-C again ends that at once.")
        end = time.monotonic() + listening.grace_seconds
        while service.busy and time.monotonic() < end and not stop.second.is_set():
            await asyncio.sleep(0.05)
        pool.end_requests()
        server.should_exit = True
        await serving
        await service.close()


class _Server(uvicorn.Server):
    """A server of uvicorn that leaves signals alone: its own way ends the process by the signal, not with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _StopSignals:
    """Notes SIGTERM and Ctrl-C.

    Attributes:
        first: set by the first of them.
        second: set by the second.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals during a `with` statement."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._note)) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self) -> None:
        (self.second if self.first.is_set() else self.first).set()
