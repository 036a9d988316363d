"""What users of other runtimes type: done where the meaning is clear, else told with the right way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from internvl_gguf.chat.settings import Settings
from internvl_gguf.cli.ask_words import split_arguments
from internvl_gguf.errors import ModelFileError
from internvl_gguf.models.catalog import Catalog, load_catalog, parse_catalog
from internvl_gguf.models.names import HubModel, parse_model_name
from tests.cli.test_commands import assert_two_lines

EXAMPLE = Path(__file__).parents[2] / "src/internvl_gguf/demo/example.png"
QUESTION = "What number is written?"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "internvl_gguf", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "demo", str(EXAMPLE), QUESTION),
        ("ask", "-m", "demo", "-p", QUESTION, "-i", str(EXAMPLE)),
        ("run", "demo", QUESTION, str(EXAMPLE)),
    ],
)
def test_one_question_in_the_ways_people_ask_it(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (0, "98\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "model", "prompt", "meant"),
    [
        (["demo", "Why?"], None, None, ("demo", "Why?")),
        (["Why?"], "demo", None, ("demo", "Why?")),
        (["demo"], None, "Why?", ("demo", "Why?")),
        ([], "demo", "Why?", ("demo", "Why?")),
        (["demo", "-"], None, None, ("demo", None)),
        (["demo"], None, None, ("demo", None)),
        (["Why?"], None, None, (None, "Why?")),
    ],
)
def test_model_and_question_by_place_or_by_flag(
    words: list[str], model: str | None, prompt: str | None, meant: tuple[str | None, str | None]
) -> None:
    assert split_arguments(words, model, prompt) == meant


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ps",), "`internvl list` shows the models that are here"),
        (("ask", "demo", "-", "-i", "-"), "cannot both come on stdin"),
        (("ask", "./missing.png", "What?"), "there is no file ./missing.png"),
    ],
)
def test_what_is_not_there_is_named_with_the_right_way(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("typed", "model", "quant"),
    [
        ("internvl3:14b", "InternVL3-14B-Instruct", None),
        ("InternVL3:8b-q4_K_M", "InternVL3-8B-Instruct", "q4_K_M"),
    ],
)
def test_a_size_behind_the_colon_is_that_model_of_the_family(typed: str, model: str, quant: str | None) -> None:
    found = parse_model_name(typed, load_catalog())
    assert isinstance(found, HubModel)
    assert found.spec is not None
    assert (found.spec.name, found.wanted) == (model, quant)


def test_no_suggestion_is_a_model_that_does_not_run() -> None:
    known = parse_catalog(b'[[model]]\nname = "InternVL3-9Z"\nunsupported = "It is too new."', "models.toml")
    catalog = Catalog((*known, *load_catalog()))
    with pytest.raises(ModelFileError, match=r"InternVL3-9Z does not run here: it is too new\."):
        parse_model_name("InternVL3-9Z", catalog)
    with pytest.raises(ModelFileError) as caught:
        parse_model_name("internvl3-9y", catalog)
    assert "InternVL3-9Z" not in caught.value.hint
    assert "Did you mean InternVL3-" in caught.value.hint


@pytest.mark.parametrize("command", ["ps", "stop", "generate", "search", "help", "version"])
def test_commands_of_other_runtimes_say_what_to_do(command: str) -> None:
    """It said "Invalid value for ps", and to see the help of a command that there is none of."""
    done = run(command)
    assert_two_lines(done, code=2)
    assert done.stderr.startswith(f"Error: There is no command {command}: ")
    assert f"internvl {command}" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["ask", "demo", "hello", "world", "again"], 'Put the question in quotes: "hello world again"'),
        (["ask", "hello", "world", "again"], 'Put the question in quotes: "hello world again"'),
        (["chat", "demo", "What is it?"], "Type it at the prompt, or use ask."),
        (["chat", "What is it?"], "Type it at the prompt, or use ask."),
        (["chat", "-p", "What?"], "Type it at the prompt, or use ask."),
        (["completion"], "See internvl completion --help."),
    ],
)
def test_a_question_in_the_wrong_place_is_told_in_two_lines(arguments: list[str], hint: str) -> None:
    done = run(*arguments)
    assert_two_lines(done, code=2)
    assert done.stderr.splitlines()[1].strip() == hint


def test_names_of_llama_cpp_are_known() -> None:
    flags = ["--temp", "0", "--ctx-size", "1000", "--n-predict", "5", "--ngl", "0"]
    assert run("ask", "demo", "Hello?", *flags).returncode == 0
    assert Settings().changed("temp", "1").sampling.temperature == 1


def test_the_speed_of_a_short_answer_is_not_told() -> None:
    """One token came "at 0.0/s"."""
    done = run("ask", "demo", QUESTION, "-i", str(EXAMPLE), "-v", "-n", "1")
    assert "; 1 token\n" in done.stderr
    assert "/s" not in done.stderr
