"""Pictures that come through pipes and on stdin, and those that a question names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import Session
from internvl_gguf.cli.prompt_pictures import find_pictures
from internvl_gguf.demo.__main__ import EXAMPLE
from internvl_gguf.errors import PictureError
from internvl_gguf.history import History
from internvl_gguf.images.load import check_source, take_source
from internvl_gguf.models.resolve import ModelFiles
from tests.cli.test_commands import FAST, assert_two_lines, run
from tests.support.kept import SHORT, ask
from tests.support.pictures import noise

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")


@contextmanager
def pipe_of(data: bytes, path: Path) -> Iterator[Path]:
    """A named pipe that gives its bytes to its first reader, and no second one anything."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    yield path
    writer.join()


@pytest.fixture
def expected(tiny: ModelFiles, photo: Path) -> str:
    """The answer about the photo where it is a file."""
    done = run("ask", tiny.text, "What is it?", "-i", photo, *FAST)
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_a_picture_comes_on_stdin(name: str, tiny: ModelFiles, photo: Path, expected: str) -> None:
    """A pipe was read to see whether there is a picture, and empty when the picture was wanted."""
    done = run("ask", tiny.text, "What is it?", "-i", name, *FAST, stdin=photo.read_bytes())
    assert (done.returncode, done.stdout) == (0, expected)


