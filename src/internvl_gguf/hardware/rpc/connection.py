"""A connection to a ggml RPC server that keeps a time limit (ggml/src/ggml-rpc/ggml-rpc.cpp).

A request is a byte for the command, 8 bytes for the size of the data, and the data; an answer is the same without a
command. Numbers are little-endian. The first request of a connection is HELLO, whose number keeps its place in every
version, and whose answer begins with the version.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from enum import IntEnum
from types import TracebackType
from typing import Final, Self

from internvl_gguf.errors import RPCServerError
from internvl_gguf.utils.rpc_addresses import RPCAddress

_SIZE: Final = struct.Struct("<Q")
_ABORT: Final = struct.pack("ii", 1, 0)  # struct linger: close at once
_LONGEST_ANSWER: Final = 4096
_PIECE: Final = 65536


class Command(IntEnum):
    """The commands that are used here (`rpc_cmd`)."""

    ALLOC_BUFFER = 0
    BUFFER_GET_BASE = 3
    FREE_BUFFER = 4
    SET_TENSOR = 6
    GET_TENSOR = 8
    GET_DEVICE_MEMORY = 11
    HELLO = 14
    DEVICE_COUNT = 15


class Connection:
    """A connection to one server; a context manager that closes it.

    Args:
        address: where it listens.
        seconds: limit for everything that is done with the connection.

    Attributes:
        endpoint: the numeric address that it was reached at, "127.0.0.1:50052".

    Raises:
        RPCServerError: nobody listens there, or the name is not known.
    """

    def __init__(self, address: RPCAddress, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        try:
            place = socket.getaddrinfo(address.host, address.port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
            self._socket = socket.create_connection((str(place[0]), address.port), self._left())
        except TimeoutError:
            raise self._silent() from None
        except (OSError, UnicodeError) as error:
            raise RPCServerError(
                f"The RPC server {address} cannot be reached: {getattr(error, 'strerror', None) or error}.",
                f"Start one there (`internvl rpc-server --port {address.port}`), or name another one (rpc).",
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.endpoint = f"{place[0]}:{address.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A busy server reads what it was asked once it has time. Its answer to a connection that was closed in order
        # would end llama.cpp's own server by SIGPIPE; from one that was reset its first write returns an error.
        if kind is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._socket.close()

    def ask(self, command: Command, data: bytes = b"", *, longest: int = _LONGEST_ANSWER) -> bytes:
        """Send a command and return the answer.

        Args:
            command: the command.
            data: its data.
            longest: most bytes of the answer; more is no answer of such a server.

        Raises:
            RPCServerError: no answer in time, or none that such a server gives.
        """
        self.tell(command, data)
        (size,) = _SIZE.unpack(self._receive(_SIZE.size))
        if size > longest:
            raise self._foreign()
        return self._receive(size)

    def tell(self, command: Command, data: bytes = b"") -> None:
        """Send a command that has no answer.

        Raises:
            RPCServerError: it could not be sent in time.
        """
        message = bytes([command]) + _SIZE.pack(len(data)) + data
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(message)
        except TimeoutError:
            raise self._silent() from None
        except OSError:
            raise self._foreign() from None

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            try:
                self._socket.settimeout(self._left())
                piece = self._socket.recv(min(size - len(received), _PIECE))
            except TimeoutError:
                raise self._silent() from None
            except OSError:
                raise self._foreign() from None
            if not piece:
                raise self._foreign()
            received += piece
        return bytes(received)

    def _left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _silent(self) -> RPCServerError:
        return RPCServerError(
            f"The RPC server {self._address} gave no answer in {self._seconds:g} seconds: it is busy with another "
            "client, stopped, or out of reach.",
            "It serves one client at a time: end the other one, or name another server (rpc).",
        )

    def _foreign(self) -> RPCServerError:
        return RPCServerError(
            f"What listens at {self._address} does not answer as an RPC server of this llama.cpp.",
            "Both sides need the same version of llama.cpp; the port may be another program's.",
        )
