"""What `internvl bench` prints on a terminal: the table, what it means, what failed, and the advice."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.report.advice import advise
from internvl_gguf.bench.report.columns import NOTHING, Column, columns_of
from internvl_gguf.bench.report.legend import (
    BEST,
    BEST_BY_SPEED,
    FAILED,
    circumstances,
    common_settings,
    failures,
    legend,
    marks_of,
)
from internvl_gguf.bench.report.wording import printable, row_names

if TYPE_CHECKING:
    from rich.console import Console

    from internvl_gguf.bench.results import Results

_PIPE_WIDTH: Final = 200
_GAP: Final = 2
_MARK_WIDTH: Final = 2
_WITH_ERRORS: Final = 6  # columns; fewer of them would tell less than more of them without their errors
_CHIEF: Final = 3
_IN_PARAGRAPHS: Final = 8
_PLAIN: Final = {BEST: "*", BEST_BY_SPEED: "+", FAILED: "!", "±": "+-", "–": "-"}
"""For terminals that know ASCII only."""
_STYLES: Final = {BEST: "bold green", BEST_BY_SPEED: "green", FAILED: "red"}


def print_report(results: Results, budget: int | None = None, *, width: int | None = None) -> None:
    """The whole report on stdout.

    Args:
        results: what was found.
        budget: bytes that the advice is for; None is what is free where it was measured.
        width: columns to fit it into; None takes the terminal's, or 200 where stdout is none.
    """
    from rich.console import Console

    if width is None:
        # Rows go whole to a file or a pipe, where nobody's window is narrow.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    _say(console, printable(results.model), style="bold")
    _say(console, circumstances(results), style="dim")
    _say(console, common_settings(results), style="dim")
    columns = tuple(_known_column(console, column) for column in columns_of(results))
    names = tuple(_known(console, name) for name in row_names(results))
    layout = _layout(results, names, columns, width) if results.rows else None
    if layout is None:
        shown = sorted(columns, key=lambda column: column.rank)[:_IN_PARAGRAPHS]
        _print_paragraphs(console, results, names, [column for column in columns if column in shown])
    else:
        shown = list(layout.columns)
        console.print()
        _print_table(console, results, layout)
    if len(shown) < len(columns):
        more = len(columns) - len(shown)
        what = "1 more number" if more == 1 else f"{more} more numbers"
        _say(console, f"{what} of each in a wider window, with -o and with --html.", style="dim")
    _print_words(console, results, budget, with_errors=layout is None or layout.with_errors)


@dataclass(frozen=True)
class _Layout:
    """What of the table fits a window.

    Attributes:
        labels: of the rows, of one line or more.
        columns: those shown, in their order.
        with_errors: whether their cells have errors and spreads.
    """

    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    with_errors: bool

    @property
    def width(self) -> int:
        """Columns of the window that it takes."""
        from rich.cells import cell_len

        labels = (cell_len(line) for label in self.labels for line in label.splitlines())
        columns = ((*_head(column), *self.cells(column)) for column in self.columns)
        return _MARK_WIDTH + max(labels, default=0) + sum(_GAP + max(map(cell_len, texts)) for texts in columns)

    def cells(self, column: Column) -> tuple[str, ...]:
        """What the rows have in a column."""
        return column.cells if self.with_errors else column.bare


def _layout(results: Results, names: Sequence[str], columns: Sequence[Column], width: int) -> _Layout | None:
    """As much of the table as fits; None where not even the chief columns do.

    First the least important columns go, down to half a dozen; then the errors; then all columns but the chief ones; at
    last names take a line for each setting.
    """
    ranked = sorted(columns, key=lambda column: column.rank)
    whole, broken = (_labels(results, names, between) for between in (" ", "\n"))
    steps = [(whole, count, True) for count in range(len(ranked), _WITH_ERRORS - 1, -1)]
    for labels in (whole, broken):
        steps += [(labels, count, False) for count in range(len(ranked), min(_CHIEF, len(ranked)) - 1, -1)]
    for labels, count, with_errors in steps:
        kept = ranked[:count]
        layout = _Layout(labels, tuple(column for column in columns if column in kept), with_errors)
        if layout.width <= width:
            return layout
    return None


def _labels(results: Results, names: Sequence[str], between: str) -> tuple[str, ...]:
    """Names of the rows with `between` for their blanks; one that was not measured has the reason below it."""
    reasons = ["" if row.status == "measured" else f"\n{row.status}" for row in results.rows]
    return tuple(f"{name.replace(' ', between)}{reason}" for name, reason in zip(names, reasons, strict=True))


def _head(column: Column) -> tuple[str, ...]:
    return tuple(part for part in (column.group, column.name, column.unit) if part)


def _print_table(console: Console, results: Results, layout: _Layout) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Where there is ASCII only, rich would draw bars between the columns, for which nobody left room.
    box = None if console.options.ascii_only else SIMPLE_HEAD
    table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, 1 if box else _GAP, 0, 0), header_style="bold")
    table.add_column("quant", no_wrap=True, vertical="top")
    for column in layout.columns:
        table.add_column(Text("\n".join(_head(column))), justify="right", no_wrap=True)
    for index, (mark, label) in enumerate(zip(marks_of(results), layout.labels, strict=True)):
        name = Text(f"{_known(console, mark):<{_MARK_WIDTH}}", style=_STYLES.get(mark, ""))
        name.append(label.replace("\n", f"\n{' ' * _MARK_WIDTH}"))
        cells = [layout.cells(column)[index] for column in layout.columns]
        table.add_row(name, *(Text(cell, style="dim" if cell == NOTHING else "") for cell in cells))
    console.print(table)


def _print_paragraphs(console: Console, results: Results, names: Sequence[str], columns: Sequence[Column]) -> None:
    """Each row as its name with its numbers below, for windows that no table fits."""
    for index, (mark, name) in enumerate(zip(marks_of(results), names, strict=True)):
        row = results.rows[index]
        console.print()
        _say(console, f"{mark} {name}".strip(), style=_STYLES.get(mark, ""))
        facts: list[str] = [] if row.status == "measured" else [row.status]
        cells = ((column, column.cells[index]) for column in columns)
        facts += [f"{column.short_title} {cell} {column.unit}".strip() for column, cell in cells if cell != NOTHING]
        _say(console, ", ".join(facts), indent=_MARK_WIDTH)


def _print_words(console: Console, results: Results, budget: int | None, *, with_errors: bool) -> None:
    """The legend, what failed, what else a reader should know, and the advice."""
    meanings = legend(results, with_errors=with_errors)
    if meanings:
        console.print()
    for line in meanings:
        _say(console, line)
    if any(failure.error for failure in failures(results)):
        console.print()
    for failure in failures(results):
        if failure.error:
            _say(console, f"{FAILED} {failure.name}, {failure.status}: {failure.error}")
    for notice in results.notices:
        _say(console, printable(notice))
    console.print()
    _say(console, advise(results, budget), style="bold")


def _say(console: Console, text: str, *, style: str = "", indent: int = 0) -> None:
    """A paragraph, broken at words; nothing for an empty one."""
    from rich.text import Text

    for line in Text(_known(console, text), style=style).wrap(console, console.width - indent, overflow="fold"):
        line.rstrip()
        console.print(Text(" " * indent), line, sep="", soft_wrap=True)


def _known_column(console: Console, column: Column) -> Column:
    """A column in the characters that the terminal's encoding has."""
    cells = tuple(_known(console, cell) for cell in column.cells)
    bare = tuple(_known(console, cell) for cell in column.bare)
    return replace(
        column, group=_known(console, column.group), name=_known(console, column.name), cells=cells, bare=bare
    )


def _known(console: Console, text: str) -> str:
    """Text in the characters that the terminal's encoding has."""
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        text = "".join(_PLAIN.get(character, character) for character in text)
        text = text.encode(console.encoding, "replace").decode(console.encoding)
    return text
