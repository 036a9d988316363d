"""Describe how a child process that runs native code ended."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import suppress
from typing import IO, Final

_LAST_BYTES: Final = 8192
_INFORMATIVE: Final = re.compile(r"GGML_ASSERT|\berror\b|\bfailed\b|terminate called|Error:", re.IGNORECASE)
_MEANINGS: Final = {
    "SIGILL": "an instruction that this CPU lacks, or that the library was compiled into wrongly",
    "SIGSEGV": "the library touched memory that is not its own",
    "SIGBUS": "the library touched memory that is not there, such as a file that became shorter",
    "SIGABRT": "the library gave up",
    "SIGFPE": "the library divided by zero",
    "SIGKILL": "as the system does when memory runs out",
}
# Windows gives the exception as the exit status: ntstatus.h.
_WINDOWS: Final = {0xC000001D: "SIGILL", 0xC0000005: "SIGSEGV", 0xC0000409: "SIGABRT", 0xC0000094: "SIGFPE"}


def signal_name(status: int) -> str:
    """Return the name of the signal that ended a process, such as "SIGILL"; "" if it exited by itself.

    Args:
        status: `Popen.returncode`.
    """
    if sys.platform == "win32":
        return _WINDOWS.get(status & 0xFFFFFFFF, "")
    if status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return ""


def describe_end(status: int, error_line: str = "") -> str:
    """Describe the end of a process, to follow "it": "was killed by SIGILL (an instruction that this CPU lacks, ...)".

    Args:
        status: `Popen.returncode`.
        error_line: last line that it printed on stderr; "" for none.
    """
    name = signal_name(status)
    if not name:
        return f"ended with status {status}{f' ({error_line})' if error_line else ''}"
    meaning = error_line or _MEANINGS.get(name, "")
    return f"was killed by {name}{f' ({meaning})' if meaning else ''}"


def last_error_line(errors: IO[bytes]) -> str:
    """Return the last informative line of a stderr file, else its last line; "" if it is empty."""
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _LAST_BYTES))
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    informative = [line for line in lines if _INFORMATIVE.search(line)]
    return (informative or lines or [""])[-1]
