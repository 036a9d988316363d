"""A stand-in for a ggml RPC server: it listens on loopback and speaks what the handshake needs, or something else."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

GIB = 2**30
HELLO = 14
VERSION = (7, 0, 0)  # of the llama.cpp that the package is made for


@dataclass
class StandIn:
    """Such a server, one client at a time.

    Attributes:
        version: what it answers to HELLO; bytes are sent as they are.
        devices: free and total bytes of each device.
        has_room: whether it can allocate a buffer.
        endings: what ended each connection: "closed", or "reset".
        endpoint: where it listens.
    """

    version: tuple[int, int, int] | bytes = VERSION
    devices: tuple[tuple[int, int], ...] = ((16 * GIB, 16 * GIB),)
    has_room: bool = True
    endings: list[str] = field(default_factory=list)
    endpoint: str = ""

    def serve(self, listening: socket.socket) -> None:
        """Serve until the socket is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client:
                    self._serve_one(client)

    def _serve_one(self, client: socket.socket) -> None:
        stored = b""
        try:
            while command := client.recv(1):
                (size,) = struct.unpack("<Q", _exactly(client, 8))
                data = _exactly(client, size)
                if command[0] == 6:
                    stored = data[-(2**20) :]
                    continue
                if command[0] == 4:
                    continue
                answer = self._answer(command[0], data, stored)
                client.sendall(answer if answer == self.version else struct.pack("<Q", len(answer)) + answer)
        except ConnectionResetError:
            self.endings.append("reset")
        except (EOFError, BrokenPipeError):
            self.endings.append("broken")
        else:
            self.endings.append("closed")

    def _answer(self, command: int, data: bytes, stored: bytes) -> bytes:
        if command == HELLO:
            return self.version if isinstance(self.version, bytes) else bytes(self.version) + bytes(25)
        if command == 15:
            return struct.pack("<I", len(self.devices))
        if command == 11:
            return struct.pack("<QQ", *self.devices[struct.unpack("<I", data)[0]])
        if command == 0:
            size = struct.unpack("<IQ", data)[1]
            return struct.pack("<QQ", 4096, size) if self.has_room else bytes(16)
        if command == 3:
            return struct.pack("<Q", 2**40)
        assert command == 8, command
        assert len(data) == 296 + 16
        return stored


def _exactly(client: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = client.recv(size - len(received))
        if not piece:
            raise EOFError
        received += piece
    return bytes(received)


@contextlib.contextmanager
def stand_in(server: StandIn | None = None) -> Iterator[StandIn]:
    """Run one."""
    server = server or StandIn()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.endpoint = f"127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Listen, and accept nobody: what a busy server looks like, and one that is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def dropping() -> Iterator[str]:
    """Listen with a queue that is full: Linux drops the packets of who connects, as a firewall does."""
    with socket.socket() as listening, contextlib.ExitStack() as held:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        with contextlib.suppress(TimeoutError):
            while True:
                held.enter_context(socket.create_connection(listening.getsockname(), 0.3))
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """A port where nobody listens as long as this one holds it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
