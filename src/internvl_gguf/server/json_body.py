"""Read the JSON body of a request within bounds of bytes, time and nesting."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

from internvl_gguf.server.api_errors import RefusedRequestError

_SILENCE_SECONDS: Final = 20.0
_WHOLE_SECONDS: Final = 300.0
_LARGE: Final = 2**18  # bytes; a larger body is parsed in a thread, so that others are answered meanwhile
_MOST_CONTAINERS: Final = 100_000
_MOST_VALUES: Final = 1_000_000
_MOST_ESCAPES: Final = 2_000_000
_LEAST_RATE: Final = 8 * 1024  # bytes a second, after a beginning
_BEGINNING_SECONDS: Final = 10.0
_MEDIA_TYPE: Final = "application/json"

Receive = Callable[[], Awaitable[Any]]


class ClientLeftError(Exception):
    """The client closed the connection; nobody waits for an answer."""


class BodyReader:
    """Reads bodies; those being read or answered together take no more than a bounded memory.

    Args:
        max_bytes: most bytes of one body.
        max_total: most bytes of all bodies at once.
        clock: seconds, of which only differences count.
    """

    def __init__(self, max_bytes: int, max_total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_total = max_total
        self._held = 0

    async def read(self, headers: Mapping[str, str], receive: Receive) -> dict[str, Any]:
        """Return the JSON object that a request carries.

        Raises:
            RefusedRequestError: another media type, too large, too slow, or no JSON object.
            ClientLeftError: the client left.
        """
        _check_media_type(headers)
        self._check_length(headers.get("content-length"))
        data = bytearray()
        held = 0
        started = self._clock()
        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                while True:
                    async with asyncio.timeout(_SILENCE_SECONDS):
                        message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeftError
                    data += message.get("body", b"")
                    if len(data) > self._max_bytes:
                        raise self._too_large()
                    self._held += len(data) - held
                    held = len(data)
                    if self._held > self._max_total:
                        raise _busy()
                    if not message.get("more_body", False):
                        break
                    if len(data) < (self._clock() - started - _BEGINNING_SECONDS) * _LEAST_RATE:
                        raise TimeoutError
            if len(data) < _LARGE:
                return _object(data)
            return await asyncio.to_thread(_object, data)
        except TimeoutError:
            raise RefusedRequestError(
                "The body of the request came too slowly.", "Send it without pauses.", status=408, code="timeout"
            ) from None
        finally:
            self._held -= held

    def _check_length(self, length: str | None) -> None:
        if length is not None and length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large()

    def _too_large(self) -> RefusedRequestError:
        return RefusedRequestError(
            f"The body has more than {self._max_bytes >> 20} MiB.",
            "Send fewer or smaller pictures; the server's owner can raise the bound with --max-body.",
            status=413,
            code="request_too_large",
        )


def _busy() -> RefusedRequestError:
    return RefusedRequestError(
        "The server is receiving as much as it has memory for.",
        "Ask again in a moment.",
        status=503,
        code="overloaded",
        retry_after=2,
    )


def _check_media_type(headers: Mapping[str, str]) -> None:
    """Refuse other media types: a form of another site can send text/plain without being asked for leave."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _MEDIA_TYPE:
        raise RefusedRequestError(
            f"The content type is {kind[:40] or 'missing'}.", f"Send {_MEDIA_TYPE}.", status=415, code="media_type"
        )
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise RefusedRequestError(
            f"The body is encoded with {encoding[:40]}.", "Send it as it is.", status=415, code="content_encoding"
        )


def _object(data: bytearray) -> dict[str, Any]:
    _refuse_costly(data)
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        # Half of a surrogate pair is no text; it would fail wherever it is encoded first.
        found_text = json.dumps(found, ensure_ascii=False) if b"\\u" in data else ""
        found_text.encode("utf-8")
    except RecursionError:
        raise RefusedRequestError("The JSON is nested too deeply.", "Send a request of the API.") from None
    except UnicodeError:
        raise RefusedRequestError("The body is not text in UTF-8.", "Send JSON in UTF-8.") from None
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise RefusedRequestError(f"The body is not JSON{where}.", "Send one JSON object.") from None
    if not isinstance(found, dict):
        raise RefusedRequestError("The body is no JSON object.", "Send one JSON object.")
    return found


def _refuse_costly(data: bytearray) -> None:
    """Refuse JSON of very many parts: a few bytes of each become a hundred, and nothing else runs meanwhile.

    Raises:
        RefusedRequestError: there are more than any request of the interfaces has. Pictures in base64 have none.
    """
    containers = data.count(b"[") + data.count(b"{")
    if containers > _MOST_CONTAINERS or data.count(b",") > _MOST_VALUES or data.count(b"\\") > _MOST_ESCAPES:
        raise RefusedRequestError("The JSON has too many parts.", "Send a request of the API.")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
