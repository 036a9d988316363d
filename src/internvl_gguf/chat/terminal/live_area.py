"""The live area: the last lines of the output, which are redrawn until they are final.

Only changed lines are written again, within one synchronised update if the terminal supports that, so nothing flickers.
Lines must be narrower than the terminal: after a line that fills the last column, terminals differ in where the cursor
is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from typing import Protocol

from internvl_gguf.utils.safe_text import cells

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TO_LINE_END, _TO_SCREEN_END = "\x1b[K", "\x1b[J"


class Writable(Protocol):
    """The part of a text file that the live area uses."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class LiveArea:
    """Draws lines, redraws them, and finally leaves them.

    The cursor is at the end of the last drawn line; if none is drawn, at the beginning of a line.

    Args:
        out: the terminal.
        columns: returns its current width.
    """

    def __init__(self, out: Writable, columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns) -> None:
        self._out = out
        self._columns = columns
        self._shown: list[str] = []
        self._width = columns()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is drawn."""
        return not self._shown

    def show(self, lines: Sequence[str]) -> None:
        """Draw these lines in place of the drawn ones."""
        if list(lines) == self._shown:
            return
        same = 0
        while same < min(len(lines), len(self._shown)) and lines[same] == self._shown[same]:
            same += 1
        if self._columns() != self._width:
            same = 0  # the terminal has wrapped the lines again
        if same == len(lines) < len(self._shown):
            same = max(same - 1, 0)  # the cursor has to get to the end of the last one
        out = [_BEGIN, self._to_line(same)]
        out += [f"{line}{_TO_LINE_END}\n" for line in lines[same:]]
        if len(lines) > same:
            out[-1] = out[-1][:-1]
        out += [_TO_SCREEN_END if len(lines) < len(self._shown) else "", _END]
        self._shown, self._width = list(lines), self._columns()
        self._write("".join(out))

    def leave(self, lines: Sequence[str]) -> None:
        """Draw these lines in place of the drawn ones and leave them; the next lines are drawn below."""
        self.show(lines)
        if self._shown:
            self._write("\n")
        self._shown = []

    def _to_line(self, index: int) -> str:
        """Return the escape sequence that moves the cursor to the start of drawn line `index`, erasing if needed."""
        if not self._shown:
            return ""
        if index == len(self._shown):
            return "\n"
        up = sum(self._rows(line) for line in self._shown[index:]) - 1
        erase = _TO_SCREEN_END if self._columns() != self._width else ""
        return "\r" + (f"\x1b[{up}A" if up else "") + erase

    def _rows(self, line: str) -> int:
        """Return the rows a drawn line takes: more than one if the terminal became narrower since then."""
        if self._columns() >= self._width:
            return 1
        return max(1, -(-visible_cells(line) // self._columns()))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def visible_cells(line: str) -> int:
    """Return the width of a line in columns, without its colour sequences."""
    return cells(_COLOUR.sub("", line))
