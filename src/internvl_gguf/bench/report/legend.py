"""The legend of a benchmark's table: its marks and numbers in a few lines, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from internvl_gguf.bench.best_of.wording import is_best_of_alone
from internvl_gguf.bench.report.columns import DISTURBED
from internvl_gguf.bench.report.pareto import DivergenceKind, divergence
from internvl_gguf.bench.report.wording import row_names
from internvl_gguf.bench.results import Results
from internvl_gguf.planning.loss_scale import SCALE
from internvl_gguf.utils.safe_text import safe_line

RECOMMENDED: Final = "→"
FAILED: Final = "✗"

_FEWEST_COMPARED: Final = 2
_TWO: Final = 2
_ENOUGH_FOR_QUARTILES: Final = 4
_WHOLE_BITS: Final = 15.0  # a weight of BF16 and F16 takes 16, less what a tool may round
_MOST_NAMES: Final = 3  # of rows that were not run: who stopped it knows what was to come


@dataclass(frozen=True)
class Failure:
    """A row that could not be measured.

    Attributes:
        name: of the row.
        status: why, in a few words.
        error: what happened and what to do.
    """

    name: str
    status: str
    error: str


def title(results: Results) -> str:
    """Return in one line what was measured: "demo: 8 quants compared by size, loss, right answers and speed"."""
    rows = [results.rows[index] for index in measured_rows(results)]
    aspects = {
        "size": True,
        "loss": any(divergence(row, aspect) for row in rows for aspect in ("pictures", "text")),
        "right answers": any(row.accuracy for row in rows),
        "speed": any(row.speed for row in rows),
        "several answers": any(row.best_of for row in rows),
    }
    names = [name for name, is_there in aspects.items() if is_there]
    model = safe_line(results.model) or "Benchmark"
    if len(rows) < _FEWEST_COMPARED:
        return model
    quants = len({row.configuration.quant for row in rows})
    what = f"{len(rows)} quants" if quants == len(rows) else f"{len(rows)} configurations"
    by = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{model}: {what} compared by {by}"


def measured_rows(results: Results) -> tuple[int, ...]:
    """The rows that were measured, by their index."""
    return tuple(index for index, row in enumerate(results.rows) if row.status == "measured")


def table_rows(results: Results) -> tuple[int, ...]:
    """The rows of the table of configurations, by their index; none where only several answers were compared."""
    return () if is_best_of_alone(results) else measured_rows(results)


def failures(results: Results) -> tuple[Failure, ...]:
    """The rows that failed, in their order."""
    return tuple(
        Failure(name, row.status, safe_line(row.error))
        for name, row in zip(row_names(results), results.rows, strict=True)
        if row.status not in ("measured", "not run")
    )


def not_run(results: Results) -> str:
    """The rows that an interruption left, in one line; empty where there are none."""
    names = [name for name, row in zip(row_names(results), results.rows, strict=True) if row.status == "not run"]
    if not names:
        return ""
    more = len(names) - _MOST_NAMES
    some = ", ".join(names if more <= 1 else (*names[:_MOST_NAMES], f"... {more} more"))
    return f"Not measured (interrupted): {some}. Run it again to go on."


def legend(results: Results, *, with_errors: bool = True) -> tuple[str, ...]:
    """Explain the marks and numbers that are in the table, a short paragraph each.

    Args:
        results: what is in the table.
        with_errors: whether it shows errors and spreads.
    """
    lines = [
        _memory(results),
        _divergence(results, with_errors=with_errors),
        _scale(results),
        _speed(results, with_errors=with_errors),
        _accuracy(results, with_errors=with_errors),
        _quantised_reference(results),
        _disturbed(results),
    ]
    return tuple(line for line in lines if line)


def circumstances(results: Results) -> str:
    """Where, with what and when the numbers were made, in one line."""
    facts = (
        results.machine,
        f"llama.cpp {results.build}" if results.build else "",
        f"internvl-gguf {results.version}" if results.version else "",
        results.started_at,
    )
    return "; ".join(safe_line(fact) for fact in facts if fact)


def common_settings(results: Results) -> str:
    """How all rows were run alike, in one line; empty where there is nothing to say."""
    rows = [row.configuration for row in results.rows]
    if not rows:
        return ""
    facts = [rows[0].quant] if len(rows) > 1 and len({row.text for row in rows}) == 1 else []
    facts += [f"mmproj {rows[0].precision}"] if len({row.precision for row in rows}) == 1 else []
    for name, value in rows[0].settings.items():
        if all(name in row.settings and row.settings[name] == value for row in rows):
            facts.append(f"{name}={value}")
    return safe_line(f"All with {', '.join(facts)}.") if facts else ""


def reference_name(results: Results) -> str:
    """Name of the row that the others are measured against; empty without one."""
    return row_names(results)[results.reference] if results.reference is not None else ""


def _memory(results: Results) -> str:
    if not any(row.memory for row in results.rows):
        return ""
    return "Memory: planned before loading, with context and buffers; peak is the most that was measured."


def _divergence(results: Results, *, with_errors: bool) -> str:
    sets: tuple[tuple[DivergenceKind, str], ...] = (("pictures", "on pictures"), ("text", "on text"))
    scored = []
    for aspect, what in sets:
        tokens = {found.tokens for row in results.rows if (found := divergence(row, aspect))}
        if tokens:
            scored.append(f"{_between(tokens)} tokens {what}")
    if not scored:
        return ""
    reference = reference_name(results) or "the reference"
    error = ", ± its standard error" if with_errors else ""
    return f"KLD: mean KL divergence from {reference} in nats{error}; {', '.join(scored)}."


def _scale(results: Results) -> str:
    is_scored = any(divergence(row, aspect) for row in results.rows for aspect in ("pictures", "text"))
    return f"Reading a KLD: {SCALE}." if is_scored else ""


def _speed(results: Results, *, with_errors: bool) -> str:
    speeds = [row.speed for row in results.rows if row.speed]
    if not speeds:
        return ""
    repetitions = {speed.decode.repetitions for speed in speeds}
    half_of = "interquartile range" if min(repetitions) >= _ENOUGH_FOR_QUARTILES else "range"
    spread = f" ± half the {half_of}" if with_errors else ""
    measured = f"median of {_between(repetitions)}{spread}" if max(repetitions) > 1 else "measured once"
    return (
        f"Speed: {measured}; {_between({speed.answer_tokens for speed in speeds})} tokens decoded, "
        f"{_between({speed.prompt_tokens for speed in speeds})} read, "
        f"{_between({speed.picture_tiles for speed in speeds})} tiles a picture."
    )


def _quantised_reference(results: Results) -> str:
    if results.reference is None:
        return ""
    bits = results.rows[results.reference].configuration.bits_per_weight
    if bits >= _WHOLE_BITS:
        return ""
    return f"The reference is quantised itself, to {bits:.1f} bits a weight: what it lost is in none of these numbers."


def _disturbed(results: Results) -> str:
    if not any(row.speed and row.speed.is_disturbed for row in results.rows):
        return ""
    return f"{DISTURBED}: other programs disturbed what has a spread as large as itself: measure again."


def _accuracy(results: Results, *, with_errors: bool) -> str:
    tasks: dict[str, set[int]] = {}
    for row in results.rows:
        for result in row.accuracy:
            tasks.setdefault(safe_line(result.task), set()).add(result.questions)
    if not tasks:
        return ""
    asked = ", ".join(f"{_between(questions)} of {name}" for name, questions in tasks.items())
    interval = ", 95% confidence interval" if with_errors else ""
    return f"Right: questions answered right{interval}; {asked}."


def _between(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} {'or' if len(numbers) == _TWO else 'to'} {high:,}"
