"""The Pareto front: configurations that no other beats in every respect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from internvl_gguf.bench.results import Divergence, Results, Row

QualityMeasure = Literal["pictures", "text", "accuracy"]
"""Measure of quality to compare by: KL divergence on answers about pictures or on text, or right answers."""
DivergenceKind = Literal["text", "pictures", "quant_alone", "mmproj_alone"]
"""The divergences of `QualityResult`."""

_NORMAL_95: Final = 1.96  # half a 95% confidence interval in standard errors


@dataclass(frozen=True)
class Loss:
    """Loss of quality of a configuration.

    Attributes:
        value: nats from the reference, or the fraction of questions not answered right.
        error: its standard error.
    """

    value: float
    error: float


@dataclass(frozen=True)
class BestRows:
    """Rows by index in `Results.rows` that no other row beats.

    Attributes:
        by_size: Pareto front of size and quality.
        by_speed: Pareto front of size, quality and decode speed; it holds most rows of `by_size`.
    """

    by_size: frozenset[int]
    by_speed: frozenset[int]


def measure_of(results: Results) -> QualityMeasure | None:
    """Return the quality measure to compare rows by: on pictures if measured, else on text, else right answers."""
    measured = [row for row in results.rows if row.status == "measured"]
    if any(row.quality and row.quality.pictures for row in measured):
        return "pictures"
    if any(row.quality and row.quality.text for row in measured):
        return "text"
    return "accuracy" if any(task.questions for row in measured for task in row.accuracy) else None


def divergence(row: Row, kind: DivergenceKind) -> Divergence | None:
    """Return one of a row's divergences; None if not measured."""
    found: Divergence | None = getattr(row.quality, kind) if row.quality else None
    return found


def has_split(results: Results) -> bool:
    """Return whether some row's mmproj has a loss of its own, so that the losses of the two files can be separated."""
    alone = [divergence(row, "mmproj_alone") for row in results.rows]
    return any(found.mean > 0 for found in alone if found)


def loss_of(results: Results, index: int, measure: QualityMeasure) -> Loss | None:
    """Return the loss of a row by a quality measure; None if not measured or not finite."""
    row = results.rows[index]
    if row.status != "measured":
        return None
    if measure == "accuracy":
        return _share_wrong(row)
    if index == results.reference:
        return Loss(0.0, 0.0)  # divergence from itself, rounding aside
    found = divergence(row, measure)
    if found is None or not math.isfinite(found.mean):
        return None
    return Loss(max(found.mean, 0.0), found.mean_error)


def _share_wrong(row: Row) -> Loss | None:
    """Return the share of wrong answers in all tasks together, with the error from their confidence intervals."""
    questions = sum(task.questions for task in row.accuracy)
    if not questions:
        return None
    right = sum(task.relaxed for task in row.accuracy)
    errors = [(task.high - task.low) / 2 / _NORMAL_95 * task.questions for task in row.accuracy]
    return Loss(1 - right / questions, math.hypot(*errors) / questions)


def memory_needed(row: Row) -> int | None:
    """Return the predicted bytes of all devices; None if there is no prediction."""
    return sum(row.memory.planned.values()) if row.memory and row.memory.planned else None


def decode_speed(row: Row) -> float | None:
    """Return the tokens a second of one answer; None if not measured."""
    return row.speed.decode.median if row.status == "measured" and row.speed else None


def unbeaten(costs: Mapping[int, tuple[float, ...]]) -> frozenset[int]:
    """Return the non-dominated points: no other has every cost as low and one of them lower."""
    return frozenset(
        index
        for index, cost in costs.items()
        if not any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs.values())
    )


def best_rows(results: Results) -> BestRows:
    """Return the rows that no other row beats; none if quality was not measured.

    Size means the files, and the predicted memory as well if every row has it: configurations of the same files differ
    in memory only.
    """
    measure = measure_of(results)
    if measure is None:
        return BestRows(frozenset(), frozenset())
    found = {index: loss_of(results, index, measure) for index in range(len(results.rows))}
    losses = {index: loss.value for index, loss in found.items() if loss}
    sizes: dict[int, tuple[float, ...]] = {index: (results.rows[index].configuration.bytes,) for index in losses}
    memory = {index: memory_needed(results.rows[index]) for index in losses}
    planned = {index: size for index, size in memory.items() if size is not None}
    if len(planned) == len(losses):
        sizes = {index: (*size, planned[index]) for index, size in sizes.items()}
    costs = {index: (*sizes[index], losses[index]) for index in losses}
    speeds = {index: decode_speed(results.rows[index]) for index in losses}
    return BestRows(
        unbeaten(costs),
        unbeaten({index: (*costs[index], -speed) for index, speed in speeds.items() if speed is not None}),
    )
