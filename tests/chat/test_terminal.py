"""`internvl chat` as users see it: a real terminal, real keys, the demo model."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.models.local_files import demo_files
from tests.support.chat_terminal import ALT_ENTER, CTRL_C, CTRL_U, ENTER, PROMPT, TAB, UP, ChatTerminal
from tests.support.clips import clip

EXAMPLE = demo_files().text.with_name("example.png")
FAST = ["-t", "1"]
# Every token of the vocabulary alike: an answer of 2,325 tokens, the same on every machine and long enough to stop it.
BABBLE = ["--temperature", "1e6", "--top-k", "0", "--top-p", "1", "--seed", "521", "--max-tokens", "7000"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder the chat runs in, with conversations of its own."""
    monkeypatch.setenv("INTERNVL_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_user_who_never_read_the_docs(folder: Path) -> None:
    """Two pictures, corrections, leaving, coming back, a file to hand on."""
    shutil.copy(EXAMPLE, folder / "my photo.png")
    shutil.copy(EXAMPLE, folder / "other.png")
    (folder / "broken.png").write_text("no picture")
    with ChatTerminal("demo", *FAST, folder=folder) as terminal:
        terminal.wait(r"^demo, a context of 8,192\..*/help")
        terminal.drop(folder / "my photo.png")
        terminal.type("What number is written?", ENTER)
        terminal.wait(r"^Added my photo.png: 3x3 tiles \+ thumbnail, 360 tokens; [\d,]+ of 8,192 left$")
        terminal.wait(r"^98\n10 tiles (read|cached) · 2 tokens · first after .* · .* tokens/s\n?.*397 of 8,192 used$")
        assert "▀" in terminal.text
        terminal.do("compare broken.png", r"^Error: Cannot use broken.png")
        terminal.wait(r"^> compare broken.png\Z")  # to be corrected
        terminal.type(CTRL_U, "How many shapes are there?", ENTER)
        terminal.wait("used$", 2)
        terminal.do("/undo", r"^Took back: How many shapes")
        terminal.do("/regen", r"^Asked at temperature 0.8", 1)
        terminal.wait("used$", 3)
        terminal.do("/edit", r"^\[1 picture\] > What number is written\?\Z")
        terminal.type(CTRL_U, "What colour is the circle?", ENTER)
        terminal.wait(r"^Red\.$")
        terminal.do("/hlep", r"^There is no command /hlep: did you mean /help\?")
        terminal.do("Is it the same in other.png?", r"^other.png is the same picture as my photo.png \(picture 1\)")
        terminal.wait("used$", 5)
        assert terminal.leave() == 0
        assert "Kept: internvl chat --resume " in terminal.text
    with ChatTerminal("--continue", *FAST, folder=folder) as terminal:
        terminal.wait(
            r"^Going on with \w{6}: What colour is the circle\? \(2 questions\)\.\nIts pictures: my photo.png\.$"
        )
        terminal.wait(r"^> Is it the same in the picture\?$")
        terminal.wait(PROMPT)
        terminal.type(UP)
        terminal.wait(r"^> Is it the same in other.png\?\Z")
        terminal.type(CTRL_U)
        terminal.do("What colour is the square?", r"^\d+ tokens · .* used$")
        terminal.do("/stats", r"(\d+) known, (\d+) read")
        known, read = (int(number) for number in terminal.wait(r"(\d+) known, (\d+) read").groups())
        assert known > 390 > 30 > read, "the saved state answers at once"
        terminal.do("/export talk.md", r"^Written to talk.md, its pictures to talk-pictures\.$")
        terminal.wait(PROMPT)
        assert terminal.leave(CTRL_C, CTRL_C) == 0
    assert "What colour is the square?" in (folder / "talk.md").read_text()


def test_a_clip_is_dropped_into_the_line(folder: Path) -> None:
    """A GIF is given as a clip; a path on the command line and one that is dropped are clips by themselves."""
    (folder / "my film.mp4").write_bytes(clip())
    with ChatTerminal("demo", *FAST, "my film.mp4", folder=folder) as terminal:
        terminal.wait(r"^Added my film\.mp4: 8 frames of 1\.6 s, at 0\.1, 0\.3, ")
        terminal.do("/images remove 1-8", r"^8 pictures removed")
        terminal.do("/frames 2", r"^Of the next clips 2 frames are shown\.")
        terminal.drop(folder / "my film.mp4")
        terminal.type("What happens?", ENTER)
        terminal.wait(r"^Added my film\.mp4: 2 frames of 1\.6 s, at 0\.4, 1\.2 s; 2 tiles")
        terminal.wait(r"2 tiles (read|cached)")
        assert "\u2580" in terminal.text, "a preview in half blocks"
        assert terminal.leave() == 0


def test_ctrl_c_stops_the_answer_and_keeps_it_and_twice_leaves(folder: Path) -> None:
    with ChatTerminal("demo", *FAST, *BABBLE, "--no-history", folder=folder) as terminal:
        terminal.wait(PROMPT)
        terminal.type("Talk.", ENTER)
        terminal.wait(r"^> Talk\.\n\n.*\S.*\n.*\S.*\n")
        terminal.type(CTRL_C)
        terminal.wait(r"^Stopped; what was said is kept\.")
        tokens = int(terminal.wait(r"^([\d,]+) tokens · ")[1].replace(",", ""))
        assert 5 < tokens < 6000
        terminal.wait(PROMPT)
        terminal.type("no question", CTRL_C)  # gives up the line and nothing else, though an answer was stopped before
        terminal.wait(r"^> no question\n>\Z")
        terminal.do("/tokens", r'question "Talk\." with its answer: [\d,]+ tokens')
        terminal.do("/set seed 521", r"^seed is 521\.$")
        terminal.wait(PROMPT)
        terminal.type("Talk.", ENTER)
        terminal.wait(r"^> Talk\.\n\n.*\S.*\n.*\S.*\n", 2)
        assert terminal.leave(CTRL_C, CTRL_C) in (0, 130)


def test_another_quant_goes_on_with_the_conversation(folder: Path) -> None:
    files = demo_files()
    shutil.copy(files.mmproj, folder / "mmproj-F16.gguf")
    for quant in ("BF16", "F16"):  # a copy by another name: what counts here is that another file is loaded
        shutil.copy(files.text, folder / f"tiny-{quant}.gguf")
    with ChatTerminal("tiny-BF16.gguf", EXAMPLE, *FAST, "--no-preview", folder=folder) as terminal:
        terminal.wait("^Added example.png")
        terminal.wait(PROMPT)
        terminal.type("What number is written?", ENTER, "What colour is the circle?", ENTER)  # ahead of the answer
        terminal.wait(r"^98\n[^>]* used\n\n> What colour is the circle\?\n\nRed\.\n[^>]* used$")
        terminal.do("/model :F16", r"^The model is .*tiny-F16.gguf")
        terminal.do("What colour is the circle?", r"^Red\.$", 2)
        terminal.do("/model :Q9_9", r"^Error: ")
        terminal.wait(r"^>\Z")  # not in the line again: what is typed next would be joined to it
        terminal.do("How many shapes are there?", "used$", 4)
        terminal.type("/mod", TAB)
        terminal.wait(r"^> /model\Z")
        assert "▀" not in terminal.text
        assert terminal.leave(CTRL_U, "/bye", ENTER) == 0


def test_forty_columns_wide_characters_and_several_lines(folder: Path) -> None:
    with ChatTerminal("demo", *FAST, folder=folder, columns=40) as terminal:
        terminal.wait(PROMPT)
        terminal.type('"""漢字', ENTER, '漢字"""', ENTER)
        terminal.wait("used$")
        terminal.wait(PROMPT)
        terminal.type("one", ALT_ENTER, "two", ENTER)
        terminal.wait("used$", 2)
        terminal.drop(EXAMPLE)
        terminal.type(ENTER)
        terminal.wait(r"^Added example.png: 3x3 tiles \+$")
        terminal.do("/help", r"^Ctrl-C +Stops the answer; twice\n +leaves, as Ctrl-D\.$")
        terminal.do("/show", "tokens are free")
        words = terminal.text.split("demo, a context")[1]
        assert words.startswith(" of 8,192. Drop a\npicture into the line and ask; /help\nlists the rest.\n")
        assert terminal.leave() == 0


def test_tab_and_ctrl_c_in_a_small_window(folder: Path) -> None:
    """Ctrl-C at "Display all 45 possibilities?" was an unhandled exception of thirty lines."""
    shutil.copy(EXAMPLE, folder / "photo.png")
    with ChatTerminal("demo", *FAST, "--no-preview", folder=folder, columns=60, rows=20) as terminal:
        terminal.wait(PROMPT)
        terminal.type("/", TAB)
        terminal.wait(r"^ /paste +Add the picture in the clipboard\.$")
        assert "/bin" not in terminal.text
        terminal.type(CTRL_C)
        terminal.wait(r"^> /\n>\Z")
        terminal.type("pho", TAB)
        terminal.wait(r"^> photo.png\Z")
        terminal.type(" What number is in pho", TAB)
        terminal.wait(r"^> photo.png What number is in photo.png\Z")
        terminal.type(CTRL_U)
        terminal.do("help", r"^Pictures +/image PATH\.\.\.")
        terminal.wait(PROMPT)
        assert "Exception" not in terminal.text
        assert terminal.leave("exit", ENTER) == 0


@pytest.mark.parametrize("how", ["plain", "dumb", "no_color"])
def test_nothing_is_redrawn_for_who_cannot_see_it(folder: Path, how: str) -> None:
    options = ["--plain"] if how == "plain" else []
    environment: dict[str, Any] = {"dumb": {"TERM": "dumb"}, "no_color": {"NO_COLOR": "1"}}.get(how, {})
    with ChatTerminal("demo", *FAST, *options, folder=folder, **environment) as terminal:
        prompt = r"^You:\Z" if how == "plain" else PROMPT
        terminal.wait(prompt)
        terminal.type(f"What number is written? {EXAMPLE}", ENTER)
        terminal.wait(rf"^{'Answer: ' if how == 'plain' else ''}98\n\(10 tiles (read|cached), 2 tokens, ")
        assert terminal.leave() == 0
        text = terminal.raw.decode()
        assert "▀" not in text
        if how == "plain":
            assert "3 by 3 tiles and a thumbnail" in terminal.text
        if how == "dumb":
            assert "\x1b" not in text.replace("\x1b[?2004h", "").replace("\x1b[?2004l", "")
        if how == "no_color":
            assert "\x1b[3" not in text, "no colours"


def test_a_picture_on_stdin_and_questions_from_the_keyboard(folder: Path) -> None:
    with ChatTerminal("demo", "-", *FAST, folder=folder, piped=EXAMPLE) as terminal:
        terminal.wait("^Added the picture on stdin: 3x3 tiles")
        terminal.do("What number is written?", r"^98$")
        assert terminal.leave() == 0


def run(*arguments: object, stdin: bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    """The chat of a script."""
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", "chat", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
        start_new_session=True,  # without a terminal of its own
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_script_gets_the_answers_and_nothing_else(folder: Path) -> None:
    script = "What number is written?\nWhat colour is the circle?\n"
    done = run("demo", EXAMPLE, *FAST, stdin=script.encode())
    assert (done.returncode, done.stdout) == (0, "98\nRed.\n")
    added = "Added example.png: 3x3 tiles + thumbnail, 360 tokens; 7,815 of 8,192 left\n"
    assert done.stderr == f"{added}> What number is written?\n> What colour is the circle?\n"
    done = run("--continue", *FAST, stdin=b"How many shapes are there?\n/nope\n")
    assert (done.returncode, done.stdout) == (1, "Two.\n")
    assert done.stderr == "> How many shapes are there?\n> /nope\nThere is no command /nope: /help lists them.\n"


def test_a_reader_that_leaves_ends_the_chat_without_a_crash(folder: Path) -> None:
    """The answer was on its way in another thread when `head` closed the pipe."""
    command = [sys.executable, "-m", "internvl_gguf", "chat", "demo", *FAST, *BABBLE]
    script = f"echo Talk. | {shlex.join(command)} 2>errors | head -c 20 >/dev/null; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=folder, check=True)
    assert done.stdout == "1\n"
    assert (folder / "errors").read_text() == "> Talk.\n"


def test_ctrl_c_ends_a_script(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "internvl_gguf", "chat", "demo", *FAST, *BABBLE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"Talk.\nTalk.\nTalk.\n")
        child.stdin.close()
        assert child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert child.stderr is not None
        assert b"Traceback" not in child.stderr.read()


def test_a_folder_that_cannot_be_written_is_told_once(folder: Path) -> None:
    (folder / "file").touch()
    done = run("demo", *FAST, stdin=b"Hello\nHello\n", INTERNVL_DATA=str(folder / "file" / "data"))
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    line, first, second = done.stderr.splitlines()
    assert (first, second) == ("> Hello", "> Hello")
    assert line.startswith("This conversation is not kept.")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.png"], 1, "missing.png"),
        (["no-such-model"], 1, "There is no model"),
        (["demo", "--resume", "zzz"], 1, "There is no conversation"),
        (["demo", "--continue"], 1, "There is no conversation to go on with."),
        (["demo", "--continue", "--resume", "zzz"], 2, "--continue"),
        (["demo", "--temperature", "-1"], 2, "temperature is -1"),
        (["demo", "-"], 1, "there is no terminal"),
    ],
)
def test_what_cannot_be_done_is_told_in_two_lines(folder: Path, arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments, stdin=b"\x89PNG")
    assert done.returncode == code
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("Error: ")
    assert said in first
    assert second.startswith("  ")
