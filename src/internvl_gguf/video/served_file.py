"""A file whose bytes the parent has: the process that decodes asks for them, and opens no file of its own."""

from __future__ import annotations

import io
import os
from typing import IO, Final

from internvl_gguf.video.wire import receive, send

MOST_BYTES: Final = 2**20
"""Most bytes of one request."""


class ServedFile(io.RawIOBase):
    """The file of a clip, read by messages.

    Args:
        requests: pipe to the parent.
        answers: pipe from it.
        size: bytes of the file.
    """

    def __init__(self, requests: IO[bytes], answers: IO[bytes], size: int) -> None:
        self._requests, self._answers = requests, answers
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read up to the size of `buffer` into it; fewer bytes may come, and none at the end."""
        room = memoryview(buffer)  # type: ignore[arg-type]  # whatever io hands over
        size = max(0, min(len(room), MOST_BYTES, self._size - self._at))
        if not size:
            return 0
        send(self._requests, {"read": [self._at, size]})
        _, data = receive(self._answers, size)
        room[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; see `io.IOBase.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at
