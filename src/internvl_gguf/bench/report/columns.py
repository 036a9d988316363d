"""The columns of a benchmark's table: one list for the terminal, the page and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from internvl_gguf.bench.report.pareto import DivergenceKind, divergence, has_split, measure_of
from internvl_gguf.bench.report.wording import number, size_unit, spread, with_error
from internvl_gguf.bench.results import Divergence, Results, Row, Spread
from internvl_gguf.utils.safe_text import safe_line

NOTHING: Final = "-"
"""Cell of a value that was not measured."""
DISTURBED: Final = "~"
"""Stands before a value whose spread is as large."""


@dataclass(frozen=True)
class Column:
    """One number of every row.

    Attributes:
        group, name: its title in two parts, such as "KLD" and "pictures".
        unit: of its numbers; empty for none.
        rank: importance; columns of rank 0 are shown in the narrowest window, too.
        meaning: description in a few words.
        cells: cell of each row in the order of `Results.rows`, with errors and spreads.
        bare: the same cells without errors and spreads.
    """

    group: str
    name: str
    unit: str
    rank: int
    meaning: str
    cells: tuple[str, ...]
    bare: tuple[str, ...]

    @property
    def short_title(self) -> str:
        """The title in one line."""
        return f"{self.group} {self.name}".strip()

    @property
    def title(self) -> str:
        """The title in one line, with the unit."""
        return f"{self.short_title}, {self.unit}" if self.unit else self.short_title


_BESIDE_GPUS: Final = 11  # added to the rank of the host's memory on machines with GPUs
_Cell = tuple[str, str] | None  # with its error and without it
_CellOf = Callable[[Row], _Cell]
_DIVERGENCES: Final[tuple[tuple[DivergenceKind, str, str, int], ...]] = (
    ("pictures", "pictures", "answers about pictures", 1),
    ("text", "text", "text", 5),
    ("quant_alone", "quant", "pictures, the text quant alone", 12),
    ("mmproj_alone", "mmproj", "pictures, the mmproj's precision alone", 13),
)
_SPEEDS: Final = (
    ("decode", "decode", "tok/s", 2, "tokens a second of one answer"),
    ("prefill", "prefill", "tok/s", 10, "tokens a second of reading a prompt"),
    ("time_to_first_token", "1st token", "s", 7, "from a question about a picture to its answer's first token"),
    ("tile", "tile", "s", 11, "encoding one tile"),
    ("load", "load", "s", 18, "from nothing to a session that can be asked"),
)


def columns_of(results: Results) -> tuple[Column, ...]:
    """Return the columns with a value in at least one row, in the order to show them."""
    return tuple(column for column in _columns(results) if any(cell != NOTHING for cell in column.cells))


def _columns(results: Results) -> Iterator[Column]:
    unit, scale = size_unit(results)
    yield _column(results, "files", "", unit, 0, "the files of text model and mmproj", _files(scale))
    yield _column(results, "bits", "", "", 15, "bits a weight of the text model's file", _bits)
    yield from _memory_columns(results, unit, scale)
    yield from _divergence_columns(results)
    for task in dict.fromkeys(result.task for row in results.rows for result in row.accuracy):
        meaning = "questions answered right, with the ends of the 95% confidence interval"
        rank = 3 if measure_of(results) == "accuracy" else 6
        yield _column(results, "right", safe_line(task), "%", rank, meaning, _right(task))
    for field, name, unit, rank, meaning in _SPEEDS:
        yield _column(results, name, "", unit, rank, meaning, _speed(field))
    for parallel in sorted({row.speed.parallel for row in results.rows if row.speed and row.speed.decode_parallel}):
        meaning = f"tokens a second of {parallel} answers together"
        yield _column(results, "decode", f"x{parallel}", "tok/s", 14, meaning, _speed("decode_parallel", parallel))


def _column(results: Results, group: str, name: str, unit: str, rank: int, meaning: str, cell: _CellOf) -> Column:
    cells = [cell(row) or (NOTHING, NOTHING) for row in results.rows]
    return Column(group, name, unit, rank, meaning, tuple(full for full, _ in cells), tuple(bare for _, bare in cells))


def _memory_columns(results: Results, unit: str, scale: int) -> Iterator[Column]:
    for kind, rank, how in (("planned", 4, "by the plan"), ("peak", 9, "at its most, as measured")):
        devices = dict.fromkeys(name for row in results.rows if row.memory for name in getattr(row.memory, kind))
        for place, device in enumerate(devices):
            name = safe_line(device) if len(devices) > 1 else ""
            # On machines with GPUs, their memory is the scarce one.
            beside = _BESIDE_GPUS if len(devices) > 1 and place == 0 else 0
            yield _column(results, kind, name, unit, rank + beside, f"memory {how}", _memory(kind, device, scale))


def _divergence_columns(results: Results) -> Iterator[Column]:
    for kind, name, about, rank in _DIVERGENCES if has_split(results) else _DIVERGENCES[:2]:
        meaning = f"mean KL divergence from the reference on {about}, with its standard error"
        yield _column(results, "KLD", name, "nats", rank, meaning, _mean(results, kind))
    main: DivergenceKind = "text" if measure_of(results) == "text" else "pictures"
    details: tuple[tuple[str, str, int, str, Callable[[Divergence], float]], ...] = (
        ("p99", "nats", 16, "KL divergence that 1 token in 100 exceeds", lambda found: found.p99),
        ("max", "nats", 19, "largest KL divergence", lambda found: found.maximum),
        ("top-1", "%", 8, "tokens whose likeliest next one is the reference's", lambda found: 100 * found.top1),
        ("perplexity", "", 17, "perplexity of the scored tokens", lambda found: found.perplexity),
    )
    for name, unit, rank, meaning, read in details:
        yield _column(results, name, main, unit, rank, f"{meaning}, on {main}", _detail(main, read))


def _files(scale: int) -> _CellOf:
    return lambda row: _both(row.configuration.bytes / scale)


def _bits(row: Row) -> _Cell:
    return _both(row.configuration.bits_per_weight)


def _memory(kind: str, device: str, scale: int) -> _CellOf:
    def cell(row: Row) -> _Cell:
        sizes: dict[str, int] = getattr(row.memory, kind) if row.memory else {}
        return _both(sizes[device] / scale) if device in sizes else None

    return cell


def _mean(results: Results, kind: DivergenceKind) -> _CellOf:
    is_known = any(divergence(row, kind) for row in results.rows)
    reference = results.rows[results.reference] if results.reference is not None else None

    def cell(row: Row) -> _Cell:
        if row is reference and is_known and row.status == "measured":
            return _both(0)  # divergence from itself, rounding aside
        found = divergence(row, kind)
        return (with_error(found.mean, found.mean_error), number(found.mean)) if found else None

    return cell


def _detail(kind: DivergenceKind, read: Callable[[Divergence], float]) -> _CellOf:
    def cell(row: Row) -> _Cell:
        found = divergence(row, kind)
        return _both(read(found)) if found else None

    return cell


def _right(task: str) -> _CellOf:
    def cell(row: Row) -> _Cell:
        result = next((each for each in row.accuracy if each.task == task), None)
        if result is None or not result.questions:
            return None
        share = number(100 * result.fraction)
        return f"{share} ({100 * result.low:.0f}–{100 * result.high:.0f})", share

    return cell


def _speed(field: str, parallel: int | None = None) -> _CellOf:
    def cell(row: Row) -> _Cell:
        measured: Spread | None = getattr(row.speed, field) if row.speed else None
        if measured is None or (row.speed and parallel not in (None, row.speed.parallel)):
            return None
        mark = DISTURBED if measured.is_disturbed else ""
        return f"{mark}{spread(measured)}", f"{mark}{number(measured.median)}"

    return cell


def _both(value: float) -> _Cell:
    return number(value), number(value)
