"""The child process in which a model runs, from the parent's side: started, read, written to, ended."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.session.worker.channel import Channel
from internvl_gguf.session.worker.messages import Close
from internvl_gguf.utils.paths import making_temporary
from internvl_gguf.utils.process_end import describe_end, last_error_line

logger = logging.getLogger("internvl_gguf.session.worker")

_COMMAND: Final = ("-m", "internvl_gguf.session.worker.child")
_PIPE_BYTES: Final = 2**20  # Linux: tiles pass with fewer switches between the processes


class WorkerProcess:
    """A process with a thread that reads what it says and one that writes to it.

    Neither thread may be interrupted by Ctrl-C in the middle of a message, and nobody waits for a full pipe.

    Args:
        on_message: called in the reading thread with this and each message.
        on_end: called once in the reading thread with this, after the last message and the end of the process.

    Attributes:
        ending: what ended the process, to follow "it"; "" while it runs.

    Raises:
        LibraryError: the system starts no process.
    """

    def __init__(
        self, on_message: Callable[[WorkerProcess, Any], None], on_end: Callable[[WorkerProcess], None]
    ) -> None:
        self.ending = ""
        with making_temporary():
            self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed when the process has ended)
        self._process = _start(self._errors)
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the process was started with pipes")
        self._pipes = (stdin, stdout)
        self._channel = Channel(stdout, stdin)  # type: ignore[arg-type]  # buffered, as Popen makes them by default
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._on_message, self._on_end = on_message, on_end
        for target in (self._read, self._write):
            threading.Thread(target=target, name="internvl-worker", daemon=True).start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Have a message written; lost where the process has ended."""
        self._outbox.put(message)

    def kill(self, reason: str = "") -> None:
        """End the process at once; harmless where it has ended.

        Args:
            reason: what `ending` says then; "" for what the system says.
        """
        self.ending = self.ending or reason
        self._process.kill()

    def close(self, patience: float) -> None:
        """Let the process end by itself, at most so many seconds; an exception, Ctrl-C say, ends it at once."""
        self.send(Close())
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        finally:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                message = self._channel.receive()
                try:
                    self._on_message(self, message)
                except Exception:  # a callback of somebody else's: what comes after it is still to be read
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


def _start(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP  # Ctrl-C is for the parent
    try:
        with _interrupts_blocked():
            return subprocess.Popen(
                [sys.executable, *_COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pipesize=_PIPE_BYTES,
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
                **options,
            )
    except OSError as error:
        raise LibraryError(
            f"No process for the model can be started: {error.strerror or error}.",
            "End other programs, or open the session without a worker.",
        ) from error


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start a process for which Ctrl-C on the terminal is blocked from its first instruction: children inherit that."""
    if sys.platform == "win32":
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
