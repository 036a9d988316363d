"""`--think` and its like of `internvl ask` and `--batch`, and what a model without thoughts says to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.cli.test_batch_lines import Run, records, run
from tests.cli.test_commands import assert_two_lines
from tests.support.chain_model import THINKING, write_chain_model

__all__ = ["run"]

THOUGHT, ANSWER = "Hm, red? No.", "Blue."


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The model of a command: one that thinks."""
    folder = tmp_path_factory.mktemp("thoughtful")
    chain = ("<think>", "\t", THOUGHT, "\r", "</think>", " ", "Blue", ".")
    files = write_chain_model(folder, chain, **THINKING)
    return [files.text, "--mmproj", files.mmproj, "-t", 1, "--n-ctx", 1024, "--temp", 0]


def test_the_answer_alone_goes_to_stdout(run: Run, thoughtful: list[object]) -> None:
    done = run("ask", *thoughtful, "-p", "What color?", "--think")
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n")
    assert THOUGHT not in done.stderr
    assert f"Thought: {THOUGHT}" in run("ask", *thoughtful, "-p", "What color?", "--think", "-v").stderr


def test_json_and_batch_have_the_thought(run: Run, thoughtful: list[object], tmp_path: Path) -> None:
    found = json.loads(run("ask", *thoughtful, "-p", "What color?", "--think", "--json").stdout)
    assert (found["text"], found["thinking"], found["usage"]["thinking_tokens"]) == (ANSWER, THOUGHT, 6)
    lines = tmp_path / "lines.jsonl"
    lines.write_text(
        '{"prompt": "What color?", "thinking": true}\n'
        '{"prompt": "What color?", "thinking": true, "thinking_budget": 2, "choices": ["red"]}\n'
    )
    first, second = records(run("ask", *thoughtful, "--batch", lines).stdout)
    assert (first["text"], first["thinking"]) == (ANSWER, THOUGHT)
    assert (second["parsed"], second["thinking"]) == ("red", "")


def test_a_thought_that_takes_the_whole_answer_is_said(run: Run, thoughtful: list[object]) -> None:
    done = run("ask", *thoughtful, "-p", "What color?", "--think", "--max-tokens", 3)
    assert done.stdout.strip() == ""
    (line,) = [line for line in done.stderr.splitlines() if "thought" in line]
    assert "--max-tokens" in line
    assert "--thinking-budget" in line


def test_a_model_that_cannot_think_is_two_lines(run: Run, tiny: ModelFiles) -> None:
    model = [tiny.text, "--mmproj", tiny.mmproj, "-t", 1, "--n-ctx", 1024]
    done = run("ask", *model, "-p", "What color?", "--think")
    assert_two_lines(done)
    assert "cannot think" in done.stderr
    assert run("ask", *model, "-p", "What color?", "--no-think", "-n", 3).returncode == 0


@pytest.mark.parametrize("wish", [["--think"], ["--thinking-budget", "50"]])
@pytest.mark.parametrize("command", [["chat"], ["serve", "--port", 0], ["ask", "--batch", "-"]])
def test_no_command_starts_with_a_wish_that_the_model_cannot_have(
    run: Run, command: list[object], wish: list[str]
) -> None:
    """`chat` loaded the model and failed at the first question, `serve` answered as if nothing had been asked."""
    model = ["-m", "demo"] if command[0] == "ask" else ["demo"]
    done = run(*command, *model, *wish, stdin=b'{"prompt": "What is red?"}\n')
    assert_two_lines(done)
    assert done.stderr.startswith("Error: demo cannot think")
    assert "Leave out --think and any --thinking-budget" in done.stderr
    assert "Serving" not in done.stderr


def test_wishes_that_contradict_each_other_are_wrong_usage(run: Run) -> None:
    for wishes in (["--no-think", "--thinking-budget", 100], ["--think", "--no-think"]):
        done = run("ask", "demo", "What is red?", *wishes)
        assert_two_lines(done, code=2)
        assert "--no-think" in done.stderr
    assert run("ask", "demo", "-p", "--no-think", "--think").stderr.startswith("Error: demo cannot think")


def test_a_wrong_budget_is_refused(run: Run, thoughtful: list[object]) -> None:
    done = run("ask", *thoughtful, "-p", "What color?", "--thinking-budget", 0)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    assert "--thinking-budget is 0" in done.stderr
