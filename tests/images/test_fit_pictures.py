"""Pictures that do not fit the context are cut into fewer tiles, never silently: from Python and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internvl_gguf import ContextOverflowError, Picture, PictureError, SamplingParams, Session
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.images.load import load_image
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.types import PictureLayout
from tests.cli.test_commands import FAST, assert_two_lines, run
from tests.support.pictures import noise

SHORT = SamplingParams(max_tokens=12)
N_CTX = 256
"""Positions that hold the text of these questions and some 30 of the tiny model's tiles of 4 visual tokens."""


@pytest.fixture
def told() -> list[str]:
    """The notices a session gave."""
    return []


@pytest.fixture
def small(tiny: ModelFiles, told: list[str]) -> Iterator[Session]:
    """A conversation with little room."""
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=N_CTX, n_threads=1, on_notice=told.append) as opened:
        yield opened


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Six pictures of 13 tiles each, as arguments of the command."""
    paths = [tmp_path / f"picture {index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        noise(index, 128, 96).save(path)
    return [argument for path in paths for argument in ("-i", str(path))]


def large(count: int) -> list[Image.Image]:
    """Pictures of 13 tiles with the tiny model's tiles of 32 pixels, 4 x 3 and a thumbnail."""
    return [noise(seed, 128, 96) for seed in range(count)]


@pytest.mark.parametrize("layout", ["separate", "combined"])
def test_pictures_too_many_are_cut_evenly_and_the_reply_says_so(
    small: Session, told: list[str], layout: PictureLayout
) -> None:
    reply = small.ask("What is it?", large(6), layout=layout, sampling=SHORT)
    (line,) = told
    assert reply.notices == (line,)
    assert re.fullmatch(
        r"The 6 pictures are cut into \d+ tiles instead of 78 \(max_tiles \d+ instead of 12\), so that they fit the "
        r"context of 256 tokens; a context of \d+ \(n_ctx\) would take them whole, \d+ with 12 tokens for the answer\.",
        line,
    )
    assert reply.usage.tiles == int(re.findall(r"\d+", line)[1]) < 78
    (grid,) = {picture.grid for picture in small.messages[0].pictures}
    assert grid[0] * grid[1] <= int(re.findall(r"\d+", line)[3])
    assert reply.usage.prompt_tokens + SHORT.effective_max_tokens <= N_CTX
    small.runtime.engine.check_integrity()


def test_a_loop_over_pictures_is_told_what_fills_the_context(small: Session, told: list[str]) -> None:
    """`for path in paths: session.ask(...)` is one long conversation; nothing said so, nor what to do instead."""

    def ask_all() -> None:
        for picture in large(99):
            small.ask("Describe it.", picture, sampling=SHORT)

    with pytest.raises(ContextOverflowError) as caught:
        ask_all()
    assert "session.clear()" in caught.value.hint
    assert "session.each() or batch()" in caught.value.hint
    assert "The context holds" in told[-1]
    assert "session.each() or batch()" in told[-1]
    small.clear()
    small.ask("Describe it.", large(6), sampling=SHORT)
    assert "session.clear()" not in told[-1]  # where nothing was asked before


def test_what_the_notice_calls_large_enough_is(tiny: ModelFiles, small: Session, told: list[str]) -> None:
    small.ask("What is it?", large(6), sampling=SHORT)
    enough = int(re.findall(r"a context of (\d+)", told[0])[0])
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=enough, n_threads=1) as whole:
        reply = whole.ask("What is it?", large(6), sampling=SHORT)
    assert reply.notices == ()
    assert reply.usage.tiles == 78
    assert reply.usage.prompt_tokens + 1 == enough, "it said 768 where 420 would do"


def test_pictures_that_fit_are_cut_as_ever(small: Session, told: list[str]) -> None:
    fitted, plain = (
        small._prepare("What is it?", large(2), {"fit_pictures": fit, "sampling": SHORT}) for fit in (True, False)
    )
    assert fitted.spans == plain.spans
    assert told == []
    assert small.ask("What is it?", large(2), sampling=SHORT).notices == ()


