"""The charts of `internvl bench` and its page: readable, heard, in both themes, and safe whatever a file is called."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from internvl_gguf.bench.report.advice import advise
from internvl_gguf.bench.report.theme import SHADES, contrast
from internvl_gguf.bench.results import Results, Spread
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_line
from tests.support.bench_samples import GIB, HOSTILE, hostile, samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLES = samples()


def test_the_colours_can_be_told_from_the_surface() -> None:
    """WCAG 2.2: text 4.5:1, graphics 3:1; grid lines are decoration."""
    for role, shade in SHADES.items():
        least = {"ink": 4.5, "muted": 4.5, "surface": 1, "grid": 1}.get(role, 3)
        assert contrast(shade.light, SHADES["surface"].light) >= least, role
        assert contrast(shade.dark, SHADES["surface"].dark) >= least, role
    assert len({shade.light for shade in SHADES.values()}) == len(SHADES)


@pytest.mark.parametrize("name", ["ladder", "sweep"])
def test_no_name_covers_another_nor_leaves_the_chart(name: str) -> None:
    """24 quants, half of them between 5 and 9 GiB: named at their points they would be a black spot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from internvl_gguf.bench.report.charts import charts_of

    results = SAMPLES[name]
    chart = charts_of(results)[0]
    figure = Figure((7.6, chart.height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    chart.draw(axes)
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    labels = [text for text in axes.texts if text.get_text()]
    assert 3 <= len(labels) <= 10
    if name == "ladder":  # in the sweep no long name has room beside the point
        assert sum(label.get_text().startswith("→") for label in labels) == 1
    extents = [text.get_window_extent() for text in labels]
    for one, other in combinations(range(len(labels)), 2):
        width = min(extents[one].x1, extents[other].x1) - max(extents[one].x0, extents[other].x0)
        height = min(extents[one].y1, extents[other].y1) - max(extents[one].y0, extents[other].y0)
        # Extents reach from the deepest to the highest letter there could be.
        assert width <= 0.5 or height <= 1.5, (labels[one].get_text(), labels[other].get_text())
    for extent in extents:
        assert frame.x0 - 1 <= extent.x0
        assert extent.x1 <= frame.x1 + 1
        assert frame.y0 - 2 <= extent.y0
        assert extent.y1 <= frame.y1 + 2


@pytest.mark.parametrize(
    ("name", "charts"),
    [
        ("ladder", ["loss-by-size", "loss-by-speed", "spread-pictures", "spread-text", "right"]),
        ("sweep", ["loss-by-size", "loss-by-speed", "spread-pictures", "spread-text", "split", "right"]),
        ("text only", ["loss-by-size", "loss-by-speed", "spread-text"]),
        ("no speed", ["loss-by-size", "spread-pictures", "spread-text", "right"]),
        ("no quality", ["speed-by-size"]),
        ("accuracy only", ["speed-by-size", "right"]),
        ("one", ["speed-by-size", "right"]),  # the reference alone has nothing to lose
        ("several answers", ["best-of", "best-of-time"]),
        ("nothing", []),
        ("empty", []),
    ],
)
def test_there_are_charts_of_what_was_measured_and_no_empty_ones(name: str, charts: list[str]) -> None:
    from internvl_gguf.bench.report.charts import charts_of

    assert [chart.name for chart in charts_of(SAMPLES[name])] == charts


def axes_of(results: Results, name: str, width: float) -> Axes:
    """The axes of one chart, drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from internvl_gguf.bench.report.charts import charts_of

    chart = next(chart for chart in charts_of(results) if chart.name == name)
    figure = Figure((width, chart.height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    chart.draw(axes)
    figure.draw_without_rendering()
    return axes


def test_a_disturbed_run_does_not_stretch_the_axis() -> None:
    """A whisker of one run from 85 to 2,515 tokens a second left nine tenths of the chart empty."""
    results = SAMPLES["ladder"]
    row = results.rows[0]
    assert row.speed
    decode = row.speed.decode
    disturbed = replace(row.speed, decode=Spread.of([*decode.values[1:], decode.median / 100]))
    low = axes_of(results, "loss-by-speed", 6).get_xlim()[0]
    results = replace(results, rows=(replace(row, speed=disturbed), *results.rows[1:]))
    assert axes_of(results, "loss-by-speed", 6).get_xlim()[0] > 0.9 * low


@pytest.mark.parametrize("width", [4.0, 6.4])
def test_the_legend_lies_within_the_chart(width: float) -> None:
    axes = axes_of(SAMPLES["ladder"], "spread-pictures", width)
    legend, figure = axes.get_legend(), axes.get_figure()
    assert legend is not None
    assert figure is not None
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_the_reference_is_not_in_the_chart_of_its_own_rounding() -> None:
    axes = axes_of(SAMPLES["ladder"], "spread-text", 6)
    assert "BF16" not in [label.get_text() for label in axes.get_yticklabels()]


@settings(deadline=None)
@given(st.floats(1e-300, 1e300), st.floats(1, 1e12))
def test_ticks_are_few_and_within_the_axis(low: float, factor: float) -> None:
    from internvl_gguf.bench.report.axes import log_ticks

    high = min(low * factor * 1.5, 1e300)
    ticks = log_ticks(low, high)
    assert len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)
    assert sorted(set(ticks)) == ticks


class Page(HTMLParser):
    """A page as a browser reads it: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    from internvl_gguf.bench.report.page import results_to_page

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return results_to_page(hostile(), 12 * GIB)


def test_the_page_is_whole_and_asks_the_network_for_nothing(page: str) -> None:
    found = Page(page)
    assert page.startswith("<!doctype html>")
    assert not found.all("link") + found.all("img") + found.all("iframe")
    for _, attributes in found.elements:
        assert not {"src", "srcset", "action", "data"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in page
    assert "//" not in re.sub(r"<(p|td|th|li|code|dt|dd)\b.*?</\1>", "", page, flags=re.S)
    policy = next(each["content"] for each in found.all("meta") if each.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_names_do_not_become_markup_in_the_page(page: str) -> None:
    found = Page(page)
    assert not found.all("script")
    assert safe_line(HOSTILE) in found.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]", page)


def test_the_page_can_be_heard(page: str) -> None:
    found = Page(page)
    tables, heads = found.all("table"), found.all("th")
    assert len(tables) == len(found.all("caption")) == 1
    assert {head["scope"] for head in heads} == {"row", "col"}
    pictures = found.all("svg")
    assert len(pictures) == 2 * len(found.all("figcaption")) == len(found.all("desc")) >= 8  # for wide and for narrow
    assert all(picture["role"] == "img" for picture in pictures)
    identifiers = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    for _, attributes in found.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, identifiers[0]) in identifiers
    references = re.findall(r'(?:url\(#|href="#)([^)"]+)', page)
    assert references
    assert set(references) <= set(identifiers)
    assert "the one to take: " in found.text  # a mark is read aloud as a word


def test_the_charts_of_the_page_follow_its_theme(page: str) -> None:
    charts = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert not re.search(r"#[0-9a-f]{6}\b|font-family|rgb\(", charts)
    variables = set(re.findall(r"var\(--(\w+)\)", charts))
    assert {"ink", "grid", "pictures", "text"} <= variables <= set(SHADES)
    dark = page.partition("prefers-color-scheme: dark")[2].partition("@media")[0]
    assert all(f"--{variable}: {SHADES[variable].dark}" in dark for variable in variables)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_page_of_little(name: str) -> None:
    from internvl_gguf.bench.report.page import results_to_page

    found = Page(results_to_page(SAMPLES[name]))
    assert advise(SAMPLES[name]) in found.text
    assert "There is nothing to draw" in found.text


@pytest.mark.parametrize("name", ["text only", "nothing"])
def test_a_picture_of_the_charts(name: str, tmp_path: Path) -> None:
    from internvl_gguf.bench.report.figures import write_plot

    write_plot(tmp_path / "charts.png", SAMPLES[name])
    with Image.open(tmp_path / "charts.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == (2400 if name == "text only" else 1220)
        assert picture.getpixel((0, 0)) == picture.getpixel((picture.width - 1, picture.height - 1)) == (255, 255, 254)
        assert len(picture.convert("L").getcolors() or []) > 20


def test_without_matplotlib_one_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from internvl_gguf.bench.report.figures import require_matplotlib

    require_matplotlib()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name))
    with pytest.raises(InvalidRequestError, match="Charts need matplotlib") as caught:
        require_matplotlib()
    assert "pip install 'internvl-gguf[plot]'" in caught.value.hint


def test_a_place_for_a_report_is_looked_at_before_anything_is_measured(tmp_path: Path) -> None:
    from internvl_gguf.bench.report.figures import require_place, write_report

    require_place(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
    for wrong, said in ((tmp_path, "is a folder"), (tmp_path / "none" / "page.html", "lies in no folder")):
        with pytest.raises(InvalidRequestError, match=said):
            require_place(wrong)
    with pytest.raises(InvalidRequestError, match=r"cannot be written: .*directory"):
        write_report(tmp_path, b"")


def test_who_wants_no_charts_does_not_wait_for_their_library() -> None:
    script = (
        "import internvl_gguf.bench.report.formats, internvl_gguf.cli.bench_report, sys;"
        "import internvl_gguf.bench.report.figures;"
        "print([name for name in ('matplotlib', 'numpy', 'PIL', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
