"""Run llama.cpp's RPC server in a child process: start it, see that it answers, bound what it keeps."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from internvl_gguf.errors import InvalidRequestError, LibraryError, RPCServerError
from internvl_gguf.hardware.rpc.handshake import ServerReport, ask_server
from internvl_gguf.hardware.rpc.protocol import COMMAND, installed_protocol
from internvl_gguf.utils.child_process import end_child, error_file, start_child, stdin_of, stdout_of
from internvl_gguf.utils.process_end import describe_end, last_error_line
from internvl_gguf.utils.rpc_addresses import RPCAddress

_STARTING_SECONDS: Final = 120.0  # a slow disk has to read Python and the libraries, a GPU to wake
_POLL_SECONDS: Final = 0.05
_EVERYWHERE: Final = "0.0.0.0"
_ACCEPTED, _CLOSED = b"Accepted client connection", b"Client connection closed"
_STAYING_SECONDS: Final = 1.0
"""A client that stays connected for so long uses the server; one that only asks what the server is leaves at once."""


@dataclass(frozen=True)
class ServerSettings:
    """The settings of a server.

    Attributes:
        address: where it listens, in numbers.
        devices: names of the devices; empty for all GPUs, or the CPU where there is none.
        n_threads: threads of the CPU.
        cache: folder of weights that clients sent; None keeps none.
        cache_bytes: most bytes in it.
    """

    address: RPCAddress
    devices: tuple[str, ...]
    n_threads: int
    cache: Path | None = None
    cache_bytes: int = 0


def free_port(host: str, port: int) -> int:
    """Return a port that can be listened on; 0 asks for any.

    Raises:
        InvalidRequestError: it cannot be had.
    """
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name != "nt")
        try:
            tried.bind((host, port))
            tried.listen(1)
        except OSError as error:
            what = "Another program listens on" if error.errno == errno.EADDRINUSE else "This machine cannot listen on"
            raise InvalidRequestError(f"{what} {host}:{port}.", "Use another --port.") from None
        return int(tried.getsockname()[1])


@contextlib.contextmanager
def running_server(settings: ServerSettings) -> Iterator[tuple[ServerReport, Iterator[str]]]:
    """Run a server, which ends with the block.

    Yields:
        The server's report, as a client gets it, and an iterator over the lines of `client_lines`, until it ends.

    Raises:
        LibraryError: the installed llama.cpp has no RPC, or the server ended.
    """
    installed_protocol()
    with error_file() as errors:
        process = start_child(COMMAND, errors)
        try:
            cache = settings.cache
            if cache is not None:
                cache.mkdir(parents=True, exist_ok=True)
                prune(cache, settings.cache_bytes)
            request = {
                "task": "serve",
                "endpoint": str(settings.address),
                "devices": settings.devices,
                "threads": settings.n_threads,
                "cache": None if cache is None else str(cache),
            }
            stdin_of(process).write(f"{json.dumps(request)}\n".encode())
            stdin_of(process).flush()  # stays open: the server ends when it is closed

            def ended() -> LibraryError:
                what = describe_end(process.wait(), last_error_line(errors).removeprefix("Error: "))
                return LibraryError(f"The RPC server {what}.", "`internvl doctor` says how the library does here.")

            report = None
            end = time.monotonic() + _STARTING_SECONDS
            while report is None:
                if process.poll() is not None or time.monotonic() > end:
                    process.kill()
                    raise ended()
                report = _asked(settings.address)

            def tidy() -> None:
                if cache is not None:
                    prune(cache, settings.cache_bytes)

            def lines() -> Iterator[str]:
                yield from client_lines(stdout_of(process), tidy)
                raise ended()

            yield report, lines()
        finally:
            end_child(process)


def client_lines(
    output: Iterable[bytes], on_change: Callable[[], None], seconds: float = _STAYING_SECONDS
) -> Iterator[str]:
    """Yield a line for each client that stays, and another when it goes; those that only ask have none.

    Args:
        output: what the native server prints, by lines.
        on_change: called whenever a client comes or goes.
        seconds: how long a client is connected that stays.
    """
    events: queue.SimpleQueue[bool | None] = queue.SimpleQueue()  # whether a client is there; None at the end

    def read() -> None:
        for line in output:
            if line.startswith((_ACCEPTED, _CLOSED)):
                events.put(line.startswith(_ACCEPTED))
        events.put(None)

    threading.Thread(target=read, daemon=True).start()
    is_here = is_told = False
    while True:
        try:
            event = events.get(timeout=seconds)
        except queue.Empty:
            if is_here and not is_told:
                is_told = True
                yield "A client is here."
            continue
        if event is None:
            return
        on_change()
        is_here = event
        if is_told and not is_here:
            is_told = False
            yield "It has gone."


def _asked(address: RPCAddress) -> ServerReport | None:
    """Return what a server says; None, after a moment, as long as nobody listens."""
    near = replace(address, host="127.0.0.1") if address.host == _EVERYWHERE else address
    try:
        return ask_server(near, None)
    except RPCServerError:
        time.sleep(_POLL_SECONDS)
        return None


def prune(folder: Path, most: int) -> None:
    """Remove the oldest files of a folder, so that the others take at most so many bytes."""
    kept = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                status = path.stat()
                kept.append((status.st_mtime_ns, status.st_size, path))
    left = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if left <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            left -= size