def test_a_stream_tells_before_it_answers(small: Session, told: list[str]) -> None:
    stream = small.stream("What is it?", large(6), sampling=SHORT)
    assert len(told) == 1
    *_, last = stream
    assert last.reply is not None
    assert last.reply.notices == tuple(told)
    assert len(told) == 1


def test_limits_of_a_picture_itself_hold(small: Session) -> None:
    plain, wide = large(2)
    pictures = [Picture(plain, max_tiles=1), Picture(wide, min_tiles=12), *large(4)]
    reply = small.ask("What is it?", pictures, sampling=SHORT)
    assert reply.notices
    grids = [picture.grid for picture in small.messages[0].pictures]
    assert grids[:2] == [(1, 1), (4, 3)]
    assert len(set(grids[2:])) == 1
    assert grids[2][0] * grids[2][1] < 12


def test_the_second_question_has_what_the_first_one_left(small: Session, told: list[str]) -> None:
    first = small.ask("What is it?", large(2), sampling=SHORT)
    assert first.notices == ()
    second = small.ask("These?", [noise(8, 128, 96), noise(9, 128, 96)], sampling=SHORT)
    assert second.notices == tuple(told)
    assert second.usage.tiles_encoded < 26
    assert second.usage.cached_tokens >= first.usage.prompt_tokens  # the first pictures stay as they are
    with pytest.raises(ContextOverflowError):
        small.ask("And this?", large(1), sampling=SHORT)
    assert len(small.messages) == 4


def test_thirty_frames_in_a_small_context(tiny: ModelFiles, told: list[str]) -> None:
    """A frame is one tile, and nothing is less: the error says how many there is room for."""
    frames = [noise(seed) for seed in range(30)]
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=448, n_threads=1, on_notice=told.append) as session:
        with pytest.raises(ContextOverflowError) as caught:
            session.ask("What happens?", frames, layout="frames", sampling=SHORT)
        found = re.search(r"(\d+) of the 30 pictures or a context of (\d+) \(n_ctx\)", caught.value.hint)
        assert found, caught.value.hint
        assert session.messages == ()
        fewer = frames[: int(found[1])]
        assert session.ask("What happens?", fewer, layout="frames", sampling=SHORT).usage.tiles == len(fewer)
    assert told == []


def test_frames_of_several_tiles_are_lowered_to_one(tiny: ModelFiles) -> None:
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=768, n_threads=1) as session:
        reply = session.ask("What happens?", large(30), layout="frames", max_tiles=4, sampling=SHORT)
    assert reply.usage.tiles == 30
    assert "30 tiles instead of 150 (max_tiles 3 instead of 4)" in reply.notices[0]


def test_without_fitting_it_is_an_error_with_the_limit_that_fits(small: Session, told: list[str]) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        small.ask("What is it?", large(6), fit_pictures=False)
    cap = int(re.findall(r"at most (\d+) tiles each \(max_tiles\)", caught.value.hint)[0])
    assert told == []
    assert small.ask("What is it?", large(6), max_tiles=cap, fit_pictures=False, sampling=SHORT).notices == ()


def test_text_alone_that_is_too_long_stays_an_error(small: Session) -> None:
    with pytest.raises(ContextOverflowError, match="The prompt takes"):
        small.ask("ab" * 1000)
    with pytest.raises(ContextOverflowError, match="Even with the pictures cut into as few tiles as allowed"):
        small.ask("ab" * 1000, large(1))


