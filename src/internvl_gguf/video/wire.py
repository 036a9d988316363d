"""Messages between the process that asks for frames and the one that decodes them: JSON, then bytes, both with lengths.

The child sends `{"read": [offset, size]}` for bytes of the file, which come back alone, `{"info": {...}}`, `{"frame":
{...}}` with pixels, `{"done": true, "found_damage": false}`, and `{"refused": reason, "hint": ...}` as its last. It
receives `{"frames": [...]}`. One side speaks at a time. JSON and plain bytes hold nothing that a damaged child could
have executed here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any, Final

_LENGTHS: Final = struct.Struct("<IQ")
_MOST_JSON: Final = 2**20


class WireError(Exception):
    """The other end sent what is no message."""


class WireEndError(WireError):
    """The other end is gone."""


def send(pipe: IO[bytes], message: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
    """Send a message.

    Args:
        pipe: the pipe to the other end.
        message: values that JSON can hold.
        payload: bytes that go with it.

    Raises:
        WireEndError: the other end is gone.
    """
    text = json.dumps(message).encode()
    try:
        pipe.write(_LENGTHS.pack(len(text), len(payload)) + text)
        pipe.write(payload)
        pipe.flush()
    except (OSError, ValueError) as error:  # ValueError: closed
        raise WireEndError(str(error)) from error


def receive(pipe: IO[bytes], most: int) -> tuple[dict[str, Any], bytes]:
    """Wait for a message.

    Args:
        pipe: the pipe from the other end.
        most: bytes that may go with it.

    Returns:
        The message and its bytes.

    Raises:
        WireEndError: the other end is gone, perhaps in the middle of a message.
        WireError: it sent something else.
    """
    json_bytes, payload_bytes = _LENGTHS.unpack(_exactly(pipe, _LENGTHS.size))
    if json_bytes > _MOST_JSON or payload_bytes > most:
        raise WireError("a message that is too long")
    text, payload = _exactly(pipe, json_bytes), _exactly(pipe, payload_bytes)
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError("a message that is no JSON") from error
    if not isinstance(message, dict):
        raise WireError("a message that is no object")
    return message, payload


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    try:
        data = pipe.read(size)
    except (OSError, ValueError) as error:
        raise WireEndError(str(error)) from error
    if len(data) < size:
        raise WireEndError("the end of the other process")
    return data
