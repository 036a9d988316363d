"""Shared parts of the charts: logarithmic axes with a place for 0, plain frames, and names beside points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

from internvl_gguf.bench.report.theme import light
from internvl_gguf.bench.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
_NARROW: Final = 5.0  # inches of a figure, from which so many have room side by side
_MOST_TICKS_OF_NARROW: Final = 5
_LEAST: Final = 1e-30  # what is less counts as 0, and what is more as this: a chart needs room between its ends
_MOST: Final = 1e30
_MARGIN: Final = 0.06  # of the length of an axis
_PER_INCH: Final = 14  # characters of a legend
_GAP: Final = 0.5  # points from a marker to its name
_HANDLE: Final = 8  # those that a marker and the gap behind it take

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""


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

        figure = axes.get_figure(root=True)
        is_narrow = which == "x" and figure is not None and figure.get_figwidth() < _NARROW
        ticks = log_ticks(self.low, self.high, _MOST_TICKS_OF_NARROW if is_narrow else _MOST_TICKS)
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


def log_ticks(low: float, high: float, most: int = _MOST_TICKS) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them; of very many decades only some."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in _STEPS:
        ticks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


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
    figure = axes.get_figure(root=True)
    line = _PER_INCH * (figure.get_figwidth() if figure else 1)
    columns = next(
        (count for count in range(len(labels), 1, -1) if count * (max(map(len, labels)) + _HANDLE) <= line), 1
    )
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=LABEL_SIZE,
        labelcolor=light("ink"), handletextpad=0.5, columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    legend.set_zorder(0)


def label_points(
    axes: Axes,
    named: Sequence[tuple[str, tuple[float, float]]],
    markers: Sequence[tuple[float, float]],
    better: tuple[int, int],
) -> None:
    """Write names beside points where there is room; in data coordinates, once everything else is drawn.

    Args:
        axes: where; its figure gets its layout here.
        named: names and points, the most important first: one that would cover a marker or a name gets none.
        markers: everything that is drawn, to be kept clear.
        better: direction of the better side, each -1 or 1; a name lies there if it can, for an unbeaten point has
            nothing of its kind there.
    """
    figure = axes.get_figure(root=True)
    if figure is None or not named:
        return
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    gap = (MARKER_RADIUS + _GAP) * scale
    frame = axes.get_window_extent()
    taken = [_around(place, MARKER_RADIUS * scale) for place in axes.transData.transform(list(markers))]
    for name, point in named:
        anchor = axes.transData.transform(point)
        # Its size, in the middle of the axes, since a logarithmic one has no place for 0.
        text = axes.text(0.5, 0.5, name, fontsize=LABEL_SIZE, transform=axes.transAxes)
        size = text.get_window_extent()
        text.remove()
        half = (size.width / 2, size.height / 2)
        for across, upright in _sides(better):
            centre = (anchor[0] + across * (gap + half[0]), anchor[1] + upright * (gap + half[1]))
            box = (centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1])
            is_inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
            if is_inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                label = axes.annotate(
                    name, point, ((centre[0] - anchor[0]) / scale, (centre[1] - anchor[1]) / scale),
                    textcoords="offset points", ha="center", va="center", fontsize=LABEL_SIZE, zorder=3,
                    color=light("ink"), bbox={"facecolor": light("surface"), "edgecolor": "none", "pad": 0.6},
                )  # fmt: skip
                label.set_in_layout(False)
                break


def _sides(better: tuple[int, int]) -> list[tuple[int, int]]:
    """Return places on a line, 4 points apart."""
    across, upright = better
    return [(across, upright), (across, 0), (-across, 0), (-across, -upright), (across, -upright), (-across, upright)]


def _around(place: Sequence[float], radius: float) -> Box:
    return place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