def test_every_picture_is_decoded_once(small: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A phone's JPEG takes a second to decode."""
    decoded: list[Image.Image] = []

    def load(source: Image.Image, **options: Any) -> Image.Image:
        decoded.append(source)
        return load_image(source, **options)

    monkeypatch.setattr("internvl_gguf.session.cut_pictures.load_image", load)
    pictures = large(6)
    assert small.ask("What is it?", pictures, sampling=SHORT).notices
    assert decoded == pictures


def test_logprobs_tell_too_and_a_fork_tells_the_same_person(small: Session, told: list[str]) -> None:
    small.next_token_logprobs("What is it?", large(6), sampling=SHORT)
    assert len(told) == 1
    with small.fork() as fork:
        fork.ask("What is it?", large(6), sampling=SHORT)
    assert len(told) == 2


def test_a_question_that_fails_changes_nothing_and_tells_nothing(small: Session, told: list[str]) -> None:
    with pytest.raises(PictureError):
        small.ask("What is it?", [*large(6), b"no picture"])
    assert told == []
    assert small.messages == ()


def test_python_shows_a_notice_on_stderr_where_no_logging_is_set_up(tiny: ModelFiles) -> None:
    """Once, and without llama.cpp's own log, which has warnings of its own."""
    script = (
        "import sys; from PIL import Image; from internvl_gguf import SamplingParams, Session\n"
        "with Session.open(*sys.argv[1:], system='', n_ctx=100, n_threads=1) as session:\n"
        "    session.ask('What?', [Image.new('RGB', (128, 96))] * 2, sampling=SamplingParams(max_tokens=5))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny.text), str(tiny.mmproj)], capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("The 2 pictures are cut into ")
    assert done.stdout == ""


def test_the_demo_model_answers_about_what_it_was_fitted() -> None:
    square = Image.new("RGB", (600, 450), "white")
    square.paste((220, 30, 30), (200, 120, 400, 320))
    with Session.open("demo", n_ctx=384, n_threads=1, on_notice=lambda line: None) as session:
        reply = session.ask("What colour is the square?", [square], sampling=SamplingParams(max_tokens=16))
    assert "instead of 13" in reply.notices[0]
    assert reply.text == "Red."


def test_the_command_says_it_once_on_stderr_ahead_of_the_answer(tiny: ModelFiles, files: list[str]) -> None:
    done = run("ask", tiny.text, "What?", *files, "-c", 384, *FAST)
    assert done.returncode == 0
    assert done.stderr.count("are cut into") == 1
    assert "cut into" not in done.stdout
    verbose = run("ask", tiny.text, "What?", *files, "-c", 384, "-v", *FAST)
    assert verbose.stderr.count("are cut into") == 1


def test_the_document_has_the_notices_too(tiny: ModelFiles, files: list[str]) -> None:
    done = run("ask", tiny.text, "What?", *files, "-c", 384, "--json", *FAST)
    answer = json.loads(done.stdout)
    (line,) = answer["notices"]
    assert in_flags(line) in done.stderr.splitlines()
    assert answer["usage"]["tiles"] < 78


def test_the_command_can_leave_pictures_as_they_are(tiny: ModelFiles, files: list[str]) -> None:
    done = run("ask", tiny.text, "What?", *files, "-c", 384, "--no-fit-pictures")
    assert_two_lines(done)
    assert "--max-tiles" in done.stderr
    assert "--n-ctx" in done.stderr


def test_inspect_comes_to_the_plan_of_ask(tiny: ModelFiles, files: list[str]) -> None:
    """Told the positions of the text, it says the very line that ask says."""
    context = ["-c", 560]
    asked = json.loads(run("ask", tiny.text, "What?", *files, *context, "-n", 300, "-t", 1, "--json").stdout)
    text = asked["usage"]["prompt_tokens"] - 4 * asked["usage"]["tiles"]
    places = 10 * 6
    shown = run("inspect", *files[1::2], "-m", tiny.text, *context, "--prompt-tokens", text - places, "--json")
    facts = json.loads(shown.stdout)
    assert facts["text_tokens"] == text
    assert facts["fitted"]["tiles"] == asked["usage"]["tiles"]
    assert facts["notices"] == asked["notices"] != []
