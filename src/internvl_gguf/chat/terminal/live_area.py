"""The lines at the bottom of what was printed that are still being drawn.

Only lines that changed are written again, within one synchronised update where the terminal knows that, so nothing
flickers. Lines must be narrower than the terminal: one that fills the last column leaves the cursor where terminals
disagree about it.
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
    """What a terminal is here: a text file."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class LiveArea:
    """Draws lines, draws them anew, and leaves them for good.

    The cursor stands at the end of the last line that is drawn; with none it stands at the beginning of a line.

    Args:
        out: the terminal.
        columns: its width at this moment.
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
        """Draw these lines in place of those that are drawn."""
        if list(lines) == self._shown:
            return
        same = 0
        while same < min(len(lines), len(self._shown)) and lines[same] == self._shown[same]:
            same += 1
        if self._columns() != self._width:
            same = 0  # the terminal broke them anew
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
        """Draw these lines in place of those that are drawn, for good; what is drawn next begins below them."""
        self.show(lines)
        if self._shown:
            self._write("\n")
        self._shown = []

    def _to_line(self, index: int) -> str:
        """The way from the end of the last drawn line to the beginning of line `index`, and what is below it erased."""
        if not self._shown:
            return ""
        if index == len(self._shown):
            return "\n"
        up = sum(self._rows(line) for line in self._shown[index:]) - 1
        erase = _TO_SCREEN_END if self._columns() != self._width else ""
        return "\r" + (f"\x1b[{up}A" if up else "") + erase

    def _rows(self, line: str) -> int:
        """Rows a line takes now: more than one where the terminal became narrower since it was drawn."""
        if self._columns() >= self._width:
            return 1
        return max(1, -(-visible_cells(line) // self._columns()))

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def visible_cells(line: str) -> int:
    """Columns that a line takes, its escape sequences for colours left out."""
    return cells(_COLOUR.sub("", line))
