"""Write the results of a benchmark as Markdown with a table that GitHub shows."""

from __future__ import annotations

import re
from typing import Final

from internvl_gguf.bench.report.advice import advise
from internvl_gguf.bench.report.columns import columns_of
from internvl_gguf.bench.report.legend import circumstances, common_settings, failures, legend, marks_of
from internvl_gguf.bench.report.wording import row_names
from internvl_gguf.bench.results import Results
from internvl_gguf.utils.safe_text import safe_line

# What GitHub's dialect takes as markup. An underscore within a word is none, and quants are full of them.
_MARKUP: Final = re.compile(r"[\\`*\[\]<>&|~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|(?<=:)//|^[#+=-]+(?=\s|$)")
_LIST: Final = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")


def results_to_markdown(results: Results, budget: int | None = None) -> str:
    """Return a title, the table, its legend, the failures, the advice for `budget` bytes, and the machine."""
    columns = columns_of(results)
    head = ["Quant", *(escaped(column.title) for column in columns)]
    rows = [
        [f"{mark} {escaped(name)}".strip(), *(column.cells[index] for column in columns)]
        for index, (mark, name) in enumerate(zip(marks_of(results), _names(results), strict=True))
    ]
    table = [head, [":--", *("--:" for _ in columns)], *rows]
    parts = ["\n".join(f"| {' | '.join(cells)} |" for cells in table)]
    parts += [escaped(line) for line in legend(results)]
    failed = [f"- {escaped(f'{each.name}: {each.status}. {each.error}'.strip())}" for each in failures(results)]
    parts += ["\n".join(failed)] if failed else []
    parts += [escaped(safe_line(notice)) for notice in results.notices]
    parts += [f"**{escaped(advise(results, budget))}**"]
    parts += [escaped(line) for line in (common_settings(results), circumstances(results)) if line]
    if results.command:
        parts.append(f"    {safe_line(results.command)}")
    return f"## {escaped(safe_line(results.model)) or 'Benchmark'}\n\n" + "\n\n".join(parts) + "\n"


def _names(results: Results) -> list[str]:
    """Return the names of the rows, with the reason if a row was not measured."""
    rows = zip(row_names(results), results.rows, strict=True)
    return [name if row.status == "measured" else f"{name} ({row.status})" for name, row in rows]


def escaped(text: str) -> str:
    """Escape text so that Markdown shows it unchanged in a cell or a paragraph."""
    return _LIST.sub(r"\1\\\2", _MARKUP.sub(lambda match: f"\\{match[0]}", text))
