"""The child processes of the trial: send a request, read their lines, report how they ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.utils.paths import making_temporary
from internvl_gguf.utils.process_end import describe_end, last_error_line, signal_name

# One thread: kernels fail alike in one and in many, and threads that spin beside other programs take minutes.
_ENVIRONMENT: Final = {"GGML_NO_BACKTRACE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended.

    Attributes:
        what: the end in words, to follow the name of the process.
        signal: signal that ended it, such as "SIGILL"; empty if it exited by itself.
        hung: whether it was ended because it printed nothing for too long.
    """

    what: str
    signal: str = ""
    hung: bool = False


class TrialProcess:
    """A process that prints one JSON object a line. Made by `start_child`.

    Attributes:
        end: how it ended; set when `lines` is exhausted.
    """

    def __init__(self, process: subprocess.Popen[str], errors: Any, timeout: float) -> None:
        self.end = ProcessEnd("has not ended")
        self._process = process
        self._errors = errors
        self._timeout = timeout
        self._hung = False

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the printed objects; end a process that prints nothing for too long."""
        stdout = self._process.stdout
        if stdout is None:
            raise AssertionError("the process was started with pipes")
        while line := self._in_time(stdout.readline):
            with suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    yield message
        status = self._process.wait()
        if self._hung:
            self.end = ProcessEnd(f"gave no answer in {self._timeout:.0f} seconds", hung=True)
        else:
            self.end = ProcessEnd(describe_end(status, last_error_line(self._errors)), signal_name(status))

    def _in_time(self, read: Callable[[], str]) -> str:
        def give_up() -> None:
            self._hung = True
            self._process.kill()

        watchdog = threading.Timer(self._timeout, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            return read()
        finally:
            watchdog.cancel()


@contextmanager
def start_child(command: Sequence[str], request: object, timeout: float) -> Iterator[TrialProcess]:
    """Start a process with a request of one JSON line; it ends with the block, also at Ctrl-C.

    It gets its own process group: Ctrl-C on a terminal must not look like a fault of the library.

    Args:
        command: program and arguments.
        request: JSON value to send.
        timeout: seconds without a line after which it counts as hung.

    Raises:
        InternVLError: no temporary file can be made.
    """
    group: dict[str, Any] = {"process_group": 0}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with making_temporary():
        temporary = tempfile.TemporaryFile()  # noqa: SIM115
    with temporary as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **_ENVIRONMENT},
            **group,
        )
        try:
            with suppress(OSError):  # it is dead already, which its end tells
                _send_request(process, request)
            yield TrialProcess(process, errors, timeout)
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _send_request(process: subprocess.Popen[str], request: object) -> None:
    if process.stdin is None:
        raise AssertionError("the process was started with pipes")
    process.stdin.write(f"{json.dumps(request)}\n")
    process.stdin.close()
