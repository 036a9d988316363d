"""End a process whose native code cannot continue: print why, and restore the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final, NoReturn

try:
    import termios
except ImportError:  # Windows, whose consoles echo only what is read
    termios = None  # type: ignore[assignment]

_SHOW_CURSOR: Final = "\x1b[?25h"
_STDERR: Final = 2


def end_process(status: int, *lines: str) -> NoReturn:
    """End this process at once, from any thread: no handler runs, and no native call is waited for.

    Python's streams are flushed, and the terminal echoes and edits lines again.

    Args:
        status: the exit status.
        lines: lines to print on stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, gone, or in the middle of a write
            stream.flush()
    with contextlib.suppress(OSError):
        _restore_terminal()
    # Not through sys.stderr: its lock may be held by the thread that is stuck.
    with contextlib.suppress(OSError):
        os.write(_STDERR, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    os._exit(status)


def _restore_terminal() -> None:
    """Undo the changes that a line editor and a progress bar make to a terminal, if this process has one."""
    if not any(os.isatty(stream) for stream in (0, 1, _STDERR)):
        return
    if os.isatty(_STDERR) and os.environ.get("TERM") != "dumb":
        os.write(_STDERR, _SHOW_CURSOR.encode())
    if termios is None:
        return
    terminal = os.open("/dev/tty", os.O_RDWR)
    if os.tcgetpgrp(terminal) != os.getpgrp():  # in the background: setting modes would stop this process instead
        return
    with contextlib.suppress(termios.error):
        modes = termios.tcgetattr(terminal)
        modes[0] |= termios.ICRNL
        modes[1] |= termios.OPOST
        modes[3] |= termios.ECHO | termios.ICANON | termios.ISIG
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
