"""The parent's side of a worker process: starts it, reads from it, writes to it and ends it."""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any, Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.session.worker.channel import Channel
from internvl_gguf.session.worker.messages import Close
from internvl_gguf.utils.child_process import error_file, python_module, start_child, stdin_of, stdout_of
from internvl_gguf.utils.process_end import describe_end, last_error_line

logger = logging.getLogger("internvl_gguf.session.worker")

_COMMAND: Final = python_module("internvl_gguf.session.worker.child_main")
_PIPE_BYTES: Final = 2**20  # Linux: tiles pass with fewer switches between the processes


class WorkerProcess:
    """A worker process with one thread that reads from it and one that writes to it.

    With these threads Ctrl-C never interrupts a message in the middle, and no caller waits for a full pipe.

    Args:
        on_message: called in the reading thread with this process and each message.
        on_end: called once in the reading thread with this process, after its last message and its end.
        command: program and arguments; the process of a model if left out.

    Attributes:
        ending: what ended the process, as a predicate of "it"; "" while it runs.

    Raises:
        LibraryError: the system starts no process.
    """

    def __init__(
        self,
        on_message: Callable[[WorkerProcess, Any], None],
        on_end: Callable[[WorkerProcess], None],
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self.ending = ""
        self._errors = error_file()  # closed when the process has ended
        self._process = _start(command, self._errors)
        stdin, stdout = stdin_of(self._process), stdout_of(self._process)
        self._pipes = (stdin, stdout)
        self._channel = Channel(stdout, stdin)  # type: ignore[arg-type]  # buffered, as Popen makes them by default
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._on_message, self._on_end = on_message, on_end
        for target in (self._read, self._write):
            threading.Thread(target=target, name="internvl-worker", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Queue a message; it is lost if the process has ended."""
        self._outbox.put(message)

    def kill(self, reason: str = "") -> None:
        """Kill the process; harmless if it has ended.

        Args:
            reason: text of `ending`; "" for the reason that the system gives.
        """
        self.ending = self.ending or reason
        self._process.kill()

    def close(self, timeout: float) -> None:
        """Let the process end by itself within `timeout` seconds, else kill it; Ctrl-C meanwhile kills it at once."""
        self.send(Close())
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        finally:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                message = self._channel.receive()
                try:
                    self._on_message(self, message)
                except Exception:  # a callback of the caller: later messages still have to be read
                    logger.exception("A message of the model's process could not be handed on")
        status = self._process.wait()
        self.ending = self.ending or describe_end(status, last_error_line(self._errors))
        self._outbox.put(None)
        self._errors.close()
        self._on_end(self)

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # it has ended, which the reader notices
            while (message := self._outbox.get()) is not None:
                self._channel.send(message)
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()


def _start(command: Sequence[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return start_child(command, errors, pipe_bytes=_PIPE_BYTES)
    except OSError as error:
        raise LibraryError(
            f"No process for the model can be started: {error.strerror or error}.",
            "End other programs, or open the session without a worker.",
        ) from error
