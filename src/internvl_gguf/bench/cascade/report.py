"""The report on cascades: its table and words, as Markdown, JSON, CSV and a page."""

from __future__ import annotations

import csv
import html
import io
import json
from typing import Any, Final

from internvl_gguf.bench.cascade.chart import cascade_chart
from internvl_gguf.bench.cascade.fit import FOLDS
from internvl_gguf.bench.cascade.intervals import Interval
from internvl_gguf.bench.cascade.results import CascadeResults, CascadeRow
from internvl_gguf.bench.plain_json import as_plain, check_format, from_plain
from internvl_gguf.bench.report.legend import RECOMMENDED
from internvl_gguf.bench.report.markdown import escaped
from internvl_gguf.bench.report.page import charts_section, page_of
from internvl_gguf.bench.report.wording import number
from internvl_gguf.utils.safe_text import safe_line

FORMAT: Final = 1
HEAD: Final = (
    "who is asked", "right (95%)", "seconds", "less time (95%)", "more right (95%)", "asked on", "threshold",
    "separation",
)  # fmt: skip


def title_of(results: CascadeResults) -> str:
    """Return in one line what was measured."""
    return f"{', then '.join(map(safe_line, results.models))}: {safe_line(results.task)}"


def circumstances_of(results: CascadeResults) -> str:
    """Return where, with what and when the numbers were made, in one line."""
    facts = (results.machine, f"llama.cpp {results.build}", f"internvl-gguf {results.version}", results.started_at)
    return "; ".join(map(safe_line, facts))


def table_of(results: CascadeResults) -> list[tuple[str, ...]]:
    """Return a line for each row, with a cell for each title of `HEAD`."""
    marks = [f"{RECOMMENDED} " if place == results.recommended else "" for place in range(len(results.rows))]
    return [(mark + safe_line(row.name), *_cells(row)) for mark, row in zip(marks, results.rows, strict=True)]


def legend_of(results: CascadeResults) -> tuple[str, ...]:
    """Explain the columns, a sentence or two each."""
    last = safe_line(results.models[-1])
    encoder = "the vision encoder's time, which they share" if results.shares_encoder else "nothing shared"
    return (
        f"right: of {results.rows[0].questions:,} questions. seconds: mean time of an answer of loaded models, nothing "
        f"known of the picture; of a model that is asked after another without {encoder}.",
        f"less time, more right: of a cascade, against {last} alone.",
        f"threshold: fitted to all questions; the numbers beside it are of questions in {FOLDS} parts, each decided by "
        "thresholds that were fitted to the other parts. asked on: questions that the first model does not answer.",
        "separation: how often a right answer is surer than a wrong one; 0.5 is chance, and then no threshold helps.",
        "oracle: knows for each question the fastest model that is right.",
    )


def to_json(results: CascadeResults) -> dict[str, Any]:
    """Return the document: the fields of `CascadeResults` under their names, with `"format": 1` before them."""
    return {"format": FORMAT, **as_plain(results)}


def from_json(document: Any) -> CascadeResults:
    """Return the results in a document.

    Raises:
        InvalidRequestError: a document of another format, or a damaged one.
    """
    check_format(document, FORMAT)
    return from_plain(CascadeResults, document)


def to_markdown(results: CascadeResults) -> str:
    """Return a title, the table, its legend, the advice and where it was measured."""
    lines = [HEAD, (":--", *("--:" for _ in HEAD[1:])), *(map(escaped, row) for row in table_of(results))]
    parts = [
        f"## {escaped(title_of(results))}",
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        *map(escaped, legend_of(results)),
        *(escaped(safe_line(notice)) for notice in results.notices),
        f"**{escaped(results.advice)}**",
        escaped(circumstances_of(results)),
    ]
    return "\n\n".join([*parts, f"    {safe_line(results.command)}"] if results.command else parts) + "\n"


def to_csv(results: CascadeResults) -> str:
    """Return a line of names and one for each row, by RFC 4180."""
    out = io.StringIO(newline="")
    names = ("kind", "name", "best_of", "questions", "right", "low", "high", "seconds", "separation")
    ends = ("value", "low", "high")
    writer = csv.writer(out)
    differences = [f"{name}_{end}" for name in ("saved", "gained") for end in ends]
    writer.writerow([*names, "shares", "thresholds", *differences, "recommended"])
    for place, row in enumerate(results.rows):
        facts = [safe_line(row.name) if name == "name" else getattr(row, name) for name in names]
        lists = [" ".join(f"{value:.6g}" for value in values) for values in (row.shares, row.thresholds)]
        found = [getattr(each, end) if each else "" for each in (row.saved, row.gained) for end in ends]
        is_recommended = "true" if place == results.recommended else "false"
        writer.writerow(["" if fact is None else fact for fact in facts] + lists + found + [is_recommended])
    return out.getvalue()


def render(results: CascadeResults, form: str) -> str:
    """Return the report as "md", "json" or "csv", with a newline at its end."""
    if form == "json":
        return json.dumps(to_json(results), ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    return to_csv(results) if form == "csv" else to_markdown(results)


def to_page(results: CascadeResults) -> str:
    """Return one page of HTML that needs nothing else; texts from files are escaped.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    head = "".join(f'<th scope="col">{_text(title)}</th>' for title in HEAD)
    lines = []
    for place, (name, *cells) in enumerate(table_of(results)):
        kind = ' class="best"' if place == results.recommended else ""
        numbers = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f'<tr{kind}><th scope="row">{_text(name)}</th>{numbers}</tr>')
    notices = "".join(f"<li>{_text(notice)}</li>" for notice in results.notices)
    parts = [
        f"<header><h1>{_text(title_of(results))}</h1>",
        f'<p class="facts">{_text(circumstances_of(results))}</p>',
        f'<p class="advice"><strong>{_text(results.advice)}</strong></p></header>',
        '<main><section aria-labelledby="numbers"><h2 id="numbers">Numbers</h2>',
        '<div class="scroll" role="region" aria-labelledby="numbers" tabindex="0">',
        '<table><caption class="spoken">One line for each way of answering</caption>',
        f"<thead><tr>{head}</tr></thead><tbody>",
        *lines,
        "</tbody></table></div>",
        f'<div class="notes">{"".join(f"<p>{_text(line)}</p>" for line in legend_of(results))}</div></section>',
        f'<section aria-labelledby="notices"><h2 id="notices">Notes</h2><ul>{notices}</ul></section>'
        if notices
        else "",
        charts_section((cascade_chart(results),)),
        "</main>",
    ]
    if results.command:
        parts.append(f"<footer><h2>Run it again</h2><pre><code>{_text(results.command)}</code></pre></footer>")
    return page_of(title_of(results), parts)


def _cells(row: CascadeRow) -> tuple[str, ...]:
    return (
        f"{100 * row.fraction:.1f}% ({100 * row.low:.0f}–{100 * row.high:.0f})",
        number(row.seconds),
        _percent(row.saved, ".0f"),
        _percent(row.gained, "+.1f"),
        f"{100 * (1 - row.shares[0]):.0f}%" if row.kind == "cascade" else "",
        ", ".join(f"{threshold:g}" for threshold in row.thresholds),
        "" if row.separation is None else f"{row.separation:.2f}",
    )


def _percent(found: Interval | None, form: str) -> str:
    if found is None:
        return ""
    value, low, high = (format(100 * each, form) for each in (found.value, found.low, found.high))
    return f"{value}% ({low} to {high})"


def _text(text: str) -> str:
    return html.escape(safe_line(text))
