"""A channel of pickled messages on two pipes. Both ends are this package, run by one user."""

from __future__ import annotations

import os
import pickle
import threading
from typing import Any, BinaryIO, Final

_PROTOCOL: Final = 5  # large bytes are written and read in place


class Channel:
    """One end of the channel. One thread receives; any thread may send.

    Args:
        reader: buffered binary file.
        writer: binary file. It is written unbuffered: a process forked meanwhile would write a full buffer once more.
    """

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._descriptor = writer.fileno()
        self._writing = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message, waiting while the pipe is full.

        Raises:
            OSError: the other end is gone.
        """
        with self._writing:
            unwritten = memoryview(pickle.dumps(message, _PROTOCOL))
            while unwritten:
                unwritten = unwritten[os.write(self._descriptor, unwritten) :]

    def receive(self) -> Any:
        """Wait for the next message and return it.

        Raises:
            EOFError: the other end is gone, perhaps in the middle of a message.
        """
        try:
            return pickle.load(self._reader)
        except (pickle.UnpicklingError, OSError, ValueError) as error:
            raise EOFError(str(error)) from error
