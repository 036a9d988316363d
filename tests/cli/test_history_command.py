"""`internvl history` as people run it: rows for a pipe, and real terminals of 40 and 120 columns."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from internvl_gguf import Picture, Session
from internvl_gguf.cli.group import app
from internvl_gguf.cli.run import run as run_app
from internvl_gguf.history import History
from tests.support.kept import ask
from tests.support.pictures import noise

INTERNVL = [sys.executable, "-m", "internvl_gguf"]
QUESTIONS = {
    "plain1": "What is on the kitchen table?",
    "wide22": "这张图片里有什么？请详细描述一下图片中的每一个物体以及它们的颜色和位置关系，谢谢你。" * 2,
    "evil33": "evil \x1b[31mred\x1b]0;title\x07 and \x9b2J",
}


class Done(NamedTuple):
    """What a command has left."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def filled(history: History, session: Session) -> dict[str, str]:
    """Three conversations, and the environment in which they are found."""
    for number, (name, question) in enumerate(QUESTIONS.items()):
        session.clear()
        conversation = history.begin("some/folder/with-a-very-long-model-name-that-fills-lines:Q4_K_M", "Be brief.")
        conversation.id = name
        ask(conversation, session, question, [Picture(noise(number), max_tiles=1, name=f"\x1b[1m{number}.png")])
    history.close()
    return {"INTERNVL_DATA": str(history.folder), "NO_COLOR": "1"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: a new one takes most of a second only to begin."""

    def run(environment: dict[str, str], *arguments: object, stdin: str = "") -> Done:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["internvl", "history", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            code = run_app(app)
        return Done(code, *capsys.readouterr())

    return run


def in_terminal(environment: dict[str, str], columns: int, *arguments: str) -> str:
    pexpect = pytest.importorskip("pexpect")
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    child = pexpect.spawn(
        INTERNVL[0],
        [*INTERNVL[1:], "history", *arguments],
        dimensions=(40, columns),
        encoding="utf-8",
        env={**inherited, **environment},
        timeout=60,
    )
    shown: str = child.read()
    child.wait()
    assert child.exitstatus == 0, shown
    return shown.replace("\r\n", "\n")


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def assert_harmless(text: str) -> None:
    assert not {c for c in text if unicodedata.category(c) == "Cc" and c != "\n"}


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_list_fits_the_terminal(filled: dict[str, str], columns: int) -> None:
    shown = in_terminal(filled, columns)
    lines = shown.strip().split("\n")
    end = next(at for at, line in enumerate(lines) if line.startswith("3 conversations, 3 pictures ("))
    rows = lines[:end]  # what follows is broken at words
    assert_harmless(shown)
    assert all(cells(row) < columns for row in rows)
    assert [row.split()[0] for row in rows if row.split()[0] in QUESTIONS] == [*reversed(QUESTIONS)]
    assert max(cells(row) for row in rows) >= columns - 2  # the wide title is cut no earlier than it must be
    assert len(rows) == (6 if columns == 40 else 4)
    assert all(cells(line) <= columns or " " not in line for line in lines)


def test_colours_only_where_they_are_wanted(run: Run, filled: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" not in in_terminal(filled, 100)
    coloured = {"INTERNVL_DATA": filled["INTERNVL_DATA"]}
    assert "\x1b[1m" in in_terminal(coloured, 100)
    assert "\x1b" not in run(coloured).stdout


def test_a_pipe_gets_whole_rows_and_nothing_but_rows(run: Run, filled: dict[str, str]) -> None:
    done = run(filled)
    assert done.returncode == 0
    assert_harmless(done.stdout)
    head, *rows = done.stdout.strip().split("\n")
    assert head.split() == ["ID", "LAST", "MODEL", "ASKED", "TITLE"]
    assert len(rows) == 3
    assert QUESTIONS["wide22"] in rows[1]


def test_search_limit_and_json(run: Run, filled: dict[str, str]) -> None:
    found = json.loads(run(filled, "KITCHEN", "table", "--json").stdout)
    assert [each["id"] for each in found] == ["plain1"]
    assert found[0].keys() == {
        "id", "title", "model", "created", "updated", "questions", "pictures", "excerpt",
    }  # fmt: skip
    assert [each["id"] for each in json.loads(run(filled, "--json", "--limit", "2").stdout)] == ["evil33", "wide22"]
    assert "2 of 3 conversations" in run(filled, "-n", 2).stderr
    nothing = run(filled, "unicorn\x1b[1m")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert nothing.stderr == "No conversation has 'unicorn\\\\x1b[1m'.\n"
    assert json.loads(run(filled, "list", "show", "--json").stdout) == []


def test_showing_a_conversation(run: Run, filled: dict[str, str]) -> None:
    shown = run(filled, "show", "evil").stdout
    assert_harmless(shown)
    assert "evil \\x1b[31mred\\x1b]0;title\\x07 and \\x9b2J" in shown
    assert "[\\x1b[1m2.png: 1 tile]" in shown
    assert "System\nBe brief." in shown
    document = json.loads(run(filled, "show", "evil33", "--json").stdout)
    assert document["messages"][0]["text"] == QUESTIONS["evil33"]
    assert "pictures" not in document


def test_writing_one_to_a_file(run: Run, filled: dict[str, str], tmp_path: Path) -> None:
    done = run(filled, "export", "plain", tmp_path / "talk.md")
    assert done.stderr == f"Wrote {tmp_path / 'talk.md'}, its pictures to {tmp_path / 'talk-pictures'}.\n"
    assert "# What is on the kitchen table?" in (tmp_path / "talk.md").read_text()
    assert len(list((tmp_path / "talk-pictures").iterdir())) == 1
    run(filled, "export", "plain", tmp_path / "talk.json", "--no-pictures")
    assert "pictures" not in json.loads((tmp_path / "talk.json").read_text())
    assert run(filled, "export", "plain", "-o", tmp_path / "habit.md").returncode == 0
    assert (tmp_path / "habit.md").is_file()
    for files in ((), (tmp_path / "a.md", "--output", tmp_path / "b.md")):
        assert run(filled, "export", "plain", *files).returncode == 2
    bad = run(filled, "export", "plain", tmp_path / "talk.doc")
    assert bad.returncode == 1
    assert bad.stderr.count("\n") == 2


def test_removing_asks_first(run: Run, filled: dict[str, str]) -> None:
    refused = run(filled, "rm", "plain", stdin="n\n")
    assert refused.returncode == 1
    assert "Remove plain1 (What is on the kitchen table?)?" in refused.stderr
    assert refused.stderr.endswith("Nothing was changed.\n")
    assert run(filled, "rm", "plain", "wide", stdin="y\n").stderr.endswith("Removed 2 conversations.\n")
    assert [each["id"] for each in json.loads(run(filled, "--json").stdout)] == ["evil33"]
    typed = Path(filled["INTERNVL_DATA"]) / "chat_input"
    typed.write_text("+What is it?\n")
    assert run(filled, "rm", "--all", "--yes").stderr == "Removed 1 conversation and the lines that were typed.\n"
    assert not typed.exists()
    assert json.loads(run(filled, "--json").stdout) == []
    (Path(filled["INTERNVL_DATA"]) / "pictures" / ("0" * 32)).write_bytes(b"of a question that was taken back")
    assert run(filled, "rm", "--all").stderr == "There are no conversations.\n"
    assert not list((Path(filled["INTERNVL_DATA"]) / "pictures").iterdir())


@pytest.mark.parametrize("arguments", [["rm"], ["rm", "x", "--all"], ["show"], ["export", "x"], ["--limit", "0"]])
def test_wrong_usage(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    assert run({"INTERNVL_DATA": str(tmp_path)}, *arguments).returncode == 2


def test_where_there_is_no_history_none_is_made(run: Run, tmp_path: Path) -> None:
    environment = {"INTERNVL_DATA": str(tmp_path / "data")}
    assert run(environment).stderr == "No conversations yet: `internvl chat` begins one.\n"
    assert run(environment, "--json").stdout == "[]\n"
    missing = run(environment, "show", "k7m")
    assert missing.returncode == 1
    assert missing.stderr == "Error: There is no conversation 'k7m'.\n  `internvl history` lists those there are.\n"
    assert not (tmp_path / "data").exists()


def test_what_cannot_be_opened_is_two_lines(run: Run, tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").mkdir()
    done = run({"INTERNVL_DATA": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 2


def test_it_waits_for_no_model_and_no_picture() -> None:
    script = (
        "import sys, internvl_gguf.cli.history, internvl_gguf.history.json_export;"
        "print([name for name in ('llama_cpp', 'numpy', 'PIL', 'gguf') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
