"""The report of `internvl bench` on a terminal: the table, its legend, the failures and the advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.best_of.tables import HEAD, best_of_tables
from internvl_gguf.bench.report.advice import advise, recommend
from internvl_gguf.bench.report.columns import NOTHING, Column, columns_of
from internvl_gguf.bench.report.legend import (
    FAILED,
    RECOMMENDED,
    circumstances,
    common_settings,
    failures,
    legend,
    not_run,
    table_rows,
    title,
)
from internvl_gguf.bench.report.wording import row_names
from internvl_gguf.cli.output import Report
from internvl_gguf.utils.safe_text import safe_line

if TYPE_CHECKING:
    from internvl_gguf.bench.results import Results

_GAP: Final = 2
_MARK_WIDTH: Final = 3
_WITH_ERRORS: Final = 6  # columns; fewer of them would tell less than more of them without their errors
_CHIEF: Final = 3
_IN_PARAGRAPHS: Final = 8
_RECOMMENDED_STYLE: Final = "bold green"


def print_report(results: Results, budget: int | None = None, *, width: int | None = None) -> None:
    """Print the whole report to stdout.

    Args:
        results: what was found.
        budget: bytes that the advice is for; None is what is free where it was measured.
        width: columns to fit it into; None takes the terminal's; a file or a pipe has room for all.
    """
    report = Report(width)
    report.paragraph(title(results), style="bold")
    report.paragraph(circumstances(results), style="dim")
    report.paragraph(common_settings(results), style="dim")
    recommended = recommend(results, budget)
    rows = _rows(report, results, recommended)
    columns = tuple(_known_column(report, column) for column in columns_of(results)) if rows else ()
    with_errors = _print_fitted(report, "quant", rows, columns)
    _print_paragraph_each(report, legend(results, with_errors=with_errors))
    _print_best_of(report, results)
    _print_words(report, results, budget)


@dataclass(frozen=True)
class _TableRow:
    """A row that was measured.

    Attributes:
        index: in `Results.rows`.
        name: in the characters of the terminal.
        mark: before it; empty but for the one to take.
    """

    index: int
    name: str
    mark: str


def _print_fitted(report: Report, head: str, rows: Sequence[_TableRow], columns: Sequence[Column]) -> bool:
    """Print as much of a table as fits, below a blank line; return whether with its errors.

    Args:
        report: where.
        head: title of the rows' names.
        rows: none print nothing.
        columns: with a cell for each row.
    """
    layout = _layout(head, rows, columns, report.width) if rows else None
    if layout is None:
        shown = sorted(columns, key=lambda column: column.rank)[:_IN_PARAGRAPHS]
        _print_paragraphs(report, rows, [column for column in columns if column in shown])
    else:
        shown = list(layout.columns)
        report.blank()
        _print_table(report, rows, layout)
    if rows and len(shown) < len(columns):
        more = len(columns) - len(shown)
        report.paragraph(
            f"{more} more column{'s' if more > 1 else ''}: widen the window, or use -o md or --html.", style="dim"
        )
    return layout is None or layout.with_errors


def _print_paragraph_each(report: Report, lines: Sequence[str]) -> None:
    """Print paragraphs below a blank line; nothing if there are none."""
    if lines:
        report.blank()
    for line in lines:
        report.paragraph(line)


def _print_best_of(report: Report, results: Results) -> None:
    """Print a table for each comparison of several answers."""
    for table in best_of_tables(results):
        report.blank()
        report.paragraph(table.title, style="bold")
        rows = [_TableRow(place, label, "") for place, label in enumerate(table.labels)]
        _print_fitted(report, HEAD, rows, [_known_column(report, column) for column in table.columns])
        _print_paragraph_each(report, table.meanings)


def _rows(report: Report, results: Results, recommended: int | None) -> tuple[_TableRow, ...]:
    names = row_names(results)
    return tuple(
        _TableRow(index, report.shown(names[index]), report.shown(RECOMMENDED) if index == recommended else "")
        for index in table_rows(results)
    )


@dataclass(frozen=True)
class _Layout:
    """The part of the table that fits a window.

    Attributes:
        head: title of the labels.
        labels: of the rows, of one line or more.
        columns: those shown, in their order.
        with_errors: whether their cells have errors and spreads.
    """

    head: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    with_errors: bool

    @property
    def width(self) -> int:
        """Number of the window's columns that it takes."""
        from rich.cells import cell_len

        labels = (cell_len(line) for label in self.labels for line in label.splitlines())
        columns = ((*_head(column), *self.cells(column)) for column in self.columns)
        first = max(cell_len(self.head), _MARK_WIDTH + max(labels, default=0))
        return first + sum(_GAP + max(map(cell_len, texts)) for texts in columns)

    def cells(self, column: Column) -> tuple[str, ...]:
        """Return the cells of a column, one for each row."""
        return column.cells if self.with_errors else column.bare


