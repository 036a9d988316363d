"""Server-sent events: the data of each event from the bytes of a response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

LARGEST_EVENT: Final = 4 * 2**20
"""Most bytes of one event; a piece of an answer has some hundred."""


class EventTooLargeError(Exception):
    """An event, or a line of it, is larger than `LARGEST_EVENT`."""


def event_data(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each event. Comments and all other fields than `data` are ignored.

    Args:
        pieces: the bytes of the response, cut anywhere.

    Raises:
        EventTooLargeError: an event is too large.
    """
    data: list[str] = []
    size = 0
    for line in _lines(pieces):
        if not line:
            if data:
                yield "\n".join(data)
            data, size = [], 0
        elif line.startswith(b"data:"):
            size += len(line)
            if size > LARGEST_EVENT:
                raise EventTooLargeError
            data.append(line.removeprefix(b"data:").removeprefix(b" ").decode("utf-8", "replace"))
    if data:  # the last event of a server that leaves out the blank line after it
        yield "\n".join(data)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends: CR LF, LF or CR."""
    rest = bytearray()
    ends_in_return = False
    for piece in pieces:
        if ends_in_return and piece.startswith(b"\n"):
            piece = piece[1:]  # the second half of a line end
        if not piece:
            continue
        ends_in_return = piece.endswith(b"\r")
        *whole, last = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield bytes(rest) + line
            rest.clear()
        rest += last
        if len(rest) > LARGEST_EVENT:
            raise EventTooLargeError
    if rest:
        yield bytes(rest)
