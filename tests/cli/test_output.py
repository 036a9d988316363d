"""What commands write: to the right stream, as wide as it is, harmless, and in characters that it has."""

from __future__ import annotations

import io
import sys

import pytest

from internvl_gguf.cli.history import _said
from internvl_gguf.cli.output import (
    Report,
    StreamedAnswer,
    columns,
    print_fact,
    print_lines,
    print_table,
    progress_bars,
    say,
    say_error,
)
from internvl_gguf.errors import InternVLError
from internvl_gguf.history import Entry

HOSTILE = "a\x1b[31m\u202e[bold]b[/bold]"


class Terminal(io.StringIO):
    """What a terminal would get."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put stdout and stderr on one terminal of 40 columns, for the rest of a test."""
    shown = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_lines_are_broken_where_the_terminal_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    print_lines("twelve words " * 6, hang=4)
    print_fact("name", "words " * 12, 10)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[1].startswith("    twelve")
    assert lines[-3].startswith("name      words words")
    assert lines[-2].startswith("  words")


def test_columns_that_are_left_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cache` and `list --catalog` left them out without a word."""
    shown = terminal(monkeypatch)
    rows: list[tuple[str, ...]] = [("a" * 20, "b" * 10, "c" * 10)]
    print_table(("NAME", "LESS", "MORE"), rows, least_first=("LESS",))
    assert "LESS" not in shown.getvalue()
    assert shown.getvalue().endswith("1 more column: widen the window.\n")


def test_what_was_said_is_broken_at_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """`history show` broke an answer inside words."""
    terminal(monkeypatch)
    answer = "I cannot tell. I know shapes, colours, places, numbers and short words only."
    lines = _said(Entry("assistant", answer, 0.0))
    assert " ".join("\n".join(lines).split()) == answer
    assert max(map(len, "\n".join(lines).split("\n"))) <= 40


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert columns() >= 400
    print_lines("word " * 60)
    say("word " * 60)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == len(err.splitlines()) == 1


def test_what_comes_from_outside_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's name could colour a table, and an answer take the terminal over."""
    out = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    answer = StreamedAnswer()
    answer.write(HOSTILE)
    answer.end()
    print_lines(HOSTILE)
    print_table(("NAME", "NOTE"), [(HOSTILE, "b")])
    say(HOSTILE)
    say_error(InternVLError(HOSTILE, HOSTILE))
    with progress_bars("bar") as bars:
        bars.say(HOSTILE)
    shown = r"a\x1b[31m\u202e[bold]b[/bold]"
    assert out.getvalue().count(shown) == 7
    assert "\x1b[31m" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_a_program_gets_what_the_model_said(capsys: pytest.CaptureFixture[str]) -> None:
    answer = StreamedAnswer()
    answer.write(HOSTILE)
    answer.end()
    assert capsys.readouterr().out == f"{HOSTILE}\n"


def test_an_error_is_red_where_colours_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch)
    monkeypatch.delenv("NO_COLOR", raising=False)
    say_error(InternVLError("It broke.", "Mend it."))
    assert out.getvalue() == "\x1b[31m\x1b[1mError:\x1b[0m It broke.\n  Mend it.\n"


def test_a_report_has_ascii_for_what_the_encoding_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Report(80).paragraph("→ 3 ±1 – 日")
    sys.stdout.flush()
    assert raw.getvalue() == b"-> 3 +-1 - ?\n"
