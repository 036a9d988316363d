"""Several answers to a question in the chat: their progress, the reason below the answer, Ctrl-C, and servers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.chat.remote.address import Address
from internvl_gguf.chat.remote.received import ReceivedAnswer, progress_event
from internvl_gguf.chat.remote.remote_model import RemoteModel
from internvl_gguf.chat.remote.server import ModelServer, ServedModel
from internvl_gguf.chat.settings import Settings
from internvl_gguf.chat.show_answer import AnswersWritten
from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.models.resolve import ModelFiles
from tests.support.chat_terminal import CTRL_C, ENTER, PROMPT, ChatTerminal
from tests.support.served import EXAMPLE, Served

needs_a_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


@needs_a_terminal
def test_the_reason_stands_below_the_answer(tmp_path: Path) -> None:
    with ChatTerminal("demo", EXAMPLE, "-t", 1, folder=tmp_path, columns=100, INTERNVL_DATA=str(tmp_path)) as terminal:
        terminal.do("/set best_of 3", r"^best_of is 3\.")
        terminal.do("How many shapes are there?", r"^\s*Two\.")
        terminal.wait(r"[23] of 3 agree.*token")
        terminal.do("/stats", r"chosen +[23] of 3 agree.*, of 3 answers")
        terminal.do("/set judge certainty", r"^judge is certainty\.")
        terminal.do("How many shapes are there?", r"certainty \d+\.\d\d, \d of 3 agree")
        terminal.do("/set best_of 0", r"Error: best_of is 0\.")
        terminal.do("/set best_of many", r"Error: best_of is 'many'\.")
        terminal.do("/set temperature 0", r"Error: With temperature 0 all 3 answers would be equal\.")
        terminal.do("/set judge jury", r"Error: jury is no judge: There is no model 'jury'\.")
        assert terminal.leave() == 0


@needs_a_terminal
def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path) -> None:
    options = ["-t", 1, "-c", 4096, "--best-of", 128, "--judge", "certainty", "--temp", 1.5, "--top-p", 1, "--seed", 3]
    with ChatTerminal("demo", EXAMPLE, *options, folder=tmp_path, columns=120, INTERNVL_DATA=str(tmp_path)) as terminal:
        terminal.wait(PROMPT)
        terminal.wait("Added")
        terminal.type("What is in the picture?", ENTER)
        terminal.wait(r"[1-9]\d* of 128 answers, [\d,]+ tokens")
        terminal.type(CTRL_C)
        terminal.wait(r"certainty \d+\.\d\d, \d+ of 128 agree \(.*unfinished\)")
        terminal.do("/stats", r"ended by the model")
        assert terminal.leave() == 0


@needs_a_terminal
def test_a_critic_judges_in_the_chat(tiny: ModelFiles, tmp_path: Path) -> None:
    model = [tiny.text, "--mmproj", tiny.mmproj, "-t", 1, "-c", 512, "-n", 6, "--temp", 1.5, "--top-p", 1]
    with ChatTerminal(*model, folder=tmp_path, columns=120, INTERNVL_DATA=str(tmp_path)) as terminal:
        terminal.do("/set best_of 2", "best_of is 2")
        terminal.do(f"/set judge {tiny.text}", "judge is")
        terminal.do("What?", r"critic [01]\.\d\d")
        terminal.do("And now?", r"critic [01]\.\d\d", times=2)
        assert terminal.leave() == 0


@needs_a_terminal
def test_our_server_judges_for_a_chat(demo: Served, tmp_path: Path) -> None:
    with ChatTerminal(
        "--url", demo.url, EXAMPLE, folder=tmp_path, columns=120, INTERNVL_DATA=str(tmp_path)
    ) as terminal:
        terminal.do("/set best_of 3", r"^best_of is 3\.")
        terminal.do("How many shapes are there?", r"^\s*Two\.")
        terminal.wait(r"[23] of 3 agree")
        assert terminal.leave() == 0


def piped(*arguments: object, stdin: str = "", folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a chat whose lines come from a pipe."""
    command = [sys.executable, "-m", "internvl_gguf", "chat", *map(str, arguments), "--no-history"]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=folder, timeout=120, check=False)


def test_a_chat_does_not_begin_with_a_judge_that_is_none(tmp_path: Path) -> None:
    """It began, and the first question failed."""
    done = piped("demo", "--best-of", 4, "--judge", "foo", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first == "Error: foo is no judge: There is no model 'foo'."
    assert second.startswith("  vote and certainty are judges, too. `internvl list --catalog` shows the names")


def test_a_chat_with_a_server_does_not_begin_with_a_critic(tmp_path: Path) -> None:
    done = piped("--url", "http://127.0.0.1:9", "--judge", "demo", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "Error: The server does not judge by demo.",
        "  Give --judge vote or certainty.",
    ]


def model(*, is_ours: bool) -> RemoteModel:
    server = ModelServer(Address.of("http://127.0.0.1:9"))
    return RemoteModel(server, ServedModel("one", is_ours=is_ours), print)


def test_another_server_is_not_asked_for_several() -> None:
    settings = Settings().changed("best_of", "4")
    with pytest.raises(InvalidRequestError, match="no `internvl serve`") as refused:
        model(is_ours=False).ask_options(settings)
    assert "/set best_of 1" in refused.value.hint
    assert not {"best_of", "judge"} & model(is_ours=False).ask_options(settings.changed("best_of", "1")).keys()


def test_a_server_judges_by_names_and_the_chat_says_what_to_type() -> None:
    """It said "Give 'vote' or 'certainty', a Critic, or a function.", which are Python's words."""
    for is_ours in (True, False):
        with pytest.raises(InvalidRequestError, match=r"^The server does not judge by demo\.") as refused:
            model(is_ours=is_ours).check_judge(SamplingParams(judge="demo"))
        assert refused.value.hint == "Type /set judge vote or /set judge certainty."
    model(is_ours=True).check_judge(SamplingParams(judge="certainty", best_of=4))


def test_our_server_decides_how_they_differ_unless_the_user_does() -> None:
    settings = Settings(SamplingParams(best_of=4, judge="certainty"))
    asked = model(is_ours=True).ask_options(settings)
    assert (asked["best_of"], asked["judge"]) == (4, "certainty")
    assert "temperature" not in asked
    assert model(is_ours=True).ask_options(settings.changed("temperature", "0.9"))["temperature"] == 0.9


def test_what_a_server_says_of_its_choice_is_read_with_care() -> None:
    answer = ReceivedAnswer()
    candidates = [{"text": "Two.", "score": 1.0}, {"text": 5, "score": "high"}]
    chosen = {"best": 0, "confidence": 7, "reason": "2 of 2\x1b[31m agree", "candidates": candidates}
    answer.take({"choices": [{"delta": {"content": "Two."}, "finish_reason": "stop"}], "selection": chosen})
    selection = answer.reply().selection
    assert selection is not None
    assert (selection.confidence, len(selection.candidates)) == (1.0, 2)
    assert "\x1b" not in selection.reason
    nonsense: list[Any] = [None, [], {"reason": 5, "candidates": []}, {"reason": "so", "candidates": "many"}]
    for wrong in nonsense:
        other = ReceivedAnswer()
        other.take({"choices": [], "selection": wrong})
        assert other.reply().selection is None
    progress = progress_event({"progress": {"phase": "answering", "done": 2, "total": 3}})
    assert progress == AnswersWritten(2, 3)
