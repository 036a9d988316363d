"""Format numbers and names in the same way for every report of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Final

from internvl_gguf.bench.results import Configuration, Results, Spread
from internvl_gguf.utils.safe_text import safe_line

DIGITS: Final = 3
_SMALLEST: Final = -3  # powers of ten that are easier to read as digits than as such
_LARGEST: Final = 6
_GIB: Final = 2**30


def number(value: float, digits: int = DIGITS) -> str:
    """Format a number with `digits` significant digits: "0.0312", "11.2", "1,235", "3.12e-5"."""
    if not math.isfinite(value) or value == 0:
        return f"{value:.0f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if _SMALLEST <= int(exponent) <= _LARGEST:
        return f"{value:,.{decimals(value, digits)}f}"
    return f"{mantissa}e{int(exponent)}"


def decimals(value: float, digits: int = DIGITS) -> int:
    """Return the decimal places of a number with `digits` significant digits; `value` is not 0."""
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 9.996 has one place
    return max(0, digits - 1 - exponent)


def with_error(value: float, error: float) -> str:
    """Format a number with its error, both with the same decimal places: "0.0312 ±0.0004"."""
    if not error or not math.isfinite(error) or not math.isfinite(value):
        return number(value)
    if "e" in number(value):
        return f"{number(value)} ±{number(error, 1)}"
    off = f"{error:.{decimals(value)}f}"
    return f"{number(value)} ±{off if float(off) else number(error, 1)}"


def spread(measured: Spread) -> str:
    """Median and half the distance of the quartiles of what was measured more than once."""
    if measured.repetitions < 2:
        return number(measured.median)
    lower, upper = measured.quartiles
    return with_error(measured.median, (upper - lower) / 2)


def size_unit(results: Results) -> tuple[str, int]:
    """Return the unit of all sizes and its bytes: GiB, or MiB for very small models."""
    largest = max((row.configuration.bytes for row in results.rows), default=0)
    return ("GiB", _GIB) if largest >= _GIB // 4 else ("MiB", 2**20)


def row_names(results: Results) -> tuple[str, ...]:
    """Return a short name for each row.

    It consists of the quant (or the file's name if two files have the same quant), of the mmproj if rows differ in it,
    and of the settings that differ between rows: of these alone where all rows are of the same files.
    """
    rows = [row.configuration for row in results.rows]
    texts = _distinct(rows, lambda row: (row.quant, row.text))
    mmprojs = _distinct(rows, lambda row: (row.precision, row.mmproj))
    several = len(set(mmprojs)) > 1
    names = dict.fromkeys(name for row in rows for name in row.settings)
    swept = [name for name in names if len({repr(row.settings.get(name)) for row in rows}) > 1]
    same_files = swept and not several and len(set(texts)) == 1
    found = []
    for row, text, mmproj in zip(rows, texts, mmprojs, strict=True):
        parts = [] if same_files else [f"{text}+{mmproj}" if several else text]
        parts += [f"{name}={row.settings[name]}" for name in swept if row.settings.get(name) is not None]
        found.append(safe_line(" ".join(parts or [text])))
    return tuple(found)


def _distinct(rows: Iterable[Configuration], names: Callable[[Configuration], tuple[str, str]]) -> list[str]:
    """Return the label of each row's file, or the file's name if another file has the same label."""
    pairs = [names(row) for row in rows]
    files: dict[str, set[str]] = {}
    for label, file in pairs:
        files.setdefault(label, set()).add(file)
    return [label if len(files[label]) == 1 else PurePath(file).stem for label, file in pairs]
