"""Charts of several answers: right ones by their number, and by the seconds that they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.best_of.wording import judge_name
from internvl_gguf.bench.report.axes import MARKER_RADIUS, LogScale, add_legend, label_points, style_axes
from internvl_gguf.bench.report.chart import Chart
from internvl_gguf.bench.report.theme import MARKERS, SERIES, Role, light
from internvl_gguf.bench.report.wording import row_names
from internvl_gguf.bench.results import ORACLE, BestOfResult, JudgedAnswers, Results
from internvl_gguf.utils.safe_text import safe_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT: Final = 4.6
_APART: Final = 0.03  # decades between the bars of two judges at one number of answers, so that none hides another
_MARGIN: Final = 1.12  # of the axis beyond the least and the largest number of answers, as a factor
_LEGEND: Final = f"{judge_name(ORACLE)} (pass@N)"
_Y_LABEL: Final = "answered right, %"


@dataclass(frozen=True)
class CurvePoint:
    """So many answers, judged.

    Attributes:
        count: number of answers.
        x: place on the axis.
        right, low, high: percent answered right, and the ends of its interval.
    """

    count: int
    x: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """What one judge makes of more and more answers.

    Attributes:
        role: decides colour and marker.
        label: in the legend.
        points: in ascending order of their number of answers; not empty.
    """

    role: Role
    label: str
    points: Sequence[CurvePoint]


def best_of_charts(results: Results) -> Iterator[Chart]:
    """Yield the charts of each configuration and task with several answers."""
    measured = [
        (name, found)
        for name, row in zip(row_names(results), results.rows, strict=True)
        for found in row.best_of
        if found.questions
    ]
    several = len({name for name, _ in measured}) > 1
    for place, (name, found) in enumerate(measured):
        about = ", ".join([*([name] if several else []), safe_line(found.task)])
        yield from _charts(found, about, f"-{place + 1}" if place else "")


def _charts(found: BestOfResult, about: str, ending: str) -> Iterator[Chart]:
    curves = _curves(found, lambda each: float(each.count))
    text = (
        "Share of the questions answered right by the number of answers to each, of which a judge chooses one. "
        f"{found.questions:,} questions; bars are 95% confidence intervals. Dashed: the share with a right answer "
        "among so many (pass@N), which no judge exceeds."
    )
    draw = partial(draw_by_count, curves=curves, oracle=_curve(found, ORACLE, "muted", lambda each: float(each.count)))
    yield Chart(f"best-of{ending}", f"Right answers by number of answers, {about}", text, _HEIGHT, draw)
    timed = [curve for curve in _curves(found, _seconds) if curve.points]
    if timed:
        text = (
            "Share of the questions answered right by the median seconds from a question to the chosen answer: upper "
            "left is better. Beside the points stand numbers of answers; bars are 95% confidence intervals."
        )
        yield Chart(
            f"best-of-time{ending}",
            f"Right answers by time, {about}",
            text,
            _HEIGHT,
            partial(draw_by_time, curves=timed),
        )


def draw_by_count(axes: Axes, curves: Sequence[Curve], oracle: Curve) -> None:
    """Draw a line for each judge over the number of answers, and a dashed one for what no judge exceeds."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    style_axes(axes)
    counts = [point.count for point in oracle.points]
    beside = 10 ** (_APART * len(curves) / 2)
    axes.set(xscale="log", xlim=(counts[0] / beside / _MARGIN, counts[-1] * beside * _MARGIN))
    axes.set(xlabel="answers to each question", ylabel=_Y_LABEL)
    axes.xaxis.set_major_locator(FixedLocator([float(count) for count in counts]))
    axes.xaxis.set_major_formatter(FixedFormatter([str(count) for count in counts]))
    axes.xaxis.set_minor_locator(NullLocator())
    _fit(axes, [*curves, oracle])
    for place, curve in enumerate(curves):
        _draw(axes, curve, 10 ** (_APART * (place - (len(curves) - 1) / 2)))
    x, y = [point.x for point in oracle.points], [point.right for point in oracle.points]
    axes.plot(x, y, color=light(oracle.role), linewidth=1.2, linestyle=(0, (4, 3)), label=_LEGEND, zorder=2)
    add_legend(axes)


def draw_by_time(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw a line for each judge over the seconds, with the number of answers beside each point."""
    style_axes(axes)
    scale = LogScale.of([point.x for curve in curves for point in curve.points])
    scale.apply(axes, "x", "seconds of a question")
    axes.set_ylabel(_Y_LABEL)
    _fit(axes, curves)
    for curve in curves:
        _draw(axes, curve)
    add_legend(axes)
    places = [(scale.place(point.x), point.right) for curve in curves for point in curve.points]
    named = [
        (str(point.count), (scale.place(point.x), point.right))
        for number, curve in enumerate(curves)
        for point in curve.points
        if point.count > 1 or not number  # one answer is the same whoever judges
    ]
    label_points(axes, named, places, (-1, 1))


def _curves(found: BestOfResult, place: Callable[[JudgedAnswers], float | None]) -> list[Curve]:
    judges = [judge for judge in found.judges if judge != ORACLE]
    return [_curve(found, judge, SERIES[number % len(SERIES)], place) for number, judge in enumerate(judges)]


def _curve(found: BestOfResult, judge: str, role: Role, place: Callable[[JudgedAnswers], float | None]) -> Curve:
    known = ((each, place(each)) for count in found.counts if (each := found.of(judge, count)))
    points = [
        CurvePoint(each.count, x, 100 * found.fraction(each), 100 * each.low, 100 * each.high)
        for each, x in known
        if x is not None
    ]
    return Curve(role, judge_name(judge), points)


def _seconds(judged: JudgedAnswers) -> float | None:
    return judged.seconds.median if judged.seconds and judged.seconds.median > 0 else None


def _fit(axes: Axes, curves: Sequence[Curve]) -> None:
    """Fit the axis of right answers to all intervals, within 0 and 100%."""
    ends = [end for curve in curves for point in curve.points for end in (point.low, point.high)]
    axes.set_ylim(max(-1.0, min(ends) - 1), min(101.0, max(ends) + 1))


def _draw(axes: Axes, curve: Curve, shift: float = 1.0) -> None:
    """Draw the line of a judge, its points and their intervals.

    Args:
        axes: where.
        curve: the judge's.
        shift: factor by which its points are moved on the logarithmic axis.
    """
    colour = light(curve.role)
    x, y = [point.x * shift for point in curve.points], [point.right for point in curve.points]
    for place, point in zip(x, curve.points, strict=True):
        axes.plot([place, place], [point.low, point.high], color=colour, linewidth=1, alpha=0.6, zorder=2)
    axes.plot(
        x, y, MARKERS[curve.role], linestyle="-", color=colour, linewidth=1.4, markersize=2 * MARKER_RADIUS,
        markeredgecolor=light("surface"), markeredgewidth=0.8, label=curve.label, zorder=3,
    )  # fmt: skip
