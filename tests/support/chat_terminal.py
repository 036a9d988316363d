"""`internvl chat` in a real terminal: a child on a pseudo-terminal, and the screen that its output makes."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from pathlib import Path

import pexpect
import pyte

ENTER, ESCAPE, TAB, CTRL_C, CTRL_D, CTRL_U, UP = "\r", "\x1b", "\t", "\x03", "\x04", "\x15", "\x1b[A"
ALT_ENTER = ESCAPE + ENTER
PROMPT = r"^(\[\d+ pictures?\] )?>\Z"
_PATIENCE = 120.0  # seconds; a test waits as long as it must and no longer
_PASTED = "\x1b[200~{}\x1b[201~"


class _Screen(pyte.HistoryScreen):
    """Answers what programs ask a terminal, as where the cursor is."""

    answers = ""

    def write_process_input(self, data: str) -> None:
        self.answers += data


class ChatTerminal:
    """A terminal with a chat in it; the chat ends with the `with` block.

    Args:
        *arguments: of `internvl chat`.
        folder: where it runs.
        columns, rows: size of the terminal.
        piped: a file that comes on its stdin.
        **environment: variables over those of this process.

    Attributes:
        raw: all bytes it has written.
    """

    def __init__(
        self,
        *arguments: object,
        folder: Path,
        columns: int = 80,
        rows: int = 24,
        piped: Path | None = None,
        **environment: str,
    ) -> None:
        self._screen = _Screen(columns, rows, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        of_this_process = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NO_COLOR", "COLUMNS", "LINES", "TMUX", "STY", "COLORTERM", "KITTY_WINDOW_ID")
        }
        command = shlex.join([sys.executable, "-m", "internvl_gguf", "chat", *map(str, arguments)])
        self._child = pexpect.spawn(
            "/bin/sh",
            ["-c", f"cat {shlex.quote(str(piped))} | {command}" if piped else f"exec {command}"],
            dimensions=(rows, columns),
            cwd=str(folder),
            env={**of_this_process, "TERM": "xterm-256color", **environment},
        )

    @property
    def pid(self) -> int:
        """Number of the chat's process."""
        return int(self._child.pid)

    @property
    def lines(self) -> list[str]:
        """All lines, those that were scrolled away first."""
        width = range(self._screen.columns)
        above = ["".join(row[column].data for column in width) for row in self._screen.history.top]
        return [line.rstrip() for line in (*above, *self._screen.display)]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines).rstrip()

    def type(self, *keys: str) -> None:
        """Press keys."""
        for each in keys:
            self._child.send(each)

    def drop(self, path: object) -> None:
        """What a terminal sends when a file is dropped on it."""
        self._child.send(_PASTED.format(f"{shlex.quote(str(path))} "))

    def wait(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Read until a pattern stands on the screen, as many times as said; returns the last of them."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = list(re.finditer(pattern, self.text, re.MULTILINE))
            if len(found) >= times:
                return found[times - 1]
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} did not come {times} times; the screen:\n{self.text}")

    def do(self, line: str, pattern: str, times: int = 1) -> re.Match[str]:
        """Type a line and Enter when the editor waits for one; read until a pattern stands on the screen."""
        self.wait(PROMPT)
        self.type(line, ENTER)
        return self.wait(pattern, times)

    def leave(self, *keys: str) -> int:
        """Press keys that end the chat, Ctrl-D if none; its exit code."""
        self.type(*(keys or (CTRL_D,)))
        deadline = time.monotonic() + _PATIENCE
        while self._read(deadline):
            pass
        self._child.close()
        code = self._child.exitstatus
        return -int(self._child.signalstatus) if code is None else int(code)

    def __enter__(self) -> ChatTerminal:
        return self

    def __exit__(self, *raised: object) -> None:
        self._child.close(force=True)

    def _read(self, deadline: float) -> bool:
        """Take what the chat writes; False where it ended or the time is up."""
        try:
            data = self._child.read_nonblocking(65536, timeout=max(deadline - time.monotonic(), 0.01))
        except (pexpect.EOF, pexpect.TIMEOUT):
            return False
        self.raw += data
        self._stream.feed(data)
        if self._screen.answers:
            self._child.send(self._screen.answers)
            self._screen.answers = ""
        return True
