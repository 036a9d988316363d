"""Draw charts as pictures: SVG for the page, PNG for `--plot`.

Matplotlib draws both from the same code; it has log axes, exact text extents and an SVG writer, which nothing else
in Python has together without a browser. It is an optional dependency (`plot`), which only the charts need.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.bench.report.advice import advise
from internvl_gguf.bench.report.legend import circumstances, common_settings, title
from internvl_gguf.bench.report.theme import light
from internvl_gguf.bench.results import Results
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.atomic_write import write_atomically
from internvl_gguf.utils.safe_text import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from internvl_gguf.bench.report.chart import Chart

_WIDTH: Final = 7.6  # inches, in a picture
_ON_PAGE: Final = 6.4  # two of them side by side in 1,280 pixels, with letters of 10
_ON_NARROW_PAGE: Final = 4.0  # in 400 pixels
_DPI: Final = 150
_GAP: Final = 40  # pixels
_HEAD: Final = 0.75


def require_matplotlib() -> None:
    """Check that charts can be drawn, before hours of measuring.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidRequestError(
            "Charts need matplotlib, which is not installed.",
            "Install it with: pip install 'internvl-gguf[plot]'",
        )


def require_place(path: Path) -> None:
    """Check that a report can be written to a path, before hours of measuring.

    Raises:
        InvalidRequestError: it names a folder, lies in none, or may not be written.
    """
    there = path if path.exists() else path.parent
    problem = "is a folder" if path.is_dir() else "lies in no folder" if not path.parent.is_dir() else ""
    if not problem and not os.access(there, os.W_OK):
        problem = "may not be written"
    if problem:
        raise InvalidRequestError(f"{path} {problem}.", "Name a file in a folder that exists and is yours.")


def chart_as_svg(chart: Chart, *, narrow: bool = False) -> str:
    """A chart as a document of SVG, its texts as text, in the colours of the light theme.

    Args:
        chart: what to draw.
        narrow: for a window of about 400 pixels, where the letters of the wide one would be too small to read.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    require_matplotlib()
    with _drawing(72):
        out = io.StringIO()
        metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
        _figure(chart, 72, _ON_NARROW_PAGE if narrow else _ON_PAGE).savefig(
            out, format="svg", metadata=metadata, transparent=True
        )
        return out.getvalue()


def write_plot(path: Path, results: Results, budget: int | None = None) -> None:
    """All charts in one picture, on white, with a head that says what was measured where; advice is for `budget` bytes.

    Raises:
        InvalidRequestError: matplotlib is not installed, or the file cannot be written.
    """
    require_matplotlib()
    from PIL import Image

    from internvl_gguf.bench.report.charts import charts_of

    with _drawing(_DPI):
        charts = charts_of(results, budget)
        rows = [charts[start : start + 2] for start in range(0, len(charts), 2)]
        across = min(2, len(charts)) or 1
        width = across * _WIDTH + (across - 1) * _GAP / _DPI
        pictures = [
            [_picture(_figure(chart, _DPI, width if len(row) == 1 else _WIDTH, titled=True)) for chart in row]
            for row in rows
        ]  # the last one takes the whole width where it stands alone
        head = _picture(_head(results, advise(results, budget), width, has_charts=bool(charts)))
    heights = [max(picture.height for picture in row) + _GAP for row in pictures]
    size = (int(width * _DPI) + 2 * _GAP, head.height + _GAP + sum(heights))
    sheet = Image.new("RGB", size, light("surface"))
    sheet.paste(head, (_GAP, _GAP // 2))
    top = head.height + _GAP
    for row, height in zip(pictures, heights, strict=True):
        for number, picture in enumerate(row):
            sheet.paste(picture, (_GAP + number * (int(_WIDTH * _DPI) + _GAP), top))
        top += height
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True, dpi=(_DPI, _DPI))
    write_report(path, out.getvalue())


def write_chart(path: Path, chart: Chart) -> None:
    """One chart as a picture, on white, below its title.

    Raises:
        InvalidRequestError: matplotlib is not installed, or the file cannot be written.
    """
    require_matplotlib()
    with _drawing(_DPI):
        picture = _picture(_figure(chart, _DPI, _WIDTH, titled=True))
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True, dpi=(_DPI, _DPI))
    write_report(path, out.getvalue())


def write_report(path: Path, data: bytes) -> None:
    """Write a file of a report.

    Raises:
        InvalidRequestError: it cannot be written.
    """
    try:
        if path.is_file() or not path.exists():
            write_atomically(path.resolve(), data, shared=True)
        else:
            path.write_bytes(data)  # /dev/stdout, a pipe
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another place, or free some space."
        ) from error


@contextlib.contextmanager
def _drawing(dpi: int) -> Iterator[None]:
    """Apply matplotlib's settings for these charts, whatever the user's own settings are."""
    import matplotlib

    ours: Any = {
        "font.family": ["DejaVu Sans"],  # comes with matplotlib, and is wider than what browsers take in its place
        "figure.dpi": dpi,
        "savefig.dpi": "figure",
        "svg.fonttype": "none",
        "svg.hashsalt": "internvl",  # the same results make the same file
        "text.parse_math": False,  # a $ in a file's name is no formula
        "axes.unicode_minus": False,
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(ours)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _figure(chart: Chart, dpi: int, width: float, *, titled: bool = False) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = chart.height + (0.3 if titled else 0)
    figure = Figure((width, height), dpi=dpi, layout="constrained", facecolor=light("surface"))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=light("surface"))
    if titled:
        figure.suptitle(chart.title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=light("ink"))
    chart.draw(axes)
    return figure


def _head(results: Results, advice: str, width: float, *, has_charts: bool) -> Figure:
    """Draw the head of the picture: the model, the machine and the advice."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    characters = int(98 * width / _WIDTH)
    lines = [circumstances(results), common_settings(results)]
    if not has_charts:
        lines.append("There is nothing to draw: neither quality nor speed was measured.")
    lines = [part for line in lines for part in textwrap.wrap(line, characters)]
    advised = textwrap.wrap(advice, characters)
    height = _HEAD + 0.19 * (len(lines) + len(advised))
    figure = Figure((width, height), dpi=_DPI, facecolor=light("surface"))
    FigureCanvasAgg(figure)
    name = shortened(title(results), int(60 * width / _WIDTH))
    figure.text(0.01, 1 - 0.3 / height, name, fontsize=16, weight="bold", va="center", color=light("ink"))
    for number, line in enumerate([*lines, *advised]):
        figure.text(0.01, 1 - (0.65 + 0.19 * number) / height, line, fontsize=9, va="center",
                    color=light("muted" if number < len(lines) else "ink"))  # fmt: skip
    return figure


def _picture(figure: Figure) -> Any:
    """Return a figure's pixels as a Pillow image."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