def _layout(head: str, rows: Sequence[_TableRow], columns: Sequence[Column], width: int) -> _Layout | None:
    """Return as much of the table as fits; None if not even the chief columns fit.

    First the least important columns go, down to half a dozen; then the errors; then all columns but the chief ones; at
    last names take a line for each setting.
    """
    ranked = sorted(columns, key=lambda column: column.rank)
    whole, broken = (tuple(row.name.replace(" ", between) for row in rows) for between in (" ", "\n"))
    steps = [(whole, count, True) for count in range(len(ranked), _WITH_ERRORS - 1, -1)]
    for labels in (whole, broken):
        steps += [(labels, count, False) for count in range(len(ranked), min(_CHIEF, len(ranked)) - 1, -1)]
    for labels, count, with_errors in steps:
        kept = ranked[:count]
        layout = _Layout(head, labels, tuple(column for column in columns if column in kept), with_errors)
        if layout.width <= width:
            return layout
    return None


def _head(column: Column) -> tuple[str, ...]:
    return tuple(part for part in (column.group, column.name, column.unit) if part)


def _print_table(report: Report, rows: Sequence[_TableRow], layout: _Layout) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Where there is ASCII only, rich would draw bars between the columns, for which nobody left room.
    box = None if report.is_ascii else SIMPLE_HEAD
    table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, 1 if box else _GAP, 0, 0), header_style="bold")
    table.add_column(layout.head, no_wrap=True, vertical="top")
    for column in layout.columns:
        table.add_column(Text("\n".join(_head(column))), justify="right", no_wrap=True)
    for row, label in zip(rows, layout.labels, strict=True):
        name = Text(f"{row.mark:<{_MARK_WIDTH}}", style=_RECOMMENDED_STYLE if row.mark else "")
        name.append(label.replace("\n", f"\n{' ' * _MARK_WIDTH}"))
        cells = [layout.cells(column)[row.index] for column in layout.columns]
        table.add_row(name, *(Text(cell, style="dim" if cell == NOTHING else "") for cell in cells))
    report.draw(table)


def _print_paragraphs(report: Report, rows: Sequence[_TableRow], columns: Sequence[Column]) -> None:
    """Print each row as its name with its numbers below, for windows that no table fits."""
    for row in rows:
        report.blank()
        report.paragraph(f"{row.mark} {row.name}".strip(), style=_RECOMMENDED_STYLE if row.mark else "")
        cells = ((column, column.cells[row.index]) for column in columns)
        facts = [f"{column.short_title} {cell} {column.unit}".strip() for column, cell in cells if cell != NOTHING]
        report.paragraph(", ".join(facts), indent=_MARK_WIDTH)


def _print_words(report: Report, results: Results, budget: int | None) -> None:
    """Print the failures, the configurations that were not run, other notes, and the advice."""
    if failures(results):
        report.blank()
    for failure in failures(results):
        report.paragraph(f"{FAILED} {failure.name}, {failure.status}: {failure.error}")
    if left := not_run(results):
        report.paragraph(left)
    for notice in results.notices:
        report.paragraph(safe_line(notice))
    report.blank()
    arrow = "" if recommend(results, budget) is None else f"{RECOMMENDED} "
    report.paragraph(f"{arrow}{advise(results, budget)}", style="bold")


def _known_column(report: Report, column: Column) -> Column:
    """Return a column in the characters that the terminal's encoding has."""
    cells = tuple(report.shown(cell) for cell in column.cells)
    bare = tuple(report.shown(cell) for cell in column.bare)
    return replace(column, group=report.shown(column.group), name=report.shown(column.name), cells=cells, bare=bare)
