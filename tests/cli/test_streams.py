"""Standard streams that are closed, full or of few characters: an answer arrives, or two lines say why it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.support.pictures import noise

INTERNVL = [sys.executable, "-m", "internvl_gguf"]
FAST = ["-t", "1", "-n", "8"]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shells of POSIX close streams")


def shell(redirection: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does with this redirection after it."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *INTERNVL, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environment},
        check=False,
    )


def assert_two_lines(stderr: str, *parts: str) -> None:
    lines = stderr.splitlines()
    assert len(lines) == 2, stderr
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in stderr


@pytest.fixture
def asked(tiny: ModelFiles, photo: Path) -> list[object]:
    """A question about a picture, as arguments."""
    return ["ask", tiny.text, "What is it?", "-i", photo, *FAST]


def test_an_answer_needs_neither_stdin_nor_stderr(asked: list[object]) -> None:
    """`2>&-` ended with code 1 without a word: the next file that was opened got the number of stderr."""
    answer = shell("", *asked)
    assert answer.returncode == 0
    for redirection in ("2>&-", "<&-", "<&- 2>&-", "2>/dev/full"):
        done = shell(redirection, *asked)
        assert (done.returncode, done.stdout) == (0, answer.stdout), redirection


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "demo", "What?"],
        ["ask", "demo", "What?", "--json"],
        ["ask", "demo", "--batch", "-"],
        ["chat", "demo"],
        ["bench", "demo:Q8_0"],
        ["inspect", "PHOTO"],
        ["inspect", "PHOTO", "--json"],
        ["pick", "demo"],
        ["list", "--catalog"],
        ["show", "demo"],
        ["cache"],
        ["doctor"],
        ["completion", "bash"],
        ["--help"],
        ["--version"],
        ["ask", "--help"],
    ],
    ids=" ".join,
)
def test_a_closed_stdout_is_told_in_two_lines(arguments: list[str], photo: Path) -> None:
    """`>&-` ended in an AttributeError, after the model had answered."""
    done = shell(">&- </dev/null", *[photo if each == "PHOTO" else each for each in arguments])
    assert done.returncode == 1
    assert_two_lines(done.stderr, "stdout is closed")


def test_a_closed_stdout_is_no_matter_where_nothing_is_written_there(tiny: ModelFiles, tmp_path: Path) -> None:
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text('{"prompt": "What?"}\n')
    done = shell(">&- <&-", "ask", tiny.text, "--batch", questions, "--output", answers, *FAST)
    assert done.returncode == 0, done.stderr
    assert json.loads(answers.read_text())["line"] == 1


def test_everything_closed_ends_with_a_code(asked: list[object]) -> None:
    done = shell("<&- >&- 2>&-", *asked)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_closed_stdin_is_an_empty_one(tiny: ModelFiles) -> None:
    done = shell("<&-", "ask", tiny.text, "-")
    assert done.returncode == 2
    assert_two_lines(done.stderr, "the question is empty")
    assert shell("<&-", "chat", tiny.text, *FAST).returncode == 0


def test_an_error_that_cannot_be_told_still_has_its_code() -> None:
    assert shell("2>/dev/full", "ask", "no-such-model", "What?").returncode == 1


@pytest.fixture
def japanese(tmp_path: Path) -> Path:
    """A picture with a name that few encodings have."""
    path = tmp_path / "日本 café.png"
    noise(1).save(path)
    return path


@pytest.mark.parametrize(
    ("encoding", "shown"), [("cp1252", "?? café.png"), ("gbk", "日本 café.png"), ("iso8859-1", "?? café.png")]
)
def test_what_an_encoding_lacks_is_replaced_and_said(encoding: str, shown: str, japanese: Path) -> None:
    """A character that the encoding of stdout lacks lost the whole answer in a UnicodeEncodeError."""
    done = subprocess.run(
        [*INTERNVL, "inspect", japanese],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.decode(encoding).splitlines()[0] == f"{japanese.parent}/{shown}: 64 x 48 pixels"
    expected = f"Characters that {encoding} lacks were written as ?. PYTHONUTF8=1 writes them all.\n"
    assert done.stderr.decode() == (expected if "?" in shown else "")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk"])
def test_json_loses_nothing_in_any_encoding(encoding: str, japanese: Path, tiny: ModelFiles) -> None:
    question = "日本, café, 😀?"
    for arguments in (["inspect", japanese, "--json"], ["ask", tiny.text, question, "-i", japanese, "--json", *FAST]):
        done = subprocess.run(
            [*INTERNVL, *map(str, arguments)],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=True,
        )
        found = json.loads(done.stdout.decode(encoding))
        assert str(japanese) in (found.get("image"), *found.get("images", ()))
        assert found.get("prompt", question) == question


def test_a_name_that_is_not_utf8_is_shown(tmp_path: Path) -> None:
    """Half a surrogate pair, as Python reads such a name, is in no encoding."""
    path = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        Path(os.fsdecode(path)).touch()
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    noise(1).save(os.fsdecode(path), "PNG")
    done = subprocess.run([*INTERNVL, "inspect", path], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(os.fsencode(tmp_path) + rb"/\udcff.png: 64 x 48 pixels")
    done = subprocess.run([*INTERNVL, "inspect", "--json", path], capture_output=True, check=True)
    assert json.loads(done.stdout)["image"] == os.fsdecode(path)
