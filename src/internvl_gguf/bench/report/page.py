"""The results of a benchmark as one page of HTML that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from internvl_gguf.bench.best_of.tables import HEAD, BestOfTable, best_of_tables
from internvl_gguf.bench.report.advice import advise, recommend
from internvl_gguf.bench.report.chart import Chart
from internvl_gguf.bench.report.charts import charts_of
from internvl_gguf.bench.report.columns import Column, columns_of
from internvl_gguf.bench.report.figures import chart_as_svg, write_report
from internvl_gguf.bench.report.legend import (
    RECOMMENDED,
    circumstances,
    common_settings,
    failures,
    legend,
    not_run,
    table_rows,
    title,
)
from internvl_gguf.bench.report.page_style import STYLE
from internvl_gguf.bench.report.svg import svg_for_page
from internvl_gguf.bench.report.wording import row_names
from internvl_gguf.bench.results import Results
from internvl_gguf.utils.safe_text import safe_line


def write_page(path: Path, results: Results, budget: int | None = None) -> None:
    """Write the page; the advice is for `budget` bytes.

    Raises:
        InvalidRequestError: matplotlib is not installed, or the file cannot be written.
    """
    write_report(path, results_to_page(results, budget).encode("utf-8"))


def results_to_page(results: Results, budget: int | None = None) -> str:
    """The page; every text in it that comes from a file is escaped.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    name = _text(title(results))
    parts = [
        f"<header><h1>{name}</h1>",
        *(f'<p class="facts">{_text(line)}</p>' for line in (circumstances(results), common_settings(results)) if line),
        f'<p class="advice"><strong>{_text(advise(results, budget))}</strong></p></header>',
        "<main>",
        _table(results, recommend(results, budget)),
        *(_best_of(each, f"several{place}") for place, each in enumerate(best_of_tables(results))),
        _lists(results),
        charts_section(charts_of(results, budget)),
        "</main>",
    ]
    if results.command:
        parts.append(f"<footer><h2>Run it again</h2><pre><code>{_text(results.command)}</code></pre></footer>")
    return page_of(title(results), parts)


def page_of(name: str, parts: Sequence[str]) -> str:
    """A whole page: its name is text, its parts are HTML."""
    return "\n".join([
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        # What a name in a file may smuggle in could still load nothing and run nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{_text(name)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        *parts,
        "</body>",
        "</html>",
        "",
    ])  # fmt: skip


def _table(results: Results, recommended: int | None) -> str:
    rows = table_rows(results)
    if not rows:
        return ""
    # The most telling first: in a narrow window the others are reached by scrolling.
    columns = tuple(sorted(columns_of(results), key=lambda column: column.rank))
    head = "".join(f'<th scope="col">{_title(column)}</th>' for column in columns)
    names = row_names(results)
    lines = [_row(index, names[index], columns, is_recommended=index == recommended) for index in rows]
    notes = "".join(f"<p>{_text(line)}</p>" for line in legend(results))
    meanings = "".join(f"<dt>{_title(column)}</dt><dd>{_text(column.meaning)}</dd>" for column in columns)
    count = f"{len(columns)} columns, the most telling first; where they end in a shadow, scroll sideways"
    return "\n".join([
        '<section aria-labelledby="numbers"><h2 id="numbers">Numbers</h2>',
        f'<p class="facts">{count}.</p>',
        '<div class="scroll" role="region" aria-labelledby="numbers" tabindex="0">',
        '<table><caption class="spoken">One line for each configuration, as it was asked for</caption>',
        f'<thead><tr><th scope="col">quant</th>{head}</tr></thead>',
        "<tbody>",
        *lines,
        "</tbody></table></div>",
        f'<div class="notes">{notes}</div>',
        f"<details><summary>What each column is</summary><dl>{meanings}</dl></details>",
        "</section>",
    ])  # fmt: skip


def _best_of(table: BestOfTable, name: str) -> str:
    """Return the section of a table of several answers; `name` is its identifier."""
    head = "".join(f'<th scope="col">{_title(column)}</th>' for column in table.columns)
    cells = [
        "".join(f"<td>{_cell(column, line)}</td>" for column in table.columns) for line in range(len(table.labels))
    ]
    lines = [
        f'<tr><th scope="row">{_text(label)}</th>{of_line}</tr>'
        for label, of_line in zip(table.labels, cells, strict=True)
    ]
    notes = "".join(f"<p>{_text(line)}</p>" for line in table.meanings)
    return "\n".join([
        f'<section aria-labelledby="{name}"><h2 id="{name}">{_text(table.title)}</h2>',
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">',
        '<table><caption class="spoken">One line for each number of answers</caption>',
        f'<thead><tr><th scope="col">{HEAD}</th>{head}</tr></thead>',
        "<tbody>",
        *lines,
        "</tbody></table></div>",
        f'<div class="notes">{notes}</div>',
        "</section>",
    ])  # fmt: skip


def _title(column: Column) -> str:
    unit = f" <small>{_text(column.unit)}</small>" if column.unit else ""
    return f"{_text(column.short_title)}{unit}"


def _row(index: int, name: str, columns: tuple[Column, ...], *, is_recommended: bool) -> str:
    mark = RECOMMENDED if is_recommended else ""
    spoken = '<span class="spoken">the one to take: </span>' if is_recommended else ""
    shown = f'<span class="mark" aria-hidden="true">{mark}</span>{spoken}'
    cells = "".join(f"<td>{_cell(column, index)}</td>" for column in columns)
    kind = ' class="best"' if is_recommended else ""
    return f'<tr{kind}><th scope="row">{shown}{_text(name)}</th>{cells}</tr>'


def _cell(column: Column, index: int) -> str:
    """A number, with its error in smaller letters."""
    whole, bare = column.cells[index], column.bare[index]
    error = whole.removeprefix(bare).strip()
    return f"{_text(bare)} <small>{_text(error)}</small>" if error and error != whole else _text(whole)


def _lists(results: Results) -> str:
    """Return the section of failures and notices."""
    failed = [
        f"<li><strong>{_text(each.name)}</strong>: {_text(f'{each.status}. {each.error}'.strip())}</li>"
        for each in failures(results)
    ]
    notices = [f"<li>{_text(notice)}</li>" for notice in (not_run(results), *results.notices) if notice]
    sections = [("failed", "Failed", failed), ("notices", "Notes", notices)]
    return "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2><ul>{"".join(items)}</ul></section>'
        for name, title, items in sections
        if items
    )


def charts_section(charts: tuple[Chart, ...]) -> str:
    """The section of the charts of a page."""
    if not charts:
        return "<section><p>There is nothing to draw: neither quality nor speed was measured.</p></section>"
    figures = []
    for place, chart in enumerate(charts):
        # Drawn twice, since letters that are scaled with a chart are too small in one window or too large in another.
        wide, narrow = (
            svg_for_page(chart_as_svg(chart, narrow=narrow), f"{kind}{place}", chart.title, chart.description)
            for kind, narrow in (("wide", False), ("narrow", True))
        )
        figures.append(
            f'<figure><h3>{_text(chart.title)}</h3><div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
            f"<figcaption>{_text(chart.description)}</figcaption></figure>"
        )
    head = '<section aria-labelledby="charts"><h2 id="charts">Charts</h2>'
    return "\n".join([head, '<div class="charts">', *figures, "</div></section>"])


def _text(text: str) -> str:
    """Text from anywhere as it stands in a page."""
    return html.escape(safe_line(text))
