"""Messages on two pipes, each a pickle. Both ends are of this package and of one user: nothing else may write there."""

from __future__ import annotations

import os
import pickle
import threading
from typing import Any, BinaryIO, Final

_PROTOCOL: Final = 5  # large bytes are written and read in place


class Channel:
    """One end of the line. One thread reads; any may write.

    Args:
        reader: buffered binary file.
        writer: binary file. Nothing is left in its buffer, which a process forked meanwhile would write once more at
            its end.
    """

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._descriptor = writer.fileno()
        self._writing = threading.Lock()

    def send(self, message: object) -> None:
        """Write a message; waits while the pipe is full.

        Raises:
            OSError: the other end is gone.
        """
        with self._writing:
            unwritten = memoryview(pickle.dumps(message, _PROTOCOL))
            while unwritten:
                unwritten = unwritten[os.write(self._descriptor, unwritten) :]

    def receive(self) -> Any:
        """The next message; waits for it.

        Raises:
            EOFError: the other end is gone, perhaps in the middle of a message.
        """
        try:
            return pickle.load(self._reader)
        except (pickle.UnpicklingError, OSError, ValueError) as error:
            raise EOFError(str(error)) from error
