"""The child processes of the trial: send a request, read their lines, report how they ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.utils.child_process import Child, child_process, object_of, stdout_of
from internvl_gguf.utils.process_end import describe_end, signal_name

# One thread: kernels fail alike in one and in many, and threads that spin beside other programs take minutes.
_ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


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
    """A process that prints one JSON object a line. Made by `trial_process`.

    Attributes:
        end: how it ended; set when `lines` is exhausted.
    """

    def __init__(self, child: Child, timeout: float) -> None:
        self.end = ProcessEnd("has not ended")
        self._child = child
        self._timeout = timeout

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the printed objects; end a process that prints nothing for too long."""
        while line := self._next_line():
            yield from object_of(line)
        status = self._child.wait()
        if self._child.timed_out:
            self.end = ProcessEnd(f"gave no answer in {self._timeout:.0f} seconds", hung=True)
        else:
            self.end = ProcessEnd(describe_end(status, self._child.last_error_line()), signal_name(status))

    def _next_line(self) -> bytes:
        watchdog = threading.Timer(self._timeout, self._child.give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            return stdout_of(self._child.process).readline()
        finally:
            watchdog.cancel()


@contextmanager
def trial_process(command: Sequence[str], request: object, timeout: float) -> Iterator[TrialProcess]:
    """Start a process with a request of one JSON line; it ends with the block, also at Ctrl-C.

    Args:
        command: program and arguments.
        request: JSON value to send.
        timeout: seconds without a line after which it counts as hung.

    Raises:
        InternVLError: no temporary file can be made.
    """
    with child_process(command, json.dumps(request), environment=_ENVIRONMENT) as child:
        yield TrialProcess(child, timeout)
