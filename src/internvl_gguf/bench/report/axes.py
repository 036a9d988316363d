"""Shared parts of the charts: logarithmic axes with a place for 0, plain frames, and names beside points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np

from internvl_gguf.bench.report.chart_labels import nearer_to_another, place_labels
from internvl_gguf.bench.report.theme import light
from internvl_gguf.bench.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LABEL_SIZE: Final = 8.0
MARKER_RADIUS: Final = 3.6
"""Points from a marker's centre to its edge."""

# Ticks of a decade, the densest first; the first set with at most `_MOST_TICKS` ticks is used.
_STEPS: Final = (
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 6, 8),
    (1, 2, 5),
    (1, 3),
    (1,),
)  # fmt: skip
_MOST_TICKS: Final = 9
_LEAST: Final = 1e-30  # less counts as 0, more as this: an axis needs finite, positive ends
_MOST: Final = 1e30
_MARGIN: Final = 0.06  # of the length of an axis
_LINE: Final = 105  # characters of a line of a legend
_HANDLE: Final = 8  # characters that a marker and the gap after it take
_LEADER: Final = 6.0  # points from a marker to its label; farther ones get a line


@dataclass(frozen=True)
class LogScale:
    """A logarithmic axis; values of 0 or less lie on a line of their own below the least positive value.

    Attributes:
        low, high: ends of the range above 0.
        floor: position of 0; None if no value is 0.
    """

    low: float
    high: float
    floor: float | None

    @classmethod
    def of(cls, values: Iterable[float], span: float = 2.0) -> Self:
        """Make an axis for values, which spans at least a factor of `span`; values that are not finite do not count."""
        finite = [min(value, _MOST) for value in values if math.isfinite(value)]
        positive = [value for value in finite if value > _LEAST] or [0.01]
        least, most = min(positive), max(positive)
        room = max((most / least) ** _MARGIN, math.sqrt(span * least / most), 1.01)
        low, high = least / room, most * room
        return cls(low, high, low / (high / low) ** _MARGIN if any(value <= _LEAST for value in finite) else None)

    def place(self, value: float) -> float:
        """Return the position of a value, clipped to the axis."""
        if value <= _LEAST:
            return self.floor if self.floor is not None else self.low
        return min(max(value, self.low), self.high)

    def apply(self, axes: Axes, which: Literal["x", "y"], label: str) -> None:
        """Make this the x or y axis."""
        from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

        ticks = log_ticks(self.low, self.high)
        names = [f"{tick:g}" if tick >= 0.001 else number(tick, 1) for tick in ticks]
        bottom = self.low
        if self.floor is not None:
            ticks, names = [self.floor, *ticks], ["0", *names]
            bottom = self.floor * (self.floor / self.low)
            line = axes.axhline if which == "y" else axes.axvline
            line(math.sqrt(self.floor * self.low), color=light("muted"), linewidth=0.8, linestyle=(0, (1, 3)))
        axes.set(**{f"{which}scale": "log", f"{which}lim": (bottom, self.high), f"{which}label": label})
        axis = axes.yaxis if which == "y" else axes.xaxis
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FixedFormatter(names))
        axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Return at most nine round numbers from `low` to `high`; over very many decades, only some decades get one."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in _STEPS:
        ticks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _MOST_TICKS:
            return ticks
    return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]


def style_axes(axes: Axes, *, rows: bool = False) -> None:
    """Give axes a plain frame and grid; with `rows`, only vertical lines, and no ticks at the names of rows."""
    for side in ("top", "right", *(["left"] if rows else [])):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(light("muted"))
    axes.grid(visible=True, axis="x" if rows else "both", color=light("grid"), linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=light("ink"), labelsize=LABEL_SIZE, length=0 if rows else 3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=light("ink"), size=LABEL_SIZE + 1)


def add_legend(axes: Axes) -> None:
    """Add a legend above the chart, where it covers nothing."""
    _, labels = axes.get_legend_handles_labels()
    lines = math.ceil(sum(len(label) + _HANDLE for label in labels) / _LINE)
    columns = math.ceil(len(labels) / lines)
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=LABEL_SIZE,
        labelcolor=light("ink"), handletextpad=0.5, columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    legend.set_zorder(0)


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    markers: Sequence[tuple[float, float]],
    lines: Iterable[Sequence[tuple[float, float]]] = (),
) -> None:
    """Write names beside points, none over another; in data coordinates, once everything else is drawn.

    Args:
        axes: the axes to write in; its figure is laid out here.
        points: the named points.
        names: one for each point.
        markers: other markers that labels must not cover.
        lines: corners of lines that labels should not cover.
    """
    if not points:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    to_points = 72 / figure.dpi

    def placed(places: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
        return np.asarray(axes.transData.transform(np.array(places, float).reshape(-1, 2))) * to_points

    # In the middle of the axes, since a logarithmic one has no place for 0.
    texts = [axes.text(0.5, 0.5, name, fontsize=LABEL_SIZE, transform=axes.transAxes) for name in names]
    extents = [text.get_window_extent() for text in texts]
    for text in texts:
        text.remove()
    sizes = np.array([(extent.width, extent.height) for extent in extents]) * to_points + (2, 0)
    frame = axes.get_window_extent()
    bounds = (frame.x0 * to_points, frame.y0 * to_points, frame.x1 * to_points, frame.y1 * to_points)
    anchors = placed(points)
    drawn = np.concatenate([_along(placed(line)) for line in lines] or [np.empty((0, 2))])
    centres = place_labels(anchors, sizes, placed([*points, *markers]), drawn, bounds, MARKER_RADIUS)
    for place, (name, point, anchor) in enumerate(zip(names, points, anchors, strict=True)):
        centre, size = centres[place], sizes[place]
        gap = float(np.hypot(*np.maximum(np.abs(centre - anchor) - size / 2, 0))) - MARKER_RADIUS
        offset = tuple(centre - anchor)
        if gap > _LEADER or nearer_to_another(centres[place : place + 1], size, anchors, place)[0]:
            leader = {"arrowstyle": "-", "color": light("muted"), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
            line_to = axes.annotate("", point, offset, textcoords="offset points", arrowprops=leader, zorder=2.5)
            line_to.set_in_layout(False)
        label = axes.annotate(
            name, point, offset, textcoords="offset points", ha="center", va="center", fontsize=LABEL_SIZE, zorder=3,
            color=light("ink"), bbox={"facecolor": light("surface"), "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
        label.set_in_layout(False)


def _along(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places on a line, 4 points apart."""
    parts = [
        start + (end - start) * np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / 4)))[:, None]
        for start, end in itertools.pairwise(corners)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 2))
