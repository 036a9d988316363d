"""Charts with a line for each configuration: the loss over tokens, the loss by its two causes, and right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.report.axes import MARKER_RADIUS, LogScale, add_legend, style_axes
from internvl_gguf.bench.report.theme import MARKERS, Role, light

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from internvl_gguf.bench.results import AccuracyResult, Divergence

_DECADES: Final = 4  # shown below the least median; smaller values do not matter
_BOX: Final = 7.0
_CAUSES: Final[dict[Role, str]] = {
    "pictures": "together",
    "quant_alone": "text quant alone",
    "mmproj_alone": "mmproj alone",
}


def draw_spread(axes: Axes, rows: Sequence[tuple[str, Divergence]], role: Role) -> None:
    """Draw for each configuration the quartiles of its tokens, 5% to 95%, median, mean and maximum."""
    style_axes(axes, rows=True)
    least = min((found.median for _, found in rows if found.median > 0), default=0.0)
    shown = [value for _, found in rows for value in (_quantile(found, 5), _quantile(found, 95), found.mean)]
    scale = LogScale.of([value for value in shown if value >= least / 10**_DECADES and value > 0], span=10)
    scale.apply(axes, "x", "KL divergence of a token, nats")
    _name_rows(axes, [name for name, _ in rows])
    colour = light(role)
    for place, (_, found) in enumerate(rows):
        low, quarter, middle, most, high = (scale.place(_quantile(found, part)) for part in (5, 25, 50, 75, 95))
        axes.plot([low, high], [place, place], color=colour, linewidth=1.2, zorder=2)
        axes.plot([quarter, most], [place, place], color=colour, linewidth=_BOX, solid_capstyle="butt", zorder=3)
        axes.plot([middle], [place], "|", color=light("surface"), markersize=_BOX, markeredgewidth=1.8, zorder=4)
        axes.plot([scale.place(found.mean)], [place], "D", markersize=4.5, zorder=5, color=light("ink"))
        largest = scale.place(found.maximum)
        axes.plot([largest], [place], "x", markersize=4.5, zorder=5, color=light("ink"), clip_on=False)
    axes.plot(
        [], [], color=colour, linewidth=_BOX, solid_capstyle="butt", label="middle half of the tokens, gap: median"
    )
    axes.plot([], [], color=colour, linewidth=1.2, label="5% to 95%")
    axes.plot([], [], "D", color=light("ink"), markersize=4.5, label="mean")
    axes.plot([], [], "x", color=light("ink"), markersize=4.5, label="maximum, at the edge if beyond")
    add_legend(axes)


def draw_split(axes: Axes, names: Sequence[str], series: Mapping[Role, Sequence[float | None]]) -> None:
    """Draw for each configuration its loss, that of its text quant alone and that of its mmproj alone."""
    style_axes(axes, rows=True)
    scale = LogScale.of([value for values in series.values() for value in values if value is not None], span=10)
    scale.apply(axes, "x", "mean KL divergence on pictures, nats")
    _name_rows(axes, names)
    for place in range(len(names)):
        found = [scale.place(value) for values in series.values() if (value := values[place]) is not None]
        axes.plot([min(found), max(found)], [place, place], color=light("muted"), linewidth=0.8, zorder=1)
    for role, values in series.items():
        places = [(scale.place(value), place) for place, value in enumerate(values) if value is not None]
        fill = light(role) if role != "pictures" else "none"  # what lies beneath the sum must stay visible
        size = MARKER_RADIUS * (1.7 if role != "pictures" else 2.6)
        axes.plot(
            *zip(*places, strict=True), MARKERS[role], markersize=size, markerfacecolor=fill, markeredgewidth=1.3,
            markeredgecolor=light(role), label=_CAUSES[role], linestyle="none", zorder=3, clip_on=False,
        )  # fmt: skip
    add_legend(axes)


def draw_shares(axes: Axes, rows: Sequence[tuple[str, AccuracyResult]]) -> None:
    """Of each configuration the share of questions answered right, with its 95% confidence interval."""
    style_axes(axes, rows=True)
    _name_rows(axes, [name for name, _ in rows])
    ends = [100 * end for _, found in rows for end in (found.low, found.high, found.fraction)]
    axes.set(xlim=(max(-1, min(ends) - 2), min(101, max(ends) + 2)), xlabel="answered right, %")
    best = max(found.fraction for _, found in rows)
    colour = light("quant_alone")
    for place, (_, found) in enumerate(rows):
        axes.plot([100 * found.low, 100 * found.high], [place, place], color=colour, linewidth=1.2, zorder=2)
        axes.plot(
            [100 * found.fraction], [place], MARKERS["quant_alone"], markersize=2 * MARKER_RADIUS, markeredgewidth=1.3,
            markeredgecolor=colour, markerfacecolor=colour if found.high >= best else light("surface"), zorder=3,
        )  # fmt: skip
    if any(found.high < best for _, found in rows):
        axes.plot(
            [], [], MARKERS["quant_alone"], color=colour, markerfacecolor=light("surface"),
            markersize=2 * MARKER_RADIUS, linestyle="none", label="hollow: worse than the best",
        )  # fmt: skip
        add_legend(axes)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _quantile(found: Divergence, percent: int) -> float:
    """Return a quantile of the divergence; the nearest one if the results have other steps than 5 percent."""
    last = len(found.quantiles) - 1
    return found.quantiles[round(percent / 100 * last)]
