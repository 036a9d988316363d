"""The results of a benchmark as one page of HTML that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final

from internvl_gguf.bench.report.advice import advise
from internvl_gguf.bench.report.charts import Chart, charts_of
from internvl_gguf.bench.report.columns import Column, columns_of
from internvl_gguf.bench.report.figures import chart_as_svg, write_report
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
from internvl_gguf.bench.report.page_style import STYLE
from internvl_gguf.bench.report.svg import svg_for_page
from internvl_gguf.bench.report.wording import row_names
from internvl_gguf.bench.results import Results
from internvl_gguf.utils.safe_text import safe_line

_SPOKEN: Final = {BEST: "unbeaten", BEST_BY_SPEED: "unbeaten with speed", FAILED: "not measured"}


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
    title = _text(results.model) or "Benchmark"
    parts = [
        f"<header><h1>{title}</h1>",
        *(f'<p class="facts">{_text(line)}</p>' for line in (circumstances(results), common_settings(results)) if line),
        f'<p class="advice"><strong>{_text(advise(results, budget))}</strong></p></header>',
        "<main>",
        _table(results),
        _lists(results),
        _charts(charts_of(results)),
        "</main>",
    ]
    if results.command:
        parts.append(f"<footer><h2>Again</h2><pre><code>{_text(results.command)}</code></pre></footer>")
    return "\n".join([
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        # What a name in a file may smuggle in could still load nothing and run nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}: quants compared</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        *parts,
        "</body>",
        "</html>",
        "",
    ])  # fmt: skip


def _table(results: Results) -> str:
    if not results.rows:
        return ""
    columns = columns_of(results)
    head = "".join(f'<th scope="col">{_title(column)}</th>' for column in columns)
    lines = [
        _row(results, index, mark, name, columns)
        for index, (mark, name) in enumerate(zip(marks_of(results), row_names(results), strict=True))
    ]
    notes = "".join(f"<p>{_text(line)}</p>" for line in legend(results))
    meanings = "".join(f"<dt>{_title(column)}</dt><dd>{_text(column.meaning)}</dd>" for column in columns)
    return "\n".join([
        '<section aria-labelledby="numbers"><h2 id="numbers">Numbers</h2>',
        '<div class="scroll" role="region" aria-labelledby="numbers" tabindex="0">',
        "<table><caption>One line for each configuration, as it was asked for</caption>",
        f'<thead><tr><th scope="col">quant</th>{head}</tr></thead>',
        "<tbody>",
        *lines,
        "</tbody></table></div>",
        f'<div class="notes">{notes}</div>',
        f"<details><summary>What each column is</summary><dl>{meanings}</dl></details>",
        "</section>",
    ])  # fmt: skip


def _title(column: Column) -> str:
    unit = f" <small>{_text(column.unit)}</small>" if column.unit else ""
    return f"{_text(column.short_title)}{unit}"


def _row(results: Results, index: int, mark: str, name: str, columns: tuple[Column, ...]) -> str:
    row = results.rows[index]
    shown = f'<span class="mark" aria-hidden="true">{mark}</span><span class="spoken">{_SPOKEN.get(mark, "")} </span>'
    status = "" if row.status == "measured" else f" <small>{_text(row.status)}</small>"
    cells = "".join(f"<td>{_text(column.cells[index])}</td>" for column in columns)
    kind = {BEST: "best", BEST_BY_SPEED: "best", FAILED: "failed"}.get(mark, "plain")
    return f'<tr class="{kind}"><th scope="row">{shown}{_text(name)}{status}</th>{cells}</tr>'


def _lists(results: Results) -> str:
    """What failed, and what else a reader should know."""
    failed = [
        f"<li><strong>{_text(each.name)}</strong>: {_text(f'{each.status}. {each.error}'.strip())}</li>"
        for each in failures(results)
    ]
    notices = [f"<li>{_text(notice)}</li>" for notice in results.notices]
    sections = [("not-measured", "Not measured", failed), ("notices", "To be known", notices)]
    return "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2><ul>{"".join(items)}</ul></section>'
        for name, title, items in sections
        if items
    )


def _charts(charts: tuple[Chart, ...]) -> str:
    if not charts:
        return "<section><p>There is nothing to draw: neither quality nor speed was measured.</p></section>"
    figures = []
    for place, chart in enumerate(charts):
        svg = svg_for_page(chart_as_svg(chart), f"chart{place}", chart.title, chart.description)
        figures.append(
            f'<figure><h3>{_text(chart.title)}</h3><div class="scroll" tabindex="0">{svg}</div>'
            f"<figcaption>{_text(chart.description)}</figcaption></figure>"
        )
    head = '<section aria-labelledby="charts"><h2 id="charts">Charts</h2>'
    return "\n".join([head, '<div class="charts">', *figures, "</div></section>"])


def _text(text: str) -> str:
    """Text from anywhere as it stands in a page."""
    return html.escape(safe_line(text))
