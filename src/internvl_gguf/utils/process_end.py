"""How a child process that runs native code has ended, in words."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import suppress
from typing import IO, Final

_LAST_BYTES: Final = 8192
_TELLING: Final = re.compile(r"GGML_ASSERT|\berror\b|\bfailed\b|terminate called|Error:", re.IGNORECASE)
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


def signal_of(status: int) -> str:
    """Name of the signal that ended a process, such as "SIGILL"; "" where it ended by itself.

    Args:
        status: `Popen.returncode`.
    """
    if sys.platform == "win32":
        return _WINDOWS.get(status & 0xFFFFFFFF, "")
    if status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return ""


def describe_end(status: int, last_words: str = "") -> str:
    """What ended a process, to follow "it": "was killed by SIGILL (an instruction that this CPU lacks, ...)".

    Args:
        status: `Popen.returncode`.
        last_words: what it printed last on stderr; "" for nothing.
    """
    name = signal_of(status)
    if not name:
        return f"ended with status {status}{f' ({last_words})' if last_words else ''}"
    meaning = last_words or _MEANINGS.get(name, "")
    return f"was killed by {name}{f' ({meaning})' if meaning else ''}"


def last_words(errors: IO[bytes]) -> str:
    """The last line of a stderr file that tells something, else the last one; "" where it is empty."""
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _LAST_BYTES))
    lines = [line.strip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines or [""])[-1]
