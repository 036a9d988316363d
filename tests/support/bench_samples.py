"""Benchmarks as `internvl bench` would find them, with realistic numbers: the 24 quants of the 14B, and odd ones."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from internvl_gguf.bench.results import (
    ORACLE,
    AccuracyResult,
    BestOfResult,
    Configuration,
    Divergence,
    JudgedAnswers,
    MemoryResult,
    QualityResult,
    Results,
    Row,
    SpeedResult,
    Spread,
    Status,
)
from internvl_gguf.gguf.filenames import Quant
from internvl_gguf.planning.expected_loss import expected_loss

# GiB of the files of unsloth/InternVL3-14B-Instruct-GGUF.
LADDER = {
    "BF16": 27.51, "Q8_K_XL": 17.26, "Q6_K_XL": 12.36, "Q6_K": 11.29, "Q5_K_XL": 9.80, "Q5_K_M": 9.78, "Q5_K_S": 9.56,
    "Q4_1": 8.74, "Q4_K_XL": 8.48, "Q4_K_M": 8.37, "Q4_K_S": 7.98, "IQ4_NL": 7.96, "IQ4_XS": 7.58, "Q3_K_XL": 7.07,
    "Q3_K_M": 6.83, "Q3_K_S": 6.20, "Q2_K_XL": 5.64, "IQ3_XXS": 5.59, "Q2_K_L": 5.54, "Q2_K": 5.37, "IQ2_M": 5.05,
    "IQ2_XXS": 4.15, "IQ1_M": 3.76, "IQ1_S": 3.55,
}  # fmt: skip
HOSTILE = 'a|b,"c" <script>alert(1)</script> $x^2$ *_`\x1b[31m\x00\n\udcff\u2028&amp; {}'
"""A name that is an attack on every format at once."""
GIB = 2**30
MIB = 2**20
WEIGHTS = 14.77e9
MMPROJ = {"F32": 2 * 672.66, "BF16": 672.66, "F16": 672.66, "Q8_0": 360.1}
_LOST_BY_MMPROJ = {"F32": 0.0, "F16": 5.7e-7, "BF16": 1.4e-5, "Q8_0": 6.8e-3}


def diverging(mean: float, tokens: int, perplexity: float = 6.1) -> Divergence:
    """KL divergences spread as they usually are: lognormal, most far below their mean."""
    sigma = 1.7
    mu = math.log(mean) - sigma**2 / 2
    normal = [-2.9, -1.64, -1.28, -1.04, -0.84, -0.67, -0.52, -0.39, -0.25, -0.13, 0.0]
    deviations = [*normal, *(-value for value in reversed(normal[:-1]))]
    quantiles = tuple(math.exp(mu + sigma * value) for value in deviations)
    return Divergence(
        tokens, mean, mean * 3.5 / math.sqrt(tokens), quantiles[10], math.exp(mu + sigma * 2.33), quantiles[-1] * 1.5,
        1 - min(0.6, 0.25 * math.sqrt(mean)), perplexity * math.exp(mean), perplexity, quantiles,
    )  # fmt: skip


def wilson(right: int, questions: int) -> tuple[float, float]:
    """Ends of the 95% confidence interval."""
    z, share = 1.96, right / questions
    middle = (share + z * z / (2 * questions)) / (1 + z * z / questions)
    half = z / (1 + z * z / questions) * math.sqrt(share * (1 - share) / questions + z * z / (4 * questions**2))
    return middle - half, middle + half


def around(dice: random.Random, value: float, repetitions: int = 5) -> Spread:
    return Spread.of([value * dice.gauss(1, 0.02) for _ in range(repetitions)])


def ladder_row(quant: str, precision: str = "F16", gpu: bool = False, scale: float = 1.0) -> Row:
    """One quant, always with the same numbers; `scale` makes a smaller model of it."""
    dice = random.Random(f"{quant}{precision}")
    size, mmproj = round(LADDER[quant] * GIB * scale), round(MMPROJ[precision] * MIB * scale)
    bits = LADDER[quant] * GIB * 8 / WEIGHTS
    lost = expected_loss(Quant(quant), bits) * dice.lognormvariate(0, 0.1)
    by_mmproj = _LOST_BY_MMPROJ[precision]
    seen = lost * dice.uniform(1.2, 1.5)
    decode = 105 / (LADDER[quant] + 1.5) * (0.75 if quant.startswith("IQ") else 1.0) / math.sqrt(scale)
    right = round(200 * (0.84 - min(0.6, 0.25 * seen) + dice.gauss(0, 0.01)))
    planned = {"CPU": size + mmproj + round(1.72 * GIB * scale)}
    if gpu:
        planned = {"CPU": round(0.73 * GIB * scale), "CUDA0": planned["CPU"]}
    return Row(
        Configuration(
            quant, precision, f"InternVL3-14B-Instruct-{quant}.gguf", f"mmproj-{precision}.gguf", size, mmproj, bits,
            {"n_ctx": 8192, "kv_type": "f16", "flash_attn": "auto", "n_threads": 16},
        ),
        "measured",
        speed=SpeedResult(
            around(dice, 0.3 * LADDER[quant]), around(dice, 2.1), around(dice, decode * 11), around(dice, decode),
            around(dice, 13 * 2.1 + 60 / decode), around(dice, 2.6 * decode), 512, 128, 4, 13,
        ),
        memory=MemoryResult(planned, {name: round(size * 0.97) for name, size in planned.items()}),
        quality=QualityResult(
            diverging(lost, 8192) if lost else None,
            diverging(seen + by_mmproj, 3120, 3.4) if seen + by_mmproj else None,
            diverging(seen, 3120, 3.4) if seen else None,
            diverging(by_mmproj, 3120, 3.4) if by_mmproj else None,
        ),
        accuracy=(AccuracyResult("charts", 200, right - 6, right, *wilson(right, 200)),),
    )  # fmt: skip


def results_of(rows: Sequence[Row], reference: int | None = 0, model: str = "InternVL3-14B-Instruct") -> Results:
    """A benchmark of these rows; the reference has no distance from itself."""
    if reference is not None and rows:
        itself = replace(diverging(1.0, 3120, 3.4), mean=0, mean_error=0, median=0, p99=0, maximum=0, top1=1,
                         perplexity=3.4, quantiles=(0.0,) * 21)  # fmt: skip
        precision = rows[reference].configuration.precision
        rows = [
            replace(row, quality=replace(row.quality, mmproj_alone=itself))
            if row.quality and row.configuration.precision == precision
            else row
            for row in rows
        ]
        own = replace(rows[reference], quality=QualityResult(replace(itself, tokens=8192), itself, None, None))
        rows = [*rows[:reference], own, *rows[reference + 1 :]]
    return Results(
        model, "AMD EPYC 9654, 16 threads, 62.7 GiB; Linux 6.8", "0c1e57098 (0.3.36)", "0.1.0",
        "2025-11-21T14:40:45+01:00", reference, tuple(rows),
        f"internvl bench {model}:{','.join(row.configuration.quant for row in rows[:3])},... -r 5",
        ("2 lines of the picture set could not be used.",),
    )  # fmt: skip


def failed_row(quant: str, status: Status = "out of memory") -> Row:
    row = ladder_row(quant)
    error = f"{quant} needs 29.9 GiB, and 24.0 GiB are free. Close other programs, or measure a smaller quant."
    return Row(row.configuration, status, error if status != "not run" else "")


def without(results: Results, *parts: str) -> Results:
    """The same without speed, quality, accuracy or memory."""
    empty: dict[str, Any] = {part: () if part in ("accuracy", "best_of") else None for part in parts}
    rows = tuple(replace(row, **empty) for row in results.rows)
    return replace(results, rows=rows, reference=None if "quality" in parts else results.reference)


def several_answers(task: str = "charts", gain: float = 0.02) -> BestOfResult:
    """Up to 16 answers to 200 questions, judged by three; each doubling gains so much, and half of it surely."""
    counts = (1, 2, 4, 8, 16)
    judged = []
    for place, (judge, better) in enumerate((("vote", gain), ("certainty", gain / 2), ("critic", 1.5 * gain),
                                             (ORACLE, 2 * gain))):  # fmt: skip
        for doublings, count in enumerate(counts):
            right = 200 * (0.7 + better * doublings)
            dice = random.Random(f"{judge}{count}")
            judged.append(
                JudgedAnswers(
                    judge, count, right, *wilson(round(right), 200), better * doublings, better * doublings / 2,
                    better * doublings * 1.5,
                    None if judge == ORACLE else around(dice, 12 * (1 + 0.2 * doublings * (1 + place / 5))),
                )
            )  # fmt: skip
    tokens = tuple(31.4 * count for count in counts)
    return BestOfResult(task, 200, counts, 0, True, 0.7, 0.95, 0.66, 0.59, 0.72, 81, tokens, tuple(judged), 2)


def with_several(results: Results, *found: BestOfResult) -> Results:
    """The same with several answers compared in every row."""
    return replace(results, rows=tuple(replace(row, best_of=found) for row in results.rows))


def sweep() -> Results:
    """Two quants, each with three mmproj files and two types of KV cache."""
    rows = []
    for quant in ("Q8_K_XL", "Q4_K_M"):
        for precision in ("F32", "F16", "Q8_0"):
            for kv_type in ("f16", "q8_0"):
                row = ladder_row(quant, precision)
                settings = {**row.configuration.settings, "kv_type": kv_type}
                row = replace(row, configuration=replace(row.configuration, settings=settings))
                rows.append(row if kv_type == "f16" else with_small_cache(row))
    return results_of(rows)


def with_small_cache(row: Row) -> Row:
    """A row whose KV cache is in 8 bits: 0.7 GiB less, and 0.02 nats worse."""
    assert row.memory is not None
    assert row.quality is not None
    planned = {name: size - round(0.7 * GIB) for name, size in row.memory.planned.items()}
    text, pictures, quant_alone = (
        diverging((found.mean if found else 0) + 0.02, 3120)
        for found in (row.quality.text, row.quality.pictures, row.quality.quant_alone)
    )
    quality = QualityResult(text, pictures, quant_alone, row.quality.mmproj_alone)
    return replace(row, memory=MemoryResult(planned, planned), quality=quality)


def hostile() -> Results:
    """Two rows of a model whose every name is an attack on some format."""
    found = []
    for quant in ("BF16", "Q4_K_M"):
        row = ladder_row(quant)
        named = replace(row.configuration, quant=f"{quant}{HOSTILE}", text=HOSTILE, settings={HOSTILE: HOSTILE})
        found.append(replace(row, configuration=named, accuracy=tuple(replace(a, task=HOSTILE) for a in row.accuracy)))
    failed = failed_row("Q6_K")
    found.append(replace(failed, error=HOSTILE, configuration=replace(failed.configuration, quant=HOSTILE)))
    return replace(
        results_of(found), model=HOSTILE, machine=HOSTILE, build=HOSTILE, command=HOSTILE, notices=(HOSTILE,)
    )


def samples() -> dict[str, Results]:
    """Every shape of a benchmark that a report has to show."""
    ladder = results_of([ladder_row(quant) for quant in LADDER])
    two = results_of([ladder_row("BF16"), ladder_row("Q4_K_M")])
    errors = results_of([ladder_row("BF16"), failed_row("Q6_K"), ladder_row("Q4_K_M"), failed_row("Q2_K", "failed"),
                         ladder_row("IQ2_M"), failed_row("IQ1_S", "not run")])  # fmt: skip
    return {
        "ladder": ladder,
        "two": two,
        "one": results_of([ladder_row("Q4_K_M")]),
        "errors": errors,
        "nothing": results_of([failed_row("Q6_K"), failed_row("Q4_K_M")], None),
        "empty": results_of([], None),
        "no quality": without(ladder, "quality", "accuracy"),
        "no speed": without(ladder, "speed", "memory"),
        "text only": replace(two, rows=tuple(
            replace(row, quality=row.quality and QualityResult(row.quality.text, None, None, None), accuracy=())
            for row in two.rows
        )),
        "accuracy only": without(ladder, "quality"),
        "sweep": sweep(),
        "gpu": results_of([ladder_row(quant, gpu=True) for quant in ("BF16", "Q6_K", "Q4_K_M", "IQ2_M")]),
        "several answers": with_several(
            without(results_of([ladder_row("Q4_K_M")]), "speed", "memory", "quality", "accuracy"), several_answers()
        ),
        "several too": with_several(two, several_answers(), several_answers("signs", -0.01)),
        "small": results_of([ladder_row(quant, scale=1 / 4096) for quant in LADDER], model="demo"),
    }  # fmt: skip
