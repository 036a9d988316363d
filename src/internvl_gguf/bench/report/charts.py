"""The charts of a benchmark, drawn with matplotlib: the list of charts for given results, and how each is drawn.

No chart uses colour alone: series differ by marker, markers on the Pareto front are filled, and values of 0 lie on a
line of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from internvl_gguf.bench.best_of.charts import best_of_charts
from internvl_gguf.bench.report.advice import recommend
from internvl_gguf.bench.report.chart import Chart
from internvl_gguf.bench.report.legend import RECOMMENDED
from internvl_gguf.bench.report.pareto import DivergenceKind, divergence, has_split, measure_of
from internvl_gguf.bench.report.point_charts import Frame, Point, Series, draw_points
from internvl_gguf.bench.report.row_charts import draw_shares, draw_split, draw_spread
from internvl_gguf.bench.report.wording import number, row_names, size_unit
from internvl_gguf.bench.results import Results, Spread
from internvl_gguf.utils.safe_text import safe_line, shortened

_LONGEST_NAME: Final = 30
_POINT_CHART: Final = 5.2
_ROW_CHART: Final = 1.25
_ROW: Final = 0.25
_SERIES: Final[dict[DivergenceKind, str]] = {
    "pictures": "with pictures",
    "text": "on text",
    "quant_alone": "pictures, text quant alone",
    "mmproj_alone": "pictures, mmproj alone",
}
_NEXT_TO_NOTHING: Final = 1 / 30
_LOSS: Final = "mean KL divergence, nats"
_BARS: Final = "Bars: the middle half of the runs. Crosses: outlying runs, at the edge if off the chart."


def charts_of(results: Results, budget: int | None = None) -> tuple[Chart, ...]:
    """The charts that there are numbers for, the most telling first; the row to take in `budget` bytes has an arrow."""
    return tuple(chart for chart in _charts(results, recommend(results, budget)) if chart)


def _charts(results: Results, recommended: int | None) -> Iterator[Chart | None]:
    names = tuple(
        f"{RECOMMENDED} {name}" if index == recommended else name
        for index, name in enumerate(shortened(name, _LONGEST_NAME) for name in row_names(results))
    )
    measure = measure_of(results)
    if (measure == "pictures" or measure == "text") and any(_means(results, measure).values()):
        yield _loss_by_size(results, names, measure)
        yield _loss_by_speed(results, names, measure)
        yield from _spreads(results, names)
        if has_split(results):
            yield _split(results, names)
    else:
        yield _speed_by_size(results, names)
    for task in dict.fromkeys(result.task for row in results.rows for result in row.accuracy):
        yield _accuracy(results, names, task)
    yield from best_of_charts(results)


def _loss_by_size(results: Results, names: Sequence[str], measure: DivergenceKind) -> Chart:
    unit, scale = size_unit(results)
    shown = [kind for kind in _SERIES if has_split(results) or not kind.endswith("_alone")]
    means = {kind: found for kind in sorted(shown, key=measure.__ne__) if (found := _means(results, kind))}
    # The chart of the split shows all of it; here what is next to nothing would only push the rest together.
    least = min(mean for mean in means[measure].values() if mean > 0) * _NEXT_TO_NOTHING
    series = []
    for kind, found in means.items():
        points = [
            Point(names[index], results.rows[index].configuration.bytes / scale, mean)
            for index, mean in found.items()
            if not kind.endswith("_alone") or mean >= least
        ]
        if points:
            series.append(Series(kind, _SERIES[kind], points))
    text = (
        "Mean KL divergence from the reference against the size of the files: lower left is better. Filled markers are "
        f"unbeaten in both; the line joins them.{_extremes(series[0])}"
    )
    if len(series) > 1:
        text += f" Markers in one column belong to the name beside them: {', '.join(each.label for each in series)}."
    if sum(len(each.points) for each in series) < sum(map(len, means.values())):
        text += " What a file alone loses is left out where it is next to nothing."
    frame = Frame(f"files of text model and mmproj, {unit}", _LOSS, (False, False))
    draw = partial(draw_points, series=series, frame=frame)
    return Chart("loss-by-size", "What each loses, by size", text, _POINT_CHART, draw)


def _loss_by_speed(results: Results, names: Sequence[str], measure: DivergenceKind) -> Chart | None:
    speeds = _speeds(results)
    points = [
        Point(
            names[index],
            speeds[index].median,
            mean,
            x_range=speeds[index].quartiles,
            x_outliers=speeds[index].outliers,
        )
        for index, mean in _means(results, measure).items()
        if index in speeds
    ]
    text = (
        "Mean KL divergence from the reference against the tokens a second of one answer: lower right is better. "
        "Filled markers are unbeaten in both; the line joins them."
    )
    if any(spread.low < spread.high for spread in speeds.values()):
        text += f" {_BARS}"
    frame = Frame("decode, tokens a second", f"{_LOSS}, {_SERIES[measure]}", (True, False))
    draw = partial(draw_points, series=[Series(measure, "", points)], frame=frame)
    return Chart("loss-by-speed", "What each loses, by speed", text, _POINT_CHART, draw) if points else None


def _accuracy(results: Results, names: Sequence[str], task: str) -> Chart | None:
    rows = [
        (names[index], result)
        for index in _by_size(results)
        for result in results.rows[index].accuracy
        if result.task == task and result.questions
    ]
    text = (
        f"Share of the questions of {safe_line(task)} that were answered right, the largest files first. Bars are 95% "
        "confidence intervals. Filled markers cannot be told from the best: their bars reach it."
    )
    draw = partial(draw_shares, rows=rows)
    return Chart("right", f"Right answers, {safe_line(task)}", text, _row_height(len(rows)), draw) if rows else None


def _speed_by_size(results: Results, names: Sequence[str]) -> Chart | None:
    unit, scale = size_unit(results)
    points = [
        Point(
            names[index],
            results.rows[index].configuration.bytes / scale,
            speed.median,
            y_range=speed.quartiles,
            y_outliers=speed.outliers,
        )
        for index, speed in _speeds(results).items()
    ]
    text = f"Tokens a second of one answer against the size of the files: upper left is better. {_BARS}"
    frame = Frame(f"files of text model and mmproj, {unit}", "decode, tokens a second", (False, True))
    draw = partial(draw_points, series=[Series("text", "", points)], frame=frame)
    return Chart("speed-by-size", "Speed, by size", text, _POINT_CHART, draw) if points else None


def _spreads(results: Results, names: Sequence[str]) -> Iterator[Chart]:
    kinds: tuple[DivergenceKind, ...] = ("pictures", "text")
    for kind in kinds:
        rows = [
            (names[index], found)
            for index in _by_size(results)
            if index != results.reference  # it has nothing but the rounding of its own logits
            and (found := divergence(results.rows[index], kind))
            and found.maximum > 0
            and len(found.quantiles) > 1
        ]
        if rows:
            yield Chart(
                f"spread-{kind}",
                f"How the loss is spread over tokens, {_SERIES[kind]}",
                "KL divergence from the reference of single tokens, the largest files first. A few tokens make most of "
                "the mean.",
                _row_height(len(rows)),
                partial(draw_spread, rows=rows, role=kind),
            )


def _split(results: Results, names: Sequence[str]) -> Chart:
    kinds: tuple[DivergenceKind, ...] = ("pictures", "quant_alone", "mmproj_alone")
    means = {kind: _means(results, kind) for kind in kinds}
    rows = [index for index in _by_size(results) if any(index in found for found in means.values())]
    return Chart(
        "split",
        "What the text quant loses and what the mmproj does",
        "Mean KL divergence on pictures of each configuration, of its text quant with the mmproj of the reference, and "
        "of its mmproj with the text quant of the reference.",
        _row_height(len(rows)),
        partial(
            draw_split,
            names=[names[index] for index in rows],
            series={kind: [found.get(index) for index in rows] for kind, found in means.items()},
        ),
    )


def _means(results: Results, kind: DivergenceKind) -> dict[int, float]:
    """Return the mean divergence of each row that has one; the reference has 0 if others are measured."""
    found = {
        index: max(measured.mean, 0.0)
        for index, row in enumerate(results.rows)
        if row.status == "measured" and (measured := divergence(row, kind)) and math.isfinite(measured.mean)
    }
    if found and results.reference is not None and results.rows[results.reference].status == "measured":
        found[results.reference] = 0.0
    return dict(sorted(found.items()))


def _speeds(results: Results) -> dict[int, Spread]:
    return {
        index: row.speed.decode
        for index, row in enumerate(results.rows)
        if row.status == "measured" and row.speed and 0 < row.speed.decode.low <= row.speed.decode.high < math.inf
    }


def _by_size(results: Results) -> list[int]:
    """Return the measured rows, the largest files first."""
    measured = [index for index, row in enumerate(results.rows) if row.status == "measured"]
    return sorted(measured, key=lambda index: -results.rows[index].configuration.bytes)


def _extremes(series: Series) -> str:
    """Return a sentence on the range of the losses, with a leading space; empty for fewer than two."""
    positive = sorted((point for point in series.points if point.y > 0), key=lambda point: point.y)
    if len(positive) < 2:
        return ""
    least, most = positive[0], positive[-1]

    def plain(point: Point) -> str:
        return point.name.removeprefix(f"{RECOMMENDED} ")

    return f" From {number(least.y)} nats ({plain(least)}) to {number(most.y)} ({plain(most)})."


def _row_height(rows: int) -> float:
    return _ROW_CHART + _ROW * rows
