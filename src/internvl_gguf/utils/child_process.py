"""Child processes that run native code, which may hang, abort or be killed, and must not take this process along.

Ctrl-C on a terminal is this process's: it knows what to keep, and ends its children. What a child writes to stderr goes
to a temporary file, whose last line is the reason of its death (`utils.process_end`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

from internvl_gguf.utils.paths import making_temporary
from internvl_gguf.utils.process_end import last_error_line

# ggml's own handler of a crash would start a debugger.
_ENVIRONMENT: Final = {"GGML_NO_BACKTRACE": "1"}
_DEFAULT_PIPE: Final = -1


def python_module(name: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package in a process of its own.

    Without -P modules would be imported from the current folder first: an `av.py` among somebody's downloads would run.
    """
    return (sys.executable, "-P", "-m", name)


class Child:
    """A process that prints one JSON object a line. Made by `child_process`.

    Attributes:
        process: with pipes for stdin and stdout, of bytes.
        timed_out: whether it was ended because it took too long.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes] | None) -> None:
        self.process = process
        self.timed_out = False
        self._errors = errors

    def objects(self) -> Iterator[dict[str, Any]]:
        """Yield the objects that it prints, until it ends; other lines, and half a line at its death, are left out."""
        for line in stdout_of(self.process):
            yield from object_of(line)

    def wait(self) -> int:
        """Wait for its end; return `Popen.returncode`."""
        return self.process.wait()

    def last_error_line(self) -> str:
        """Return the line on stderr that tells most of its end; "" where there is none, or none was kept."""
        return last_error_line(self._errors) if self._errors else ""

    def give_up(self) -> None:
        """End it, for it took too long."""
        self.timed_out = True
        self.process.kill()


@contextlib.contextmanager
def child_process(
    command: Sequence[str],
    request: str = "",
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    keeps_errors: bool = True,
) -> Iterator[Child]:
    """Start a process with one line on stdin; it ends with the block, whatever ends that.

    Args:
        command: program and arguments.
        request: the line.
        environment: variables beside those of this process.
        timeout: seconds after which it is ended; None for no limit.
        keeps_errors: whether its last words on stderr are wanted, which takes a temporary file.

    Raises:
        InternVLError: no temporary file can be made.
        OSError: the system starts no process.
    """
    with error_file() if keeps_errors else contextlib.nullcontext() as errors:
        process = start_child(command, errors, environment=environment)
        child = Child(process, errors)
        watchdog = threading.Timer(max(0.0, timeout or 0.0), child.give_up)
        watchdog.daemon = True
        if timeout is not None:
            watchdog.start()
        try:
            with contextlib.suppress(OSError):  # it is dead already, which its end tells
                stdin_of(process).write(f"{request}\n".encode())
                stdin_of(process).close()
            yield child
        finally:
            watchdog.cancel()
            end_child(process)


def start_child(
    command: Sequence[str],
    errors: IO[bytes] | None,
    *,
    environment: Mapping[str, str] | None = None,
    pipe_bytes: int = _DEFAULT_PIPE,
) -> subprocess.Popen[bytes]:
    """Start a process that Ctrl-C does not reach; its owner ends it with `end_child`.

    Args:
        command: program and arguments.
        errors: file for its stderr; None for nowhere.
        environment: variables beside those of this process.
        pipe_bytes: size of the pipes to it; the system's by default.

    Raises:
        OSError: the system starts no process.
    """
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    with _interrupts_blocked():
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if errors is None else errors,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
            pipesize=pipe_bytes,
            **options,
        )


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Kill a process unless it has ended, wait for its end, and close the pipes to it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was still to be written finds no reader
                pipe.close()


def error_file() -> IO[bytes]:
    """Make a temporary file for the stderr of a child.

    Raises:
        InternVLError: there is no place for it.
    """
    with making_temporary():
        return tempfile.TemporaryFile()


def object_of(line: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of a line; nothing where it holds something else."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            yield found


def stdin_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    """Return the pipe to a process that `start_child` started."""
    if process.stdin is None:
        raise AssertionError("the process was started with pipes")
    return process.stdin


def stdout_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    """Return the pipe from a process that `start_child` started."""
    if process.stdout is None:
        raise AssertionError("the process was started with pipes")
    return process.stdout


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C while a process is started: the child inherits that from its first instruction on."""
    if sys.platform == "win32":
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
