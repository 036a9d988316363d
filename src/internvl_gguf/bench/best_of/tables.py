"""The table of several answers: a line for each number of answers, for the terminal, the page and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from internvl_gguf.bench.best_of.wording import judge_name, meanings, percent, points
from internvl_gguf.bench.report.columns import NOTHING, Column
from internvl_gguf.bench.report.wording import number, row_names, spread
from internvl_gguf.bench.results import ORACLE, BestOfResult, JudgedAnswers, Results
from internvl_gguf.utils.safe_text import safe_line

HEAD = "answers"
"""Title of the first column."""

_Cell = tuple[str, str]  # with its interval and without it


@dataclass(frozen=True)
class BestOfTable:
    """A table of one configuration and task.

    Attributes:
        title: in one line.
        labels: first cell of each line: a number of answers.
        columns: as those of the table of configurations, but with a cell for each number of answers.
        meanings: what the numbers are, a short paragraph each.
    """

    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    meanings: tuple[str, ...]


def best_of_tables(results: Results) -> tuple[BestOfTable, ...]:
    """Return a table for each configuration and task with several answers."""
    return tuple(
        BestOfTable(
            f"{name}: several answers, {safe_line(found.task)}",
            tuple(str(count) for count in found.counts),
            tuple(_columns(found)),
            meanings(found),
        )
        for name, row in zip(row_names(results), results.rows, strict=True)
        for found in row.best_of
    )


def _columns(found: BestOfResult) -> Iterator[Column]:
    judges = [judge for judge in found.judges if judge != ORACLE]
    for place, judge in enumerate(judges):
        meaning = f"questions answered right where {judge_name(judge)} chooses, with the 95% interval"
        yield _column(found, judge, judge_name(judge), "right", "%", place, meaning, lambda each: _right(found, each))
    meaning = "questions with a right answer among so many (pass@N)"
    rank = len(judges)
    yield _column(found, ORACLE, judge_name(ORACLE), "", "%", rank, meaning, lambda each: _right(found, each))
    for place, judge in enumerate(judges):
        name, rank = judge_name(judge), 2 * len(judges) + place
        meaning = f"points more than one answer where {name} chooses, with the 95% interval"
        yield _column(found, judge, name, "gain", "points", rank + 2, meaning, _gain)
    for place, judge in enumerate(judges):
        name = judge_name(judge)
        rank = len(judges) + 1 + (place if not place else 2 * len(judges) + place)
        meaning = f"seconds from a question to the answer that {name} chooses"
        yield _column(found, judge, name, "time", "s", rank, meaning, _seconds)
    cells = tuple(number(tokens) for tokens in found.tokens[: len(found.counts)])
    cells += (NOTHING,) * (len(found.counts) - len(cells))
    yield Column("tokens", "", "", len(judges) + 2, "tokens of all answers to a question", cells, cells)


def _column(
    found: BestOfResult,
    judge: str,
    group: str,
    name: str,
    unit: str,
    rank: int,
    meaning: str,
    cell: Callable[[JudgedAnswers], _Cell],
) -> Column:
    cells = []
    for count in found.counts:
        judged = found.of(judge, count)
        cells.append(cell(judged) if judged else (NOTHING, NOTHING))
    return Column(group, name, unit, rank, meaning, tuple(full for full, _ in cells), tuple(bare for _, bare in cells))


def _right(found: BestOfResult, judged: JudgedAnswers) -> _Cell:
    share = percent(found.fraction(judged))
    return f"{share} ({100 * judged.low:.0f}–{100 * judged.high:.0f})", share


def _gain(judged: JudgedAnswers) -> _Cell:
    if judged.count == 1:
        return NOTHING, NOTHING
    gain = points(judged.gain)
    return f"{gain} ({points(judged.gain_low)} to {points(judged.gain_high)})", gain


def _seconds(judged: JudgedAnswers) -> _Cell:
    if judged.seconds is None:
        return NOTHING, NOTHING
    return spread(judged.seconds), number(judged.seconds.median)
