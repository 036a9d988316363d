"""Limits that the operating system keeps the process to that decodes a clip, whatever the clip makes it do."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

_STDERR_BYTES: Final = 2**20
_SPARE_SECONDS: Final = 5


def confine(memory: int, cpu_seconds: float) -> None:
    """Take rights from this process for good: it can open no file or connection, and has bounds on memory and time.

    Its libraries have to be imported before. Windows has none of these limits, and macOS does not keep to that on
    memory; the parent's own limits on time, pixels and messages hold there, too.

    Args:
        memory: bytes of address space.
        cpu_seconds: seconds of all its threads together.
    """
    if sys.platform == "win32":
        return
    import resource

    seconds = int(cpu_seconds) + _SPARE_SECONDS
    wanted = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: _STDERR_BYTES,  # what it writes to stderr is a file
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 0,  # what is open stays open, and nothing more is opened
    }
    for limit, value in wanted.items():
        hard = resource.getrlimit(limit)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (allowed, allowed))
