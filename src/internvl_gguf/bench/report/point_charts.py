"""Draw charts with a point for each configuration, and a line along the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.report.axes import MARKER_RADIUS, LogScale, add_legend, label_points, style_axes
from internvl_gguf.bench.report.legend import RECOMMENDED
from internvl_gguf.bench.report.pareto import unbeaten
from internvl_gguf.bench.report.theme import MARKERS, Role, light

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS: Final = 10  # names in a chart; the table has all
_LESSER: Final = 0.85  # size of the markers of all series but the chief one


@dataclass(frozen=True)
class Point:
    """A row in a chart, with its error bars.

    Attributes:
        name: beside the point.
        x, y: its place.
        x_range, y_range: ends of the bars through it; None for none.
        x_outliers, y_outliers: what lies beyond the bars; it stretches no axis, and is marked at its end if need be.
    """

    name: str
    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_outliers: tuple[float, ...] = ()
    y_outliers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Frame:
    """The axes of a chart of points, both logarithmic.

    Attributes:
        x_label, y_label: what they show.
        more_is_better: of x and of y.
    """

    x_label: str
    y_label: str
    more_is_better: tuple[bool, bool]

    def unbeaten(self, points: Sequence[Point]) -> frozenset[int]:
        """Return the indices of the points on the Pareto front."""
        x_sign, y_sign = (-1 if more else 1 for more in self.more_is_better)
        return unbeaten({place: (x_sign * point.x, y_sign * point.y) for place, point in enumerate(points)})


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        role: role that decides colour and marker.
        label: label in the legend; empty for none.
        points: not empty.
    """

    role: Role
    label: str
    points: Sequence[Point]


def draw_points(axes: Axes, series: Sequence[Series], frame: Frame) -> None:
    """Draw series of points; the first one gets names and the line of its Pareto front."""
    style_axes(axes)
    every = [point for each in series for point in each.points]
    x = LogScale.of([end for point in every for end in (point.x, *(point.x_range or ()))])
    y = LogScale.of([end for point in every for end in (point.y, *(point.y_range or ()))], span=10)
    x.apply(axes, "x", frame.x_label)
    y.apply(axes, "y", frame.y_label)

    def place(point: Point) -> tuple[float, float]:
        return x.place(point.x), y.place(point.y)

    def bars_of(point: Point) -> list[list[tuple[float, float]]]:
        middle_x, middle_y = place(point)
        across = [(x.place(end), middle_y) for end in point.x_range or ()]
        upright = [(middle_x, y.place(end)) for end in point.y_range or ()]
        return [bar for bar in (across, upright) if bar]

    def outliers_of(point: Point) -> list[tuple[float, float]]:
        middle_x, middle_y = place(point)
        across = [(x.place(value), middle_y) for value in point.x_outliers]
        return across + [(middle_x, y.place(value)) for value in point.y_outliers]

    chief = series[0]
    best = {each.role: frame.unbeaten(each.points) for each in series}
    corners = sorted(place(chief.points[index]) for index in best[chief.role])
    axes.plot(*zip(*corners, strict=True), color=light(chief.role), linewidth=1.2, alpha=0.55, zorder=2)
    for order, each in enumerate(series):
        size = 2 * MARKER_RADIUS * (1 if each is chief else _LESSER)
        for index, point in enumerate(each.points):
            bars = bars_of(point)
            for bar in bars:
                axes.plot(*zip(*bar, strict=True), color=light(each.role), linewidth=1, alpha=0.6, zorder=2)
            for outlier in outliers_of(point):
                axes.plot(
                    *[[where] for where in outlier], "x", color=light("muted"), markersize=4.5, zorder=2, clip_on=False
                )
            axes.plot(
                *[[where] for where in place(point)], MARKERS[each.role], markersize=size, markeredgewidth=1.3,
                markeredgecolor=light(each.role), clip_on=False, zorder=4 - order / 10,
                markerfacecolor=light(each.role) if index in best[each.role] else light("surface"),
            )  # fmt: skip
    _add_legend(axes, series, best)
    named = [chief.points[index] for index in _named(chief.points, best[chief.role])]
    label_points(
        axes,
        [(point.name, place(point)) for point in named],
        [place(point) for point in every],
        (1 if frame.more_is_better[0] else -1, 1 if frame.more_is_better[1] else -1),
    )


def _named(points: Sequence[Point], best: frozenset[int]) -> list[int]:
    """Places in `points` of those to name, the most important first: the one to take, then the unbeaten ones.

    Of these the ends of their line come first, then the middle, then what is between, so that those that get no room
    are spread; then others, where there are few points in all.
    """
    line = sorted(best, key=lambda index: points[index].x)
    ordered = [index for index, point in enumerate(points) if point.name.startswith(RECOMMENDED)]
    ordered += [line[0], line[-1]]
    step = len(line) // 2
    while step and len(ordered) < _MOST_LABELS:
        ordered += line[step::step]
        step //= 2
    others = range(len(points)) if len(points) <= _MOST_LABELS else ()
    return list(dict.fromkeys([*ordered, *line, *others]))[:_MOST_LABELS]


def _add_legend(axes: Axes, series: Sequence[Series], best: Mapping[Role, frozenset[int]]) -> None:
    """Add a legend: the series if there are several, and the meaning of hollow markers and of crosses."""
    size = 2 * MARKER_RADIUS
    chief = series[0]
    for each in series if len(series) > 1 else ():
        axes.plot([], [], MARKERS[each.role], color=light(each.role), markersize=size, label=each.label)
    if any(len(best[each.role]) < len(each.points) for each in series):
        axes.plot(
            [], [], MARKERS[chief.role], color=light(chief.role), markerfacecolor=light("surface"), markersize=size,
            markeredgewidth=1.3, label="hollow: another is better in both",
        )  # fmt: skip
    if any(point.x_outliers or point.y_outliers for each in series for point in each.points):
        axes.plot([], [], "x", color=light("muted"), markersize=4.5, label="a run far from the others")
    if axes.get_legend_handles_labels()[1]:
        add_legend(axes)
