"""Long paths on terminals of 60 and 80 columns: no line is wider, and nothing of a path is lost."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.models.local_files import demo_files
from internvl_gguf.utils.safe_text import broken, cells
from tests.support.pictures import noise

INTERNVL = [sys.executable, "-m", "internvl_gguf"]
OnTerminal = Callable[..., list[str]]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a path of more than two hundred characters, a copy of the demo model and a picture in it."""
    folder = tmp_path_factory.mktemp("far") / ("long-name-without-a-space-" * 4) / ("nested/" * 12)
    folder.mkdir(parents=True)
    for file in (demo_files().text, demo_files().mmproj):
        shutil.copy(file, folder)
    noise(1).save(folder / "picture.png")
    return folder


@pytest.fixture(params=[60, 80])
def on_terminal(request: pytest.FixtureRequest, far: Path) -> OnTerminal:
    """Run a command on a terminal of so many columns; the lines it shows, none of them wider."""
    pexpect = pytest.importorskip("pexpect")
    columns: int = request.param

    def run(*arguments: object, code: int = 0, whole: str = "") -> list[str]:
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        places = {f"INTERNVL_{name}": str(far / name.lower()) for name in ("CACHE", "DATA")}
        child = pexpect.spawn(
            INTERNVL[0],
            [*INTERNVL[1:], *map(str, arguments)],
            dimensions=(60, columns),
            encoding="utf-8",
            env={**inherited, **places, "HF_HOME": str(far / "hub"), "NO_COLOR": "1", "TERM": "xterm"},
            timeout=120,
        )
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", child.read())
        child.wait()
        assert child.exitstatus == code, shown
        lines: list[str] = [line.split("\r")[-1] for line in shown.replace("\r\n", "\n").split("\n")]
        assert [line for line in lines if len(line) > columns and not (whole and line.strip().startswith(whole))] == []
        return lines

    return run


def shows(lines: list[str], path: Path) -> bool:
    """Whether a path is there, however it is broken."""
    return str(path) in "".join(line.strip() for line in lines)


def test_what_is_looked_at(on_terminal: OnTerminal, far: Path) -> None:
    text = far / demo_files().text.name
    assert shows(on_terminal("show", text), text)
    assert shows(on_terminal("inspect", far / "picture.png"), far / "picture.png")
    assert shows(on_terminal("cache"), far / "cache")
    assert shows(on_terminal("doctor"), far / "cache")
    on_terminal("list")
    on_terminal("history")
    on_terminal("quantize", text, "--dry-run")
    on_terminal("pick", text, whole="internvl ask")  # a command to be copied stays whole


def test_what_is_done(on_terminal: OnTerminal, far: Path) -> None:
    text, made = far / demo_files().text.name, far / "made.gguf"
    assert shows(on_terminal("quantize", text, "Q8_0", "-o", made, "--force", "-t", 1), made)
    on_terminal("ask", text, "What is it?", "-i", far / "picture.png", "-t", 1, "-n", 4)
    on_terminal("cache", "clear", "--all", "--yes")


def test_what_is_wrong(on_terminal: OnTerminal, far: Path) -> None:
    missing = far / "missing.gguf"
    assert shows(on_terminal("ask", missing, "Hello?", code=1), missing)
    on_terminal("ask", "demo", "What is it?", "-i", far / "missing.png", code=1)
    on_terminal("quantize", missing, "Q8_0", code=1)
    on_terminal("show", missing, code=1)
    on_terminal("inspect", far / "missing.png", code=1)


LINES = st.text(st.sampled_from("ab /\\漢é\u0301"), max_size=60)


@given(line=LINES, width=st.integers(6, 30), hang=st.sampled_from([None, "", "  ", "          "]))
def test_a_broken_line_fits_and_keeps_its_words(line: str, width: int, hang: str | None) -> None:
    lines = broken(line, width, hang).split("\n")
    assert all(cells(each) <= width for each in lines)
    assert "".join("".join(lines).split()) == "".join(line.split())


def test_a_path_is_broken_behind_a_slash() -> None:
    assert broken("text  /a/long/path/to/a/model.gguf", 16, "      ").split("\n") == [
        "text",
        "      /a/long/",
        "      path/to/a/",
        "      model.gguf",
    ]
    assert broken("  a word", 40) == "  a word"
