"""What the benchmarks share: arguments, settings of both sides, interleaved rounds, medians, tables, the last line.

A round runs every side once, in an order that changes from round to round, so that a machine whose speed drifts does
not favour one of them. What is reported is the median over the rounds with its range, and ratios as the median of the
round-by-round ratios, which holds better than the ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from internvl_gguf.config import EngineOptions
from internvl_gguf.errors import InternVLError
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.llama.library import build
from internvl_gguf.models.resolve import ModelFiles, resolve_model

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How a model is run, the same on all sides: on the CPU, an F16 KV cache, flash attention.

    Flash attention is on because llama.cpp's tools have it on; a `Session` leaves it off on a CPU unless it is told,
    for the exactness of long contexts (docs/parity.md).

    Attributes:
        threads: CPU threads.
        n_ctx: positions of one conversation.
        n_parallel: conversations at once.
        n_batch, n_ubatch: positions decoded in one call, computed at once.
    """

    threads: int
    n_ctx: int
    n_parallel: int = 1
    n_batch: int = 2048
    n_ubatch: int = 512

    def engine_options(self) -> EngineOptions:
        """For `Session.open` and `EngineConfig`."""
        return {
            "n_ctx": self.n_ctx,
            "n_gpu_layers": 0,
            "kv_type": "f16",
            "flash_attn": True,
            "n_threads": self.threads,
            "n_parallel": self.n_parallel,
            "n_batch": self.n_batch,
            "n_ubatch": self.n_ubatch,
        }

    def llama_options(self) -> dict[str, Any]:
        """For llama-cpp-python's `Llama`, whose KV cache is F16 by default."""
        return {
            "n_ctx": self.n_ctx,
            "n_gpu_layers": 0,
            "flash_attn": True,
            "n_threads": self.threads,
            "n_threads_batch": self.threads,
            "n_batch": self.n_batch,
            "n_ubatch": self.n_ubatch,
        }

    def tool_flags(self) -> list[str]:
        """For llama.cpp's tools; the context and the number of conversations each of them counts in its own way."""
        numbers = {"-t": self.threads, "-b": self.n_batch, "-ub": self.n_ubatch, "-ngl": 0}
        words = {"-ctk": "f16", "-ctv": "f16", "-fa": "on"}
        return [str(each) for pair in [*numbers.items(), *words.items()] for each in pair]


@dataclass(frozen=True)
class Spread:
    """What one side gave, one value for each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        return f"{number(self.median)} ({number(low)} to {number(high)})" if low < high else number(self.median)

    def as_json(self) -> dict[str, float]:
        """Median and range."""
        return {"median": self.median, "low": min(self.values), "high": max(self.values)}


def number(value: float) -> str:
    """A number with three digits or, from 1,000 on, none after the point."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Round-by-round ratios of two sides."""
    return Spread(tuple(a / b for a, b in zip(above, below, strict=True)))


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the costs over the sizes, both as logarithms, by least squares: 1 is linear, 2 is quadratic."""
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    return statistics.linear_regression(x, y).slope


def interleaved(sides: Mapping[str, Callable[[int], T]], rounds: int, warm_up: int = 1) -> dict[str, list[T]]:
    """Run every side once a round.

    Over the rounds each side begins, ends, and follows another one about equally often.

    Args:
        sides: by name, called with the number of the round.
        rounds: that count.
        warm_up: rounds before them that do not.
    """
    names = list(sides)
    found: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        first = turn // 2 % len(names)
        order = names[first:] + names[:first]
        for name in order[:: -1 if turn % 2 else 1]:
            result = sides[name](turn)
            if turn >= warm_up:
                found[name].append(result)
    return found


def comparison(
    found: Mapping[str, Sequence[float]], what: str, ours: str = "ours"
) -> tuple[list[list[str]], dict[str, dict[str, float]]]:
    """One quantity on all sides.

    Args:
        found: values of each side, one for each round.
        what: the quantity, named in the first row only.
        ours: the side that is divided by each other one.

    Returns:
        Rows of a table (quantity, side, median with range, ratio), and the same for the last line.
    """
    rows: list[list[str]] = []
    result: dict[str, dict[str, float]] = {}
    for name, values in found.items():
        spread = Spread(tuple(values))
        result[name] = spread.as_json()
        row = ["" if rows else what, name, str(spread), ""]
        if name != ours:
            ratio = ratios(found[ours], values)
            result[name]["ratio"] = ratio.median
            row[-1] = str(ratio)
        rows.append(row)
    return rows, result


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    cells.insert(1, ["-" * width for width in widths])
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"| {line} |" for line in lines)


def parser(doc: str | None, *, rounds: int = 7, mmproj: bool = False, tools: bool = False) -> argparse.ArgumentParser:
    """Arguments that benchmarks have in common.

    Args:
        doc: the docstring of the benchmark.
        rounds: how many there are by default.
        mmproj: whether it looks at pictures.
        tools: whether it compares with tools of llama.cpp.
    """
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", type=Path, help="a text GGUF; the demo model if left out")
    if mmproj:
        made.add_argument("--mmproj", type=Path, help="its vision encoder; the one beside it if left out")
    if tools:
        made.add_argument("--tools", type=Path, metavar="DIR", help="folder of llama.cpp's tools; else the PATH's")
    made.add_argument("--threads", type=positive, default=default_threads())
    made.add_argument("--rounds", type=positive, default=rounds)
    made.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    return made


def positive(text: str) -> int:
    """A whole number of at least 1, for arguments."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def rounds_of(arguments: argparse.Namespace) -> int:
    """Rounds that count."""
    return 1 if arguments.quick else int(arguments.rounds)


def text_file(arguments: argparse.Namespace) -> Path:
    """The text model alone, which needs no mmproj."""
    return arguments.model or resolve_model("demo").text


def model_files(arguments: argparse.Namespace) -> ModelFiles:
    """Text model and mmproj; ends the benchmark where there are none."""
    try:
        return resolve_model(arguments.model or "demo", arguments.mmproj)
    except InternVLError as error:
        raise SystemExit(f"{error.message} {error.hint}") from error


def last_line(benchmark: str, arguments: argparse.Namespace, model: Path, result: Mapping[str, Any]) -> None:
    """Print everything that was found as one JSON document."""
    about = {
        "benchmark": benchmark,
        "model": model.name,
        "build": build(),
        "threads": arguments.threads,
        "rounds": rounds_of(arguments),
    }
    print(json.dumps({**about, **result}))
