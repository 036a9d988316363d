"""Write the results of a benchmark as Markdown with a table that GitHub shows."""

from __future__ import annotations

import re
from typing import Final

from internvl_gguf.bench.best_of.tables import HEAD, best_of_tables
from internvl_gguf.bench.report.advice import advise, recommend
from internvl_gguf.bench.report.columns import columns_of
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
from internvl_gguf.bench.report.wording import row_names
from internvl_gguf.bench.results import Results
from internvl_gguf.utils.safe_text import safe_line

# What GitHub's dialect takes as markup. An underscore within a word is none, and quants are full of them.
_MARKUP: Final = re.compile(r"[\\`*\[\]<>&|~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|(?<=:)//|^[#+=-]+(?=\s|$)")
_LIST: Final = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")


def results_to_markdown(results: Results, budget: int | None = None) -> str:
    """A title, the table, its legend, what failed, the advice for `budget` bytes, and where it was measured."""
    columns, names, recommended = columns_of(results), row_names(results), recommend(results, budget)
    head = ["Quant", *(escaped(column.title) for column in columns)]
    rows = [
        [
            f"{RECOMMENDED if index == recommended else ''} {escaped(names[index])}".strip(),
            *(column.cells[index] for column in columns),
        ]
        for index in table_rows(results)
    ]
    parts = [_table(head, rows)] if rows else []
    parts += [escaped(line) for line in legend(results)]
    for several in best_of_tables(results):
        lines = zip(several.labels, *(column.cells for column in several.columns), strict=True)
        parts.append(f"### {escaped(several.title)}")
        parts.append(
            _table([HEAD, *(escaped(column.title) for column in several.columns)], [[*each] for each in lines])
        )
        parts += [escaped(line) for line in several.meanings]
    failed = [f"- {escaped(f'{each.name}: {each.status}. {each.error}'.strip())}" for each in failures(results)]
    parts += ["\n".join(failed)] if failed else []
    parts += [escaped(line) for line in (not_run(results),) if line]
    parts += [escaped(safe_line(notice)) for notice in results.notices]
    parts += [f"**{escaped(advise(results, budget))}**"]
    parts += [escaped(line) for line in (common_settings(results), circumstances(results)) if line]
    if results.command:
        parts.append(f"    {safe_line(results.command)}")
    return f"## {escaped(title(results))}\n\n" + "\n\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, [":--", *("--:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escaped(text: str) -> str:
    """Escape text so that Markdown shows it unchanged in a cell or a paragraph."""
    return _LIST.sub(r"\1\\\2", _MARKUP.sub(lambda match: f"\\{match[0]}", text))
