"""Markdown and boxes on the page: what an answer can show, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import internvl_gguf
from tests.support.page_browser import PageInBrowser, headless_browser, serving_demo
from tests.support.pictures import encoded, noise

_RENDER = """async (text) => {
  const { renderMarkdown } = await import("/page/markdown.js");
  const place = document.createElement("div");
  document.body.append(place);
  renderMarkdown(text, place);
  const html = place.innerHTML;
  place.remove();
  return html;
}"""

_BOXES = """async (text) => {
  const { readBoxes } = await import("/page/boxes.js");
  const { text: shown, boxes } = readBoxes(text);
  return [shown, boxes.map(({ label, x1, y1, x2, y2 }) => [label, x1, y1, x2, y2])];
}"""


@pytest.fixture(scope="module")
def tab() -> Iterator[PageInBrowser]:
    with serving_demo() as address, headless_browser() as browser:
        context = browser.new_context()
        opened = PageInBrowser(context, address, scripted=True)
        yield opened
        context.close()
        assert opened.complaints == []


def _rendered(tab: PageInBrowser, text: str) -> str:
    return str(tab.page.evaluate(_RENDER, text))


def _boxes(tab: PageInBrowser, text: str) -> Any:
    return tab.page.evaluate(_BOXES, text)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (
            "a *b* **c** ***d*** ~~e~~ `f*g*`",
            "<p>a <em>b</em> <strong>c</strong> <strong><em>d</em></strong> <del>e</del> <code>f*g*</code></p>",
        ),
        ("snake_case_name 2 * 3 * 4 \\*no\\*", "<p>snake_case_name 2 * 3 * 4 *no*</p>"),
        ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
        ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
        ("## Title ##\ntext", '<h4 class="level-2">Title</h4><p>text</p>'),
        ("Title\n===", '<h3 class="level-1">Title</h3>'),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ("> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"),
        ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
        ("3. a\n   - b\n4. c", '<ol start="3"><li>a<ul><li>b</li></ul></li><li>c</li></ol>'),
        ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("- [x] a", '<ul><li class="task"><input type="checkbox" disabled="" checked="">a</li></ul>'),
        ("text\n- a\n\nafter", "<p>text</p><ul><li>a</li></ul><p>after</p>"),
        ("&lt;b&gt; &amp; <br>c", "<p>&lt;b&gt; &amp; <br>c</p>"),
    ],
)
def test_markdown_becomes_elements(tab: PageInBrowser, text: str, html: str) -> None:
    assert _rendered(tab, text) == html


def test_a_table_has_its_sides_and_its_cells(tab: PageInBrowser) -> None:
    html = _rendered(tab, "| a | b | c |\n|:--|:-:|--:|\n| 1 | `x\\|y` |\n")
    assert '<th>a</th><th class="middle">b</th><th class="right">c</th>' in html
    assert '<td>1</td><td class="middle"><code>x|y</code></td><td class="right"></td>' in html


def test_code_is_copied_as_it_stands(tab: PageInBrowser) -> None:
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.begin_scripted("Code, please.")
    tab.push("```python\nprint('<b>')\n\n# *no* Markdown\n```\nafter")
    tab.end()
    tab.answered(tab.page.locator(".answer").count())
    tab.page.locator(".code .copy").last.click()
    tab.shows("#announcer", "Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == "print('<b>')\n\n# *no* Markdown"


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        '<a href="javascript:alert(1)">x</a>',
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](//example.org)",
        "<javascript:alert(1)>",
        "![x](javascript:alert(1))",
        "`<img src=x onerror=alert(1)>`",
        "```<img src=x>\n<img src=x onerror=alert(1)>\n```",
        "| <img src=x onerror=alert(1)> |\n| - |\n| [x](vbscript:y) |",
    ],
)
def test_nothing_in_an_answer_runs_or_fetches(tab: PageInBrowser, text: str) -> None:
    html = _rendered(tab, text)
    assert not any(part in html for part in ("<img", "<script", "<a ", "<iframe"))


@pytest.mark.parametrize(
    ("text", "address", "label"),
    [
        ("[x](https://example.org/a_(b)?c=1&d=2)", "https://example.org/a_(b)?c=1&d=2", "x"),
        ("see https://example.org/a.", "https://example.org/a", "https://example.org/a"),
        ("<http://example.org>", "http://example.org", "http://example.org"),
        ('![a picture](https://example.org/x.png "t")', "https://example.org/x.png", "a picture"),
        ('[x](https://example.org/"onmouseover="alert(1))', None, None),
    ],
)
def test_links_lead_to_the_web_in_a_tab_of_their_own(
    tab: PageInBrowser, text: str, address: str | None, label: str | None
) -> None:
    found = tab.page.evaluate(
        """async (text) => {
          const { renderMarkdown } = await import("/page/markdown.js");
          const place = document.createElement("div");
          renderMarkdown(text, place);
          return [...place.querySelectorAll("a")].map((link) =>
            [link.getAttribute("href"), link.textContent, link.rel, link.target, link.attributes.length]);
        }""",
        text,
    )
    if address is not None:
        assert found == [[address, label, "noopener noreferrer", "_blank", 3]]
    else:
        assert all(count == 3 for *_, count in found)


def test_an_answer_in_pieces_ends_as_the_whole_one(tab: PageInBrowser) -> None:
    text = (
        "# a\n\n- b\n  - *c*\n\n1. d\n\n```py\ne\n```\n\n| f | g |\n| - | - |\n| h | i |\n\n> j\n\nTitle\n---\nk **l**"
    )
    both = tab.page.evaluate(
        """async (text) => {
          const { MarkdownView, renderMarkdown } = await import("/page/markdown.js");
          const [grown, whole] = [document.createElement("div"), document.createElement("div")];
          const view = new MarkdownView(grown);
          for (let end = 1; end <= text.length; end++) view.update(text.slice(0, end));
          renderMarkdown(text, whole);
          return [grown.innerHTML, whole.innerHTML];
        }""",
        text,
    )
    assert both[0] == both[1]


@pytest.mark.parametrize(
    "text",
    [
        ">" * 5000,
        "- " * 5000,
        "*a " * 5000,
        "[" * 5000,
        "**" * 5000 + "a",
        "`" * 4999 + " a",
        "|" * 5000 + "\n" + "|-" * 5000,
    ],
)
def test_text_made_to_hurt_is_shown_as_text(tab: PageInBrowser, text: str) -> None:
    assert _rendered(tab, text) != ""


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_aa_wants(scheme: int) -> None:
    sheet = (Path(internvl_gguf.__file__).parent / "server" / "page" / "page.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\)", sheet)
    colours = {name: both[scheme] for name, *both in pairs}
    papers = {
        "ink": "paper side raised shade bad-paper",
        "soft": "paper side raised shade",
        "accent": "paper raised shade",
    }
    for text, behind in {**papers, "on-accent": "accent", "bad": "paper raised"}.items():
        for paper in behind.split():
            assert _contrast(colours[text], colours[paper]) >= 4.5, f"{text} on {paper}"


def _contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.1 between two colours, rrggbb."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("text", "shown", "boxes"),
    [
        ("A <ref>cat</ref><box>[[1, 2, 3, 4]]</box>.", "A cat.", [["cat", 1, 2, 3, 4]]),
        ("<ref>cats</ref><box>[[1,2,3,4], [5,6,7,8]]</box>", "cats", [["cats", 1, 2, 3, 4], ["cats", 5, 6, 7, 8]]),
        ("a dog[[1, 2, 3, 4]]", "a dog", [["a dog", 1, 2, 3, 4]]),
        (
            "1. **cat**[[1, 2, 3, 4]]\n2. dog[[5, 6, 7, 8]]",
            "1. **cat**\n2. dog",
            [["cat", 1, 2, 3, 4], ["dog", 5, 6, 7, 8]],
        ),
        ("<ref>cat</ref><box>[[900, 800, 100, 2000]]</box>", "cat", [["cat", 100, 800, 900, 1000]]),
        ("<ref>cat</ref><box>[[-5, 2, 3, 4]]</box>", "cat", [["cat", 0, 2, 3, 4]]),
        ("<ref>cat</ref><box>[[1, 2, 3, 4], [5, 6, 7", "cat", [["cat", 1, 2, 3, 4]]),
        ("<ref>cat</ref><box>[[1, 2, 3", "cat", []),
        ("<ref>cat</ref><bo", "cat", []),
        ("a cat[[1, 2", "a cat", []),
        ("[[1, 2], [3, 4]] is a matrix", "[[1, 2], [3, 4]] is a matrix", []),
        ("```\nx = [[1, 2, 3, 4]]\n```", "```\nx = [[1, 2, 3, 4]]\n```", []),
        ("```python\ncat[[1, 2, 3, 4]]\n```", "```python\ncat[[1, 2, 3, 4]]\n```", []),
        (
            "Sure.\n\n```\ncat[[1, 2, 3, 4]]\na dog[[5, 6, 7, 8], [1, 1, 2, 2]]\n```",
            "Sure.\n\ncat\na dog\n",
            [["cat", 1, 2, 3, 4], ["a dog", 5, 6, 7, 8], ["a dog", 1, 1, 2, 2]],
        ),
        ("```\n<ref>cat</ref><box>[[1, 2, 3, 4]]</box>\na do", "cat\na do", [["cat", 1, 2, 3, 4]]),
        ("no boxes < here", "no boxes < here", []),
    ],
)
def test_boxes_are_read_however_the_model_writes_them(
    tab: PageInBrowser, text: str, shown: str, boxes: list[Any]
) -> None:
    assert _boxes(tab, text) == [shown, boxes]


def test_boxes_are_drawn_over_the_last_picture_and_listed(tab: PageInBrowser) -> None:
    tab.add([("two.png", "image/png", encoded(noise(1, 200, 100), "PNG"))], "drop")
    tab.begin_scripted("Where are they?")
    tab.push("<ref>left</ref><box>[[0, 0, 500, 1000]]</box> <ref>right</ref><box>[[500, 0, 1000, 1000]]</box>")
    tab.end()
    tab.answered(tab.page.locator(".answer").count())
    tab.shows(".answer:last-child .boxes", "right")
    picture = tab.page.locator(".answer:last-child .found img").bounding_box()
    box = tab.page.locator(".answer:last-child .box >> nth=1").locator("rect").last.bounding_box()
    assert box["x"] == pytest.approx(picture["x"] + picture["width"] / 2, abs=3)
    assert box["width"] == pytest.approx(picture["width"] / 2, abs=6)
