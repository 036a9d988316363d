"""Write the results of a benchmark as JSON, JSON lines and CSV; JSON can be read back.

The JSON document has the fields of `Results` under their names, with `"format": 1` before them. A number that is not
finite, which JSON cannot express, is the string "NaN", "Infinity" or "-Infinity". Fields may be added within a format.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any, Final, Literal

from internvl_gguf.bench.plain_json import as_plain, check_format, damaged, from_plain
from internvl_gguf.bench.report.advice import advise, recommend
from internvl_gguf.bench.report.markdown import results_to_markdown
from internvl_gguf.bench.report.pareto import DivergenceKind, best_rows, divergence
from internvl_gguf.bench.results import ORACLE, Configuration, Divergence, Results, Row, SpeedResult, Spread
from internvl_gguf.utils.safe_text import safe_line

FORMAT: Final = 1
OutputFormat = Literal["md", "json", "csv"]
"""The forms of `-o`."""

_DIVERGENCE_KINDS: Final[tuple[DivergenceKind, ...]] = ("text", "pictures", "quant_alone", "mmproj_alone")
_NATS: Final = ("mean", "mean_error", "median", "p99", "maximum")
_SPEEDS: Final = {
    "load": "load_seconds",
    "tile": "tile_seconds",
    "prefill": "prefill_tokens_per_second",
    "decode": "decode_tokens_per_second",
    "time_to_first_token": "time_to_first_token_seconds",
    "decode_parallel": "decode_parallel_tokens_per_second",
}


def render(results: Results, output_format: OutputFormat, budget: int | None = None) -> str:
    """Return the whole report in a format of `-o`, with a newline at its end; Markdown and JSON advise for `budget`."""
    writers: dict[OutputFormat, Callable[[Results], str]] = {
        "md": lambda found: results_to_markdown(found, budget),
        "json": lambda found: _json({**results_to_json(found), **_advised(found, budget)}),
        "csv": results_to_csv,
    }
    return writers[output_format](results)


def results_to_json(results: Results) -> dict[str, Any]:
    """Return the document of a benchmark, made of dicts, lists, strings, numbers, booleans and None only."""
    return {"format": FORMAT, **as_plain(results)}


def results_from_json(document: Any) -> Results:
    """Return the results in a document; unknown fields are ignored.

    Raises:
        InvalidRequestError: a document of another format, or a damaged one.
    """
    check_format(document, FORMAT)
    results = from_plain(Results, document)
    if results.reference is not None and not 0 <= results.reference < len(results.rows):
        raise damaged(f"reference is {results.reference}, and there are {len(results.rows)} rows")
    return results


def results_to_csv(results: Results) -> str:
    """Return a line of names and one line for each row, by RFC 4180: commas, quotes where needed, CR LF.

    The names contain the unit; values that were not measured are empty. All rows have the same columns.
    """
    best = best_rows(results)
    flat = [
        _flat_row(results, row, {
            "is_reference": index == results.reference,
            "best_by_size": index in best.by_size,
            "best_by_speed": index in best.by_speed,
        })
        for index, row in enumerate(results.rows)
    ]  # fmt: skip
    # Part by part, so that the order of columns does not depend on which row was the first to have them.
    names = [
        name for part in zip(*flat, strict=True) for name in dict.fromkeys(name for facts in part for name in facts)
    ]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(names)
    for parts in flat:
        facts = {name: value for part in parts for name, value in part.items()}
        writer.writerow([_cell(facts.get(name)) for name in names])
    return out.getvalue()


def _flat_row(results: Results, row: Row, marks: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the columns of a row, grouped in the same way for every row."""
    return [
        {"model": safe_line(results.model)},
        _flat_configuration(row.configuration),
        {"status": row.status, "error": safe_line(row.error), **marks},
        *_flat_speed(row.speed),
        *_flat_memory(row),
        *(_flat_divergence(kind, divergence(row, kind)) for kind in _DIVERGENCE_KINDS),
        {"quality_skipped": row.quality.skipped} if row.quality else {},
        _flat_accuracy(row),
        _flat_best_of(row),
        {
            "machine": safe_line(results.machine),
            "llama_cpp_build": safe_line(results.build),
            "version": safe_line(results.version),
            "started_at": safe_line(results.started_at),
        },
    ]


