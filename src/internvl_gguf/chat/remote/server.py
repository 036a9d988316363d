"""An OpenAI-compatible server: its models, its answers, and what it says about the room that a prompt takes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from internvl_gguf._version import __version__
from internvl_gguf.chat.remote.address import Address
from internvl_gguf.chat.remote.event_stream import EventTooLargeError, event_data
from internvl_gguf.chat.remote.faults import (
    CONNECT_SECONDS,
    SILENT_SECONDS,
    connection_fault,
    not_a_server,
    refusal,
    refused,
)
from internvl_gguf.errors import ServerError
from internvl_gguf.models.network import new_client

_OURS: Final = "internvl-gguf"
_MODELS, _CHAT, _MEASURE = "/v1/models", "/v1/chat/completions", "/v1/chat/completions/input_tokens"
_LARGEST_DOCUMENT: Final = 8 * 2**20
_LARGEST_REFUSAL: Final = 64 * 2**10
_PATIENCE, _MEASURING_PATIENCE = 30.0, 10.0
"""Seconds of silence until what takes no work of the model is given up: the list of models, and a count of tokens."""
_MOST_MODELS: Final = 10_000
_LONGEST_NAME: Final = 500
_END: Final = "[DONE]"
_LIMITS: Final = httpx2.Limits(max_keepalive_connections=0)
"""Each request has a connection of its own, which can be cut off without harm to another."""


@dataclass(frozen=True)
class ServedModel:
    """A model that a server lists.

    Attributes:
        name: its name.
        is_ours: whether the server is `internvl serve`.
        n_ctx: positions of its context; None where the server does not say it, or not yet.
        tile_size: pixels of the side of its tiles; None where the server does not say it, or not yet.
        can_think: whether it can think before it answers; None where the server does not say it.
    """

    name: str
    is_ours: bool = False
    n_ctx: int | None = None
    tile_size: int | None = None
    can_think: bool | None = None


class Line:
    """The connection of one request, which another thread may cut.

    Attributes:
        is_cut: whether it was cut.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def cut(self) -> None:
        """End the request: what waits for the server returns at once, and the server sees that nobody reads on."""
        with self._lock:
            self.is_cut = True
            self._shut()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take the socket of the connection from the trace of the HTTP client."""
        stream = info.get("return_value")
        if event.endswith(("connect_tcp.complete", "start_tls.complete")) and stream is not None:
            with self._lock:
                self._socket = stream.get_extra_info("socket")
                if self.is_cut:
                    self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed already
                # Of the plain socket, also under TLS, whose own shutdown would take its state from a thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class ModelServer:
    """A server at an address.

    Args:
        address: its address and key.

    Raises:
        HubError: a variable for proxies or certificates that cannot be used.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        key = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        arguments: dict[str, Any] = {"transport": httpx2.HTTPTransport(limits=_LIMITS)} if address.is_here else {}
        self._client = new_client(
            address.url,
            headers={**key, "Accept-Encoding": "identity", "User-Agent": f"internvl-gguf/{__version__}"},
            limits=_LIMITS,
            **arguments,  # a proxy does not lead back to this machine
        )

    def models(self) -> list[ServedModel]:
        """Return the models that it lists.

        Raises:
            ServerError: it cannot be reached, or is no such server.
        """
        document = self._document("GET", _MODELS)
        listed = document.get("data") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise not_a_server(self.address, f"it answers {_MODELS} with something else than a list of models")
        found = (_served(each) for each in listed[:_MOST_MODELS])
        return [each for each in found if each is not None]

    def measure(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what our server says about the tokens of a request that is not asked.

        Raises:
            ServerError: it cannot be reached, or refuses.
        """
        document = self._document("POST", _MEASURE, body, _MEASURING_PATIENCE)
        return document if isinstance(document, dict) else {}

    def answer(self, body: Mapping[str, Any], line: Line) -> Generator[Mapping[str, Any], None, None]:
        """Ask, and yield the chunks of the answer. Closing the iterator ends the answer.

        Raises:
            ServerError: it cannot be reached, refuses, or the answer broke off.
        """
        with self._response("POST", _CHAT, body, line, SILENT_SECONDS) as response:
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise not_a_server(self.address, f"it answers {_CHAT} with something else than a stream")
            try:
                for data in event_data(response.iter_bytes()):
                    if data.strip() == _END:
                        return
                    yield self._chunk(data)
            except EventTooLargeError:
                raise ServerError(
                    f"The server at {self.address.url} sends more than a piece of an answer can have.",
                    "Look at the server.",
                ) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _chunk(self, data: str) -> Mapping[str, Any]:
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            raise not_a_server(self.address, "a piece of its answer is no JSON object")
        error = chunk.get("error")
        if error:
            raise refused(error if isinstance(error, dict) else {"message": str(error)}, self.address)
        return chunk

    def _document(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, patience: float = _PATIENCE
    ) -> Any:
        with self._response(method, path, body, Line(), patience) as response:
            data = self._read(response, _LARGEST_DOCUMENT)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise not_a_server(self.address, f"it answers {path} with something else than JSON") from None

    @contextlib.contextmanager
    def _response(
        self, method: str, path: str, body: Mapping[str, Any] | None, line: Line, patience: float
    ) -> Iterator[httpx2.Response]:
        """Send a request, and give its answer if that is a success.

        Args:
            patience: seconds of silence after which it is given up.

        Raises:
            ServerError: it is none, or the connection failed.
        """
        model = None if body is None else str(body.get("model"))
        try:
            with self._client.stream(
                method,
                f"{self.address.url}{path}",
                json=body,
                timeout=httpx2.Timeout(patience, connect=CONNECT_SECONDS),
                extensions={"trace": line.trace},
            ) as response:
                if response.status_code != httpx2.codes.OK:
                    beginning = self._read(response, _LARGEST_REFUSAL)
                    raise refusal(response.status_code, beginning, response.headers, self.address, path, model)
                yield response
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
            raise connection_fault(error, self.address, patience) from None

    def _read(self, response: httpx2.Response, most: int) -> bytes:
        """Read an answer up to a number of bytes; one that is longer is cut, and so no JSON any more."""
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > most:
                break
        return bytes(data[:most])


def _served(entry: object) -> ServedModel | None:
    """Return a model of a list; None for an entry that has no name which can be shown and typed."""
    name = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str) or not name.isprintable():
        return None
    n_ctx, tile_size = _positive(entry.get("context_length")), _positive(entry.get("tile_size"))
    thinks = entry.get("can_think")
    can_think = thinks if isinstance(thinks, bool) else None
    is_ours = entry.get("owned_by") == _OURS
    return (
        ServedModel(name, True, n_ctx, tile_size, can_think)
        if is_ours
        else ServedModel(name)
        if 0 < len(name) <= _LONGEST_NAME
        else None
    )


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
