"""The output of a chat as a terminal shows it: streamed Markdown, nothing harmful, previews of pictures."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from internvl_gguf.chat.terminal.live_area import LiveArea, visible_cells
from internvl_gguf.chat.terminal.markdown_blocks import BlockStream
from internvl_gguf.chat.terminal.markdown_view import MarkdownView
from internvl_gguf.chat.terminal.preview import PREVIEW_COLUMNS, PREVIEW_ROWS, Protocol, draw, protocol_of
from internvl_gguf.chat.terminal.screen import PlainScreen
from internvl_gguf.chat.terminal.sixel import encode_sixel
from internvl_gguf.chat.terminal.terminal_screen import TerminalScreen
from internvl_gguf.errors import PictureError
from internvl_gguf.utils.safe_text import cells, safe_name, safe_text
from tests.support.pictures import noise

COLUMNS, ROWS = 40, 12
LINES = """\

text
more **bold
`code` and *so*
- a
* x
+
  - inner
    code
1. one
2. two
2
3)
> quote
>
# head
===
---
***
```
```python
~~~
| a | b |
|---|--:|
| 1 |
[a]: http://x
[a]
<div>
</div>
<!--
&#27;[2J
漢字の行
\\"""
ANSWERS = st.lists(st.sampled_from([*LINES.splitlines(), "\t", "  ", "x" * 90, "\x1b[31mred"]), max_size=14).map(
    "\n".join
)


class FakeTerminal(io.StringIO):
    """A terminal that keeps its screen, and every line that was scrolled away."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        super().__init__()
        self._screen = pyte.HistoryScreen(columns, rows, history=10000, ratio=0.1)
        self._screen.set_mode(pyte.modes.LNM)  # a line feed goes to the beginning, as terminals are set up
        self._stream = pyte.Stream(self._screen)

    def write(self, text: str, /) -> int:
        self._stream.feed(text)
        return super().write(text)

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        width = range(self._screen.columns)
        above = ["".join(row[at].data for at in width) for row in self._screen.history.top]
        lines = [line.rstrip() for line in (*above, *self._screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(ROWS))


def pieces(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces, as tokens come."""
    at = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(at)]


@settings(deadline=None)
@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 10**6), max_size=12))
def test_a_block_that_is_final_stays_what_it_is_whatever_follows(answer: str, cuts: list[int]) -> None:
    whole = BlockStream()
    expected = [*whole.feed(answer), *whole.finish()]
    stream = BlockStream()
    blocks = [block for piece in pieces(answer, cuts) for block in stream.feed(piece)]
    assert [*blocks, *stream.finish()] == expected
    assert "".join("".join(expected).split()) == "".join(answer.split()), "nothing of it is lost"


@settings(deadline=None, max_examples=30)
@given(answer=ANSWERS, cuts=st.lists(st.integers(0, 10**6), max_size=12))
def test_what_was_printed_for_good_and_the_last_block_are_the_whole_answer(answer: str, cuts: list[int]) -> None:
    terminal = FakeTerminal()
    screen = TerminalScreen(terminal, None)
    screen.begin_answer()
    for piece in pieces(answer, cuts):
        screen.write(piece)
        screen._draw_answer()  # as often as can be, whatever the clock says
    screen.end_answer()
    at_once = FakeTerminal(rows=200)
    whole = TerminalScreen(at_once, None)
    whole.begin_answer()
    whole.write(answer)
    whole.end_answer()
    assert terminal.lines == at_once.lines
    assert not re.search(r"\x1b(?!\[[0-9;?]*[A-Za-z])", terminal.getvalue())


@settings(deadline=None, max_examples=50)
@given(frames=st.lists(st.tuples(st.booleans(), st.lists(st.text("ab c", max_size=19), max_size=8)), max_size=12))
def test_lines_that_are_drawn_anew_leave_no_trace(frames: list[tuple[bool, list[str]]]) -> None:
    terminal = FakeTerminal(20, 10)
    area = LiveArea(terminal, lambda: 20)
    left: list[str] = []
    for stays, lines in frames:
        if stays:
            area.leave(lines)
            left += lines
        else:
            area.show(lines)
    area.leave([])
    expected = [line.rstrip() for line in left]
    while expected and not expected[-1]:
        expected.pop()
    assert terminal.lines == expected


def test_only_lines_that_changed_are_written_again() -> None:
    terminal = FakeTerminal()
    area = LiveArea(terminal, lambda: COLUMNS)
    area.show(["the first line", "the second"])
    terminal.truncate(0)
    area.show(["the first line", "the second one"])
    assert "first" not in terminal.getvalue()
    terminal.truncate(0)
    area.show(["the first line", "the second one"])
    assert terminal.getvalue() == ""


def test_a_terminal_that_becomes_narrower_shows_the_last_block_once() -> None:
    """Terminals break the drawn lines anew, so that they take more rows than were written."""
    columns = [40]
    terminal = FakeTerminal(20, 10)  # as it is after: what was drawn 40 wide stands in 2 rows
    area = LiveArea(terminal, lambda: columns[0])
    area.show(["x" * 30, "y" * 30])
    columns[0] = 20
    area.show(["z" * 10])
    assert terminal.lines == ["z" * 10]


def test_a_block_taller_than_the_screen_shows_its_end_until_it_is_whole() -> None:
    terminal = FakeTerminal()
    screen = TerminalScreen(terminal, None)
    screen.begin_answer()
    items = [f"- item {number}" for number in range(40)]
    screen.write("\n".join(items))
    screen._draw_answer()
    assert len(terminal.lines) < ROWS
    assert terminal.lines[-1].endswith("item 39")
    screen.end_answer()
    assert [line.split()[-1] for line in terminal.lines if line] == [str(number) for number in range(40)]


def test_markdown_of_an_answer() -> None:
    from rich.console import Console

    view = MarkdownView(Console(file=io.StringIO(), force_terminal=False))
    answer = "# Two *shapes*\n\nA line\nand another: [site](http://x.org/a) ![alt](b.png) <box>[[1]]</box>\n\n"
    answer += (
        "1. one\n2. two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n```python\nif x:\n    y\n```\n\n&#133; [a]: http://x"
    )
    lines = view.whole(answer, 60)
    assert lines[:4] == [
        "Two shapes",
        "",
        "A line",
        "and another: site (http://x.org/a) alt (b.png)",
    ]
    assert lines[4] == "<box>[[1]]</box>"
    assert lines[6:8] == [" 1 one", " 2 two"]
    assert "if x:" in lines
    assert "    y" in lines
    assert lines[-1] == "\ufffd [a]: http://x"


@settings(deadline=None)
@given(text=st.text(max_size=80))
def test_nothing_that_a_terminal_acts_on_passes(text: str) -> None:
    harmless = safe_text(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", harmless)
    assert safe_text(harmless) == harmless
    assert "\n" not in safe_name(text)
    assert len(safe_name(text, 20)) <= 20


@settings(deadline=None, max_examples=50)
@given(text=st.text(max_size=120))
def test_an_answer_of_any_characters_is_shown_without_harm(text: str) -> None:
    terminal = FakeTerminal()
    screen = TerminalScreen(terminal, None)
    screen.begin_answer()
    for character in text:
        screen.write(character)
    screen.end_answer()
    assert not re.search(r"\x1b(?!\[[0-9;?]*[KJAmhl])|[\x00-\x08\x0b-\x0c\x0e-\x1a\x7f-\x9f]", terminal.getvalue())


def test_escape_sequences_are_shown_and_not_obeyed() -> None:
    evil = "\x1b]0;title\x07\x1b[2Jgone\x9b31m\r\n\u202etxt.exe"
    for plain in (True, False):
        terminal = FakeTerminal()
        screen = (
            PlainScreen(terminal, terminal, is_script=False, for_screen_reader=True)
            if plain
            else TerminalScreen(terminal, None)
        )
        screen.begin_answer()
        screen.write(evil)
        screen.end_answer()
        screen.say(evil)
        screen.fail(PictureError(evil, evil))
        screen.quote("user", evil)
        screen.quote("assistant", evil)
        screen.progress(evil, at_once=True)
        assert not re.search(r"\x1b(?!\[[0-9;?]*[KJAmhl])|\x07|\x9b|\u202e", terminal.getvalue())
        assert "\x1b[2J" not in terminal.getvalue()
        assert "\\x1b[2Jgone" in terminal.getvalue()


def test_what_is_no_terminal_gets_the_answer_as_it_is() -> None:
    answers, rest = io.StringIO(), io.StringIO()
    screen = PlainScreen(answers, rest, is_script=True, for_screen_reader=False)
    screen.progress("Reading", at_once=True)
    screen.begin_answer()
    screen.write("**a**\x1b")
    screen.end_answer()
    screen.status(["1 token"])
    screen.say("Added a.png")
    assert answers.getvalue() == "**a**\x1b\n"
    assert rest.getvalue() == "Added a.png\n"


def test_a_screen_reader_hears_of_what_takes_long_once() -> None:
    answers = FakeTerminal()
    screen = PlainScreen(answers, answers, is_script=False, for_screen_reader=True)
    screen.progress("Looking at the picture", "tile 1 of 13")
    for tile in range(30):
        screen.tick()
        screen.progress("Looking at the picture", f"tile {tile} of 13")
    screen.progress()
    screen.begin_answer()
    screen.write("Red.")
    screen.end_answer()
    screen.status(["1 tile", "2 tokens"])
    assert answers.getvalue() == "Looking at the picture.\nAnswer: Red.\n(1 tile, 2 tokens)\n"


def test_progress_appears_when_it_lasts_and_goes() -> None:
    terminal = FakeTerminal()
    screen = TerminalScreen(terminal, None)
    screen.progress("Reading the question")
    screen.tick()
    assert terminal.lines == []
    screen.tick()
    screen.progress("Looking at the picture", "tile 7 of 13")
    assert terminal.lines[0].endswith("Looking at the picture, tile 7 of 13")
    screen.begin_answer()
    screen.write("Red.")
    screen.end_answer()
    assert terminal.lines == ["", "Red."]


def test_long_lines_of_lists_go_on_further_in_and_the_status_breaks_between_its_parts() -> None:
    terminal = FakeTerminal()
    screen = TerminalScreen(terminal, None)
    screen.show_lines(["  name  a value that is longer than the terminal is wide", "short"])
    screen.status(["13 tiles", "1,024 tokens", "first after 12 s", "35 tokens/s"])
    assert terminal.lines == [
        "  name  a value that is longer than",
        "      the terminal is wide",
        "short",
        "13 tiles · 1,024 tokens",
        "first after 12 s · 35 tokens/s",
    ]


def test_width_in_cells() -> None:
    assert cells("漢字") == 4
    assert cells("e\u0301") == 1
    assert visible_cells("\x1b[1;31m漢\x1b[0m!") == 3


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, Protocol.KITTY),
        ({"TERM": "xterm-ghostty"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "220401"}, Protocol.KITTY),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210800", "COLORTERM": "truecolor"}, Protocol.BLOCKS),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, Protocol.ITERM),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, Protocol.ITERM),
        ({"TERM": "foot"}, Protocol.SIXEL),
        ({"TERM": "xterm-sixel"}, Protocol.SIXEL),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux", "COLORTERM": "truecolor"}, Protocol.BLOCKS),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, Protocol.BLOCKS_256),
        ({"TERM": "xterm-256color"}, Protocol.BLOCKS_256),
        ({}, Protocol.BLOCKS_256),
    ],
)
def test_a_terminal_is_believed_and_not_guessed(environment: dict[str, str], protocol: Protocol) -> None:
    assert protocol_of(environment) is protocol


@pytest.mark.parametrize("size", [(640, 480), (1, 5000), (5000, 1), (3, 3)])
def test_half_blocks_have_the_shape_and_the_colours(size: tuple[int, int]) -> None:
    terminal = FakeTerminal(80, 24)
    terminal.write(draw(Image.new("RGB", size, (10, 200, 30)), Protocol.BLOCKS))
    rows = terminal.lines
    assert 1 <= len(rows) <= PREVIEW_ROWS
    assert 1 <= len(rows[0]) <= PREVIEW_COLUMNS
    assert set("".join(rows)) == {"▀"}
    cell = terminal._screen.buffer[0][0]
    assert (cell.fg, cell.bg) == ("0ac81e", "0ac81e")


def test_graphics_of_terminals() -> None:
    picture = noise(1, 64, 48)
    kitty = draw(picture, Protocol.KITTY)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty)
    assert parts[0][0].startswith("a=T,f=100,q=2,")
    assert [control.endswith("m=1") for control, _ in parts] == [True] * (len(parts) - 1) + [False]
    assert all(len(data) <= 4096 for _, data in parts)
    iterm = draw(picture, Protocol.ITERM)
    assert re.fullmatch(r"\x1b\]1337;File=inline=1;size=\d+;width=\d+;height=\d+;[^\x1b]*\x07\n", iterm)
    assert draw(picture, Protocol.SIXEL).startswith("\x1bP")


def test_sixels_are_the_picture() -> None:
    """Decoded again by the description of the format: bands of six rows, run lengths, registers in percent."""
    picture = Image.new("RGB", (30, 20), (255, 0, 0))
    picture.paste((0, 0, 255), (5, 3, 25, 17))
    body = re.fullmatch(r'\x1bP0;1q"1;1;30;20(.*)\x1b\\', encode_sixel(picture), re.DOTALL)
    assert body is not None
    colours: dict[int, tuple[int, ...]] = {}
    decoded = np.zeros((24, 30, 3), np.uint8)
    x = top = colour = 0
    for command in re.finditer(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|(?:!(\d+))?([?-~])|([$-])", body[1]):
        if command[1]:
            colours[int(command[1])] = tuple(round(int(command[part]) * 2.55) for part in (2, 3, 4))
        elif command[5]:
            colour = int(command[5])
        elif command[8]:
            x, top = 0, top + 6 * (command[8] == "-")
        else:
            end = x + int(command[6] or 1)
            for row in range(6):
                if (ord(command[7]) - 63) >> row & 1:
                    decoded[top + row, x:end] = colours[colour]
            x = end
    assert np.abs(decoded[:20].astype(int) - np.asarray(picture).astype(int)).max() <= 2


def test_a_small_terminal_gets_no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(PREVIEW_COLUMNS - 5))
    terminal = FakeTerminal()
    TerminalScreen(terminal, Protocol.BLOCKS).preview(noise(1))
    assert terminal.getvalue() == ""


def test_a_terminal_of_few_characters_is_shown_what_it_has(tmp_path: Path) -> None:
    """The spinner was a question mark there, and a preview was columns of them."""
    with (tmp_path / "terminal").open("w+", encoding="cp1252") as terminal:
        screen = TerminalScreen(terminal, Protocol.BLOCKS)
        screen.preview(noise(1))
        for _ in range(8):
            screen.progress("Reading", at_once=True)
            screen.tick()
        terminal.seek(0)
        shown = terminal.read()
    assert "- Reading" in shown
    assert "?" not in re.sub(r"\x1b\[\?\d+[hl]", "", shown)
