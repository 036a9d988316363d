"""The chart of a cascade: right answers against the time of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.cascade.results import CascadeResults, CascadeRow, Kind
from internvl_gguf.bench.report.axes import MARKER_RADIUS, LogScale, add_legend, label_points, style_axes
from internvl_gguf.bench.report.chart import Chart
from internvl_gguf.bench.report.legend import RECOMMENDED
from internvl_gguf.bench.report.theme import MARKERS, Role, light
from internvl_gguf.utils.safe_text import safe_line, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT: Final = 5.2
_LONGEST_NAME: Final = 34
_ROLES: Final[dict[Kind, Role]] = {
    "cascade": "pictures",
    "model": "text",
    "vote": "quant_alone",
    "oracle": "mmproj_alone",
}
_NAMES: Final[dict[Kind, str]] = {
    "cascade": "a cascade, on questions its threshold was not fitted to",
    "model": "a model alone",
    "vote": "the vote of a model",
    "oracle": "oracle: the fastest model that is right",
}


def cascade_chart(results: CascadeResults) -> Chart:
    """The chart of accuracy against mean seconds."""
    count, task = results.rows[0].questions, safe_line(results.task)
    text = (
        f"Right answers to {count:,} questions of {task} against the mean time of an answer: upper left is better. "
        "Bars are 95% confidence intervals. The thin line joins the thresholds that no other beats, on the very "
        "questions they are chosen by, so it flatters; the filled circle does not. The oracle knows which model is "
        "right: no cascade can do better."
    )
    return Chart("cascade", "Right answers, by time", text, _HEIGHT, partial(_draw, results=results))


def _draw(axes: Axes, results: CascadeResults) -> None:
    style_axes(axes)
    rows = results.rows
    curves = [[(point.seconds, 100 * point.fraction) for point in curve.points] for curve in results.curves]
    every = [*(row.seconds for row in rows), *(point[0] for curve in curves for point in curve)]
    x = LogScale.of(every)
    x.apply(axes, "x", "mean time of an answer, seconds")
    ends = [100 * end for row in rows for end in (row.low, row.high)]
    axes.set(ylim=(max(-1, min(ends) - 1), min(101, max(ends) + 1)), ylabel="answered right, %")
    for curve in curves:
        points = [(x.place(seconds), right) for seconds, right in curve]
        axes.plot(*zip(*points, strict=True), color=light("muted"), linewidth=1, zorder=1, drawstyle="steps-post")
    axes.plot([], [], color=light("muted"), linewidth=1, label="its thresholds, on the questions they are chosen by")
    for row in rows:
        _draw_row(axes, row, x)
    for kind in dict.fromkeys(row.kind for row in rows):
        axes.plot(
            [], [], MARKERS[_ROLES[kind]], color=light(_ROLES[kind]), markersize=2 * MARKER_RADIUS, label=_NAMES[kind]
        )
    add_legend(axes)
    places = [(x.place(row.seconds), 100 * row.fraction) for row in rows]
    label_points(axes, _named(results, places), places, (-1, 1))


def _draw_row(axes: Axes, row: CascadeRow, x: LogScale) -> None:
    role, place = _ROLES[row.kind], x.place(row.seconds)
    axes.plot([place, place], [100 * row.low, 100 * row.high], color=light(role), linewidth=1, alpha=0.6, zorder=2)
    axes.plot(
        [place], [100 * row.fraction], MARKERS[role], markersize=2 * MARKER_RADIUS, markeredgewidth=1.3,
        markeredgecolor=light(role), zorder=3, clip_on=False,
        markerfacecolor=light("surface") if row.kind == "oracle" else light(role),
    )  # fmt: skip


def _named(results: CascadeResults, places: Sequence[tuple[float, float]]) -> list[tuple[str, tuple[float, float]]]:
    """Return names and points, what to take first."""
    names = [shortened(safe_line(row.name), _LONGEST_NAME) for row in results.rows]
    names[results.recommended] = f"{RECOMMENDED} {names[results.recommended]}"
    order = sorted(range(len(names)), key=lambda place: place != results.recommended)
    return [(names[place], places[place]) for place in order]
