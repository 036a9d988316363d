"""Print tables, facts and reports to stdout, fitted to the terminal. rich is loaded when it is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from internvl_gguf.cli.output.lines import columns, print_lines, say
from internvl_gguf.utils.safe_text import can_show, cells, safe_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDE: Final = 48  # columns from which on what does not fit a fact's line stands below its beginning
_FURTHER_IN: Final = 2
_ANY_HEIGHT: Final = 100
_GAP: Final = 2  # blanks between columns
# Characters of ours that few encodings have, for terminals that know ASCII only.
_PLAIN: Final = str.maketrans({"→": "->", "✗": "!", "±": "+-", "–": "-", "…": "..."})


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]], least_first: tuple[str, ...] = ()) -> None:
    """Print a table; if the terminal is too narrow for it, each row as a line with its facts below.

    Args:
        head: the titles of the columns.
        rows: a text for each title.
        least_first: columns that are left out before that, as far as the terminal is too narrow for them.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    whole = len(head)
    head, rows = narrowed(head, rows, least_first)
    left_out = whole - len(head)
    if _table_width(head, rows) <= columns():
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for index, title in enumerate(head):
            table.add_column(title, no_wrap=True, justify="left" if index in (0, len(head) - 1) else "right")
        for row in rows:
            table.add_row(*(Text(safe_text(cell)) for cell in row))
        _console(columns()).print(table)
        if left_out:
            say(f"{left_out} more column{'s' * (left_out > 1)}: widen the window.")
        return
    for first, *rest in rows:
        print_lines(first.strip(), hang=4)
        facts = [f"{title.lower()} {fact}" for title, fact in zip(head[1:], rest, strict=True) if fact]
        if facts:
            print_lines(f"  {', '.join(facts)}", hang=4)


def narrowed(
    head: tuple[str, ...], rows: list[tuple[str, ...]], least_first: tuple[str, ...]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and rows without the least important columns, if the terminal is too narrow for them."""
    for name in least_first:
        if _table_width(head, rows) <= columns():
            break
        kept = [index for index, title in enumerate(head) if title != name]
        head, rows = tuple(head[index] for index in kept), [tuple(row[index] for index in kept) for row in rows]
    return head, rows


def _table_width(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> int:
    widest = [max(map(cells, column)) for column in zip(*(map(safe_text, row) for row in (head, *rows)), strict=True)]
    return sum(widest) + _GAP * (len(head) - 1)


def print_fact(name: str, fact: str, column: int) -> None:
    """Print a name and its fact in one line, broken at words if the terminal is too narrow.

    Args:
        name: of the fact.
        fact: without line ends.
        column: where facts begin.
    """
    print_lines(f"{name:<{column}}{fact}", hang=column if columns() >= _WIDE else _FURTHER_IN)


class Report:
    """Paragraphs and tables with styles, as rich calls them, on stdout.

    Args:
        width: columns to fit it into; None takes the terminal's.

    Attributes:
        width: likewise.
    """

    def __init__(self, width: int | None = None) -> None:
        self.width = width or columns()
        self._console = _console(self.width)

    @property
    def is_ascii(self) -> bool:
        """Whether tables are drawn in ASCII, since stdout has no characters for lines."""
        return self._console.options.ascii_only

    def shown(self, text: str) -> str:
        """Return harmless text in the characters of stdout; one that it lacks becomes similar ASCII or a ?."""
        text, encoding = safe_text(text), self._console.encoding
        if can_show(sys.stdout, text):
            return text
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)

    def paragraph(self, text: str, *, style: str = "", indent: int = 0) -> None:
        """Print text, broken at words; nothing if it is empty."""
        from rich.text import Text

        lines = Text(self.shown(text), style=style).wrap(self._console, self.width - indent, overflow="fold")
        for line in lines:
            line.rstrip()
            self._console.print(Text(" " * indent), line, sep="", soft_wrap=True)

    def blank(self) -> None:
        """Print an empty line."""
        self._console.print()

    def draw(self, table: RenderableType) -> None:
        """Print a table of rich's, whose texts were made with `shown`."""
        self._console.print(table)


def _console(width: int) -> Console:
    from rich.console import Console

    # With a height, too: without one a terminal that calls itself "dumb" has 80 columns for rich, whatever it has.
    return Console(width=width, height=_ANY_HEIGHT, highlight=False, markup=False, emoji=False)
