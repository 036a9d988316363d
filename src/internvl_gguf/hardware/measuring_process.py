"""Run measurements in a child process: a device may abort on an operation it lacks."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def measuring_process(command: Sequence[str], timeout: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that prints measurements; it ends after `timeout` or at the end of the block.

    Args:
        command: program and arguments.
        timeout: seconds.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    timer = threading.Timer(max(0.0, timeout), process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def printed_objects(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects that a process prints, one a line; a process that dies may leave half a line."""
    for line in process.stdout or ():
        with suppress(ValueError):
            yield json.loads(line)