def _advised(results: Results, budget: int | None) -> dict[str, Any]:
    """The row to take, by its index in `rows`, and the sentence about it."""
    return {"recommended": recommend(results, budget), "advice": advise(results, budget)}


def _json(document: dict[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2)
    return text.encode("utf-8", "backslashreplace").decode() + "\n"  # half a character is \udcff in JSON too


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _flat_configuration(configuration: Configuration) -> dict[str, Any]:
    return {
        "quant": safe_line(configuration.quant),
        "mmproj_precision": safe_line(configuration.precision),
        "text_file": safe_line(configuration.text),
        "mmproj_file": safe_line(configuration.mmproj),
        "text_bytes": configuration.text_bytes,
        "mmproj_bytes": configuration.mmproj_bytes,
        "bits_per_weight": configuration.bits_per_weight,
        **{f"setting_{safe_line(name)}": _setting(value) for name, value in configuration.settings.items()},
    }


def _setting(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | None) else safe_line(str(value))


def _flat_speed(speed: SpeedResult | None) -> list[dict[str, Any]]:
    parts = []
    for name, column in _SPEEDS.items():
        measured: Spread | None = getattr(speed, name) if speed else None
        part = (
            {f"{column}_{field}": getattr(measured, field) for field in ("median", "low", "high")} if measured else {}
        )
        parts.append(part | {f"{name}_repetitions": measured.repetitions} if measured else part)
    conditions = ("prompt_tokens", "answer_tokens", "parallel", "picture_tiles")
    return [*parts, {name: getattr(speed, name) for name in conditions} if speed else {}]


def _flat_memory(row: Row) -> list[dict[str, Any]]:
    kinds = {"planned": row.memory.planned, "peak": row.memory.peak} if row.memory else {"planned": {}, "peak": {}}
    return [{f"{kind}_bytes_{safe_line(name)}": size for name, size in sizes.items()} for kind, sizes in kinds.items()]


def _flat_divergence(kind: DivergenceKind, found: Divergence | None) -> dict[str, Any]:
    if found is None:
        return {}
    last = len(found.quantiles) - 1
    percent = {round(100 * place / last): value for place, value in enumerate(found.quantiles)} if last > 0 else {}
    return {
        f"{kind}_tokens": found.tokens,
        **{f"{kind}_kld_{name}_nats": getattr(found, name) for name in _NATS},
        f"{kind}_top1_fraction": found.top1,
        f"{kind}_perplexity": found.perplexity,
        f"{kind}_reference_perplexity": found.reference_perplexity,
        **{f"{kind}_kld_percentile_{share}_nats": value for share, value in percent.items()},
    }


def _flat_best_of(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for result in row.best_of:
        name = f"best_of_{safe_line(result.task)}"
        found |= {
            f"{name}_questions": result.questions,
            f"{name}_temperature": result.temperature,
            f"{name}_first_is_greedy": result.first_is_greedy,
            f"{name}_seed": result.seed,
            f"{name}_pass1_fraction": result.pass1,
        }
        for count, tokens in zip(result.counts, result.tokens, strict=False):
            found[f"{name}_{count}_tokens"] = tokens
        for each in result.judged:
            judged = f"{name}_{safe_line(each.judge)}_{each.count}"
            found |= {
                f"{judged}_right_fraction": result.fraction(each),
                f"{judged}_right_fraction_low": each.low,
                f"{judged}_right_fraction_high": each.high,
                f"{judged}_gain_fraction": each.gain,
                f"{judged}_gain_fraction_low": each.gain_low,
                f"{judged}_gain_fraction_high": each.gain_high,
            }
            if each.judge != ORACLE:
                found[f"{judged}_seconds_median"] = each.seconds.median if each.seconds else None
    return found


def _flat_accuracy(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for result in row.accuracy:
        name = f"task_{safe_line(result.task)}"
        found |= {
            f"{name}_questions": result.questions,
            f"{name}_exact": result.exact,
            f"{name}_relaxed": result.relaxed,
            f"{name}_relaxed_fraction": result.fraction,
            f"{name}_relaxed_fraction_low": result.low,
            f"{name}_relaxed_fraction_high": result.high,
            f"{name}_skipped": result.skipped,
        }
    return found