@needs_pipes
def test_a_picture_comes_through_a_pipe(tiny: ModelFiles, photo: Path, expected: str, tmp_path: Path) -> None:
    with pipe_of(photo.read_bytes(), tmp_path / "pipe") as pipe:
        done = run("ask", tiny.text, "What is it?", "-i", pipe, *FAST)
    assert (done.returncode, done.stdout) == (0, expected)
    command = [sys.executable, "-m", "internvl_gguf", "ask", tiny.text, "What is it?", *FAST]
    done = subprocess.run(
        ["bash", "-c", f"\"$@\" -i <(cat '{photo}')", "bash", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_stdin_named_twice_is_one_picture_twice(tiny: ModelFiles, photo: Path) -> None:
    done = run("ask", tiny.text, "?", "-i", "-", "-i", "-", "--json", *FAST, stdin=photo.read_bytes())
    assert json.loads(done.stdout)["usage"]["images"] == 2


@pytest.mark.parametrize("question", [[], ["-"]])
def test_stdin_does_not_give_both_a_picture_and_the_question(question: list[str], photo: Path) -> None:
    done = run("ask", "demo", *question, "-i", "-", stdin=photo.read_bytes())
    assert_two_lines(done, code=2)
    assert "cannot both come on stdin" in done.stderr.replace("\n  ", " ")


def test_an_empty_stdin_is_no_picture() -> None:
    for arguments in (["ask", "demo", "What?", "-i", "-"], ["inspect", "-"]):
        done = run(*arguments)
        assert_two_lines(done)
        assert "the picture on stdin: it is empty" in done.stderr


@needs_pipes
def test_inspect_reads_a_pipe_once_and_draws_it(photo: Path, tmp_path: Path) -> None:
    saved = tmp_path / "grid.png"
    with pipe_of(photo.read_bytes(), tmp_path / "pipe") as pipe:
        done = run("inspect", pipe, "--save", saved)
    assert done.returncode == 0, done.stderr
    assert saved.is_file()
    assert json.loads(run("inspect", "-", "--json", stdin=photo.read_bytes()).stdout)["width"] == 64


@needs_pipes
def test_a_chat_takes_a_picture_through_a_pipe(tiny: ModelFiles, photo: Path, tmp_path: Path) -> None:
    """The first argument of a chat may be a picture, and a pipe is no model."""
    with pipe_of(photo.read_bytes(), tmp_path / "pipe") as pipe:
        done = run("chat", pipe, *FAST, stdin=b"What is it?\n", INTERNVL_MODEL=str(tiny.text))
    assert done.returncode == 0, done.stderr
    with pipe_of(photo.read_bytes(), tmp_path / "again") as pipe:
        again = run("chat", tiny.text, *FAST, stdin=f"/image {pipe}\nWhat is it?\n".encode())
    assert (again.returncode, again.stdout) == (0, done.stdout)


@needs_pipes
def test_python_takes_a_pipe(session: Session, history: History, photo: Path, tmp_path: Path) -> None:
    expected = session.ask("What is it?", images=[photo], sampling=SHORT).text
    session.clear()
    with pipe_of(photo.read_bytes(), tmp_path / "pipe") as pipe:
        assert session.ask("What is it?", images=[pipe], sampling=SHORT).text == expected
    session.clear()
    with pipe_of(photo.read_bytes(), tmp_path / "kept") as pipe:
        assert ask(history.begin("tiny", "Be brief."), session, "What is it?", [pipe]) == expected


@needs_pipes
def test_a_pipe_is_taken_once_and_not_looked_at(photo: Path, tmp_path: Path) -> None:
    with pipe_of(photo.read_bytes(), tmp_path / "pipe") as pipe:
        with pytest.raises(PictureError, match="can be read only once"):
            check_source(pipe)
        assert take_source(pipe).source == photo.read_bytes()
    assert take_source(photo).source == photo


@needs_pipes
@pytest.mark.parametrize(
    "arguments", [["bench", "demo:Q8_0", "--text"], ["quantize", "demo", "Q4_K_M", "OUTPUT", "--calibrate"]]
)
def test_what_is_read_more_than_once_is_no_pipe(arguments: list[str], tmp_path: Path) -> None:
    with pipe_of(b"A text. " * 4096, tmp_path / "pipe") as pipe:
        arguments = [str(tmp_path / "out.gguf") if each == "OUTPUT" else each for each in arguments]
        done = run(*arguments, pipe)
        pipe.read_bytes()
    assert_two_lines(done)
    assert "can be read only once" in done.stderr


def test_a_picture_that_the_question_names_is_attached(tiny: ModelFiles, photo: Path, expected: str) -> None:
    """The model answered about a picture that it never saw, as if it had."""
    done = run("ask", tiny.text, f"'{photo}' What is it?", *FAST)
    assert (done.returncode, done.stdout) == (0, expected)
    assert f"Attached {photo}" in done.stderr
    told = json.loads(run("ask", tiny.text, f"'{photo}' What is it?", "--json", *FAST).stdout)
    assert (told["prompt"], told["images"]) == ("What is it?", [str(photo)])


@pytest.mark.parametrize("by_name", [True, False])
def test_a_picture_is_not_attached_twice(tiny: ModelFiles, photo: Path, by_name: bool) -> None:
    question = f"What is in '{photo.name if by_name else photo}'?"
    told = json.loads(run("ask", tiny.text, question, "-i", photo, "--json", *FAST).stdout)
    assert (told["prompt"], told["images"]) == ("What is in the picture?", [str(photo)])


def test_the_demo_model_answers_about_a_picture_that_its_question_names(tmp_path: Path) -> None:
    """It knows no file names: "What number is written in photo.png?" had it say that it cannot tell."""
    shutil.copy(EXAMPLE, tmp_path / "photo.png")
    done = run("ask", "demo", f"What number is written in {tmp_path / 'photo.png'}?")
    assert (done.returncode, done.stdout) == (0, "98\n")


def test_a_named_picture_may_stay_text(tiny: ModelFiles, photo: Path) -> None:
    question = f"What is in '{photo}'?"
    environments: list[dict[str, Any]] = [{}, {"INTERNVL_ASK_PROMPT_PICTURES": "0"}]
    for environment in environments:
        switch = [] if environment else ["--no-prompt-pictures"]
        told = json.loads(run("ask", tiny.text, question, *switch, "--json", *FAST, **environment).stdout)
        assert (told["prompt"], told["images"]) == (question, [])


def test_text_from_a_pipe_opens_no_file(tiny: ModelFiles, photo: Path) -> None:
    question = f"What is in '{photo}'?"
    told = json.loads(run("ask", tiny.text, "--json", *FAST, stdin=question.encode()).stdout)
    assert (told["prompt"], told["images"]) == (question, [])


@pytest.mark.parametrize(
    "question", ["What is in ./missing.png?", "/tmp/no/such.jpg What is it?", "what's in nothere.png"]
)
def test_a_named_picture_that_is_missing_is_told(question: str) -> None:
    done = run("ask", "demo", question)
    assert_two_lines(done)
    assert "there is no such file" in done.stderr
    assert "--no-prompt-pictures" in done.stderr


@pytest.mark.parametrize("question", ["What is a .png?", "Which is smaller, .png or .jpg?", "What is foo.txt?"])
def test_a_kind_of_file_is_no_picture(question: str) -> None:
    found = find_pictures(question, [])
    assert (found.question, found.paths, found.hints) == (question, (), ())


def test_a_picture_among_the_words_is_attached_and_alone_is_no_question(tmp_path: Path) -> None:
    """A picture as the only argument was taken for a model's name, and nothing was said of the picture."""
    plain = tmp_path / "plain.png"
    noise(1).save(plain)
    for arguments in (["demo", plain], [plain]):
        done = run("ask", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("Attached ")
        assert "the question is empty" in done.stderr
    done = run("ask", "demo", plain, "What is it?", "--json", *FAST)
    assert json.loads(done.stdout)["usage"]["images"] == 1


def test_pictures_in_a_question_are_read_as_the_chat_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b c.png"):
        noise(1).save(name)
    found = find_pictures('Compare ./a.png with "b c.png", please.', [])
    assert (found.question, found.paths) == (
        "Compare picture 1 with picture 2, please.",
        (Path("a.png"), Path("b c.png")),
    )
    found = find_pictures("Compare ./a.png with 'b c.png'.", ["-", "a.png"])
    assert (found.question, found.paths) == ("Compare picture 2 with picture 3.", (Path("b c.png"),))


def test_a_sentence_that_names_a_picture_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "Compare photo.png and other.jpg." reached the model as "Compare and."."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "other.jpg"):
        noise(1).save(name)
    assert find_pictures("Compare photo.png and other.jpg.", []).question == "Compare picture 1 and picture 2."
    assert find_pictures("Is photo.png, my picture, red?", []).question == "Is the picture, my picture, red?"
    assert find_pictures("photo.png What is it?", []).question == "What is it?"
