"""Processes that measure. A device may abort on what it lacks, so that is done outside of this one."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def measuring_process(command: Sequence[str], timeout: float) -> Iterator[subprocess.Popen[bytes]]:
    """A process that prints what it measures; it ends when the time is over, or when nobody listens any more.

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
    """The JSON objects that a process prints, one a line; one that dies may leave half of one."""
    for line in process.stdout or ():
        with suppress(ValueError):
            yield json.loads(line)
