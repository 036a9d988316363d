"""`internvl ask --schema` and its like: the answer in the form that was asked for, or an exit code that says so."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.cli.test_batch_lines import Run, records, run
from tests.cli.test_commands import assert_two_lines

__all__ = ["run"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"drink": {"enum": ["tea", "soup"], "description": "what is in the cup"}, "hot": {"type": "boolean"}},
    "required": ["drink", "hot"],
}


@pytest.fixture
def model(tiny: ModelFiles) -> list[object]:
    return [tiny.text, "--mmproj", tiny.mmproj, "-t", 1, "--n-ctx", 1024]


def test_a_schema_from_a_file_as_json_and_as_keys(run: Run, model: list[object], tmp_path: Path) -> None:
    file = tmp_path / "a schema.json"
    file.write_text(json.dumps(SCHEMA))
    for given in (file, json.dumps(SCHEMA)):
        done = run("ask", *model, "-p", "What is it?", "--schema", given)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["drink"] in ("tea", "soup")
        assert isinstance(answer["hot"], bool)
    done = run("ask", *model, "-p", "What is it?", "--schema", "hot bool, round bool")
    assert list(json.loads(done.stdout)) == ["hot", "round"]


def test_json_has_the_value(run: Run, model: list[object]) -> None:
    done = run("ask", *model, "-p", "What is it?", "--schema", json.dumps(SCHEMA), "--json")
    found = json.loads(done.stdout)
    assert found["parsed"] == json.loads(found["text"])


@pytest.mark.parametrize("given", ["tea,soup", "tea, soup", '["tea", "soup"]'])
def test_choices(run: Run, model: list[object], given: str) -> None:
    assert run("ask", *model, "-p", "Which?", "--choices", given).stdout in ("tea\n", "soup\n")


def test_a_choice_with_a_comma(run: Run, model: list[object]) -> None:
    assert run("ask", *model, "-p", "Which?", "--choices", '["yes, it is"]').stdout == "yes, it is\n"


def test_a_regular_expression_and_a_grammar(run: Run, model: list[object], tmp_path: Path) -> None:
    assert run("ask", *model, "-p", "Which?", "--regex", "[ab]{3}").stdout.strip("ab") == "\n"
    file = tmp_path / "grammar.gbnf"
    file.write_text('root ::= "x" [yz]\n')
    assert run("ask", *model, "-p", "Which?", "--grammar", file).stdout in ("xy\n", "xz\n")
    assert run("ask", *model, "-p", "Which?", "--grammar", 'start: "x" ("y" | "z")').stdout in ("xy\n", "xz\n")


def test_an_answer_that_was_cut_off_is_a_failure(run: Run, model: list[object]) -> None:
    done = run("ask", *model, "-p", "What is it?", "--schema", json.dumps(SCHEMA), "-n", 3)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "The answer ended before its form was complete, so there is no parsed value.",
        "The answer was cut at its limit; raise it with --max-tokens, or the context with --n-ctx.",
    ]
    done = run("ask", *model, "-p", "What is it?", "--schema", json.dumps(SCHEMA), "--stop", "drink")
    assert done.returncode == 1
    assert "stop string" in done.stderr


def test_a_schema_that_fills_the_context_is_named(run: Run, model: list[object]) -> None:
    keys = ", ".join(f"a_long_name_of_a_key_{number}" for number in range(100))
    done = run("ask", *model, "-p", "What is it?", "--schema", keys)
    assert_two_lines(done, code=1)
    assert "The form of the answer takes" in done.stderr
    assert "(--no-format-in-prompt)" in done.stderr
    shorter = run("ask", *model, "-p", "What is it?", "--schema", keys, "--no-format-in-prompt", "-n", 1)
    assert "The answer was cut at its limit" in shorter.stderr


def test_null_is_a_value(run: Run, model: list[object]) -> None:
    done = run("ask", *model, "-p", "What is it?", "--schema", '{"type": "null"}')
    assert (done.returncode, done.stdout) == (0, "null\n")


@pytest.mark.parametrize("option", ["--schema", "--grammar"])
def test_a_file_that_cannot_be_used_is_named_as_what_it_is(run: Run, photo: Path, tmp_path: Path, option: str) -> None:
    """It is a failure, as with a picture or a model that is not there: 2 is for what no file could make right."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.json").write_text("{" if option == "--schema" else "start: nothing")
    for name, told in (
        (photo, f"{photo} is a picture, not text."),
        (tmp_path / "folder", "folder is a folder."),
        (tmp_path / "none.json", "There is no file"),
        (tmp_path / "none", "There is no file"),
        (tmp_path / "broken.json", f"{tmp_path / 'broken.json'}: The "),
    ):
        done = run("ask", "there/is/none.gguf", "What is it?", option, name)
        assert_two_lines(done, code=1)
        assert told in done.stderr


def test_a_form_comes_through_a_pipe_or_without_an_ending(run: Run, model: list[object], tmp_path: Path) -> None:
    (tmp_path / "form").write_text('{"enum": ["tea"]}')
    (tmp_path / "rules").write_text('start: "tea"')
    for option, name, answer in (("--schema", "form", '"tea"\n'), ("--grammar", "rules", "tea\n")):
        assert run("ask", *model, "-p", "Which?", option, tmp_path / name).stdout == answer
        for stdin in ("-", "/dev/stdin"):
            text = (tmp_path / name).read_bytes()
            assert run("ask", *model, "-p", "Which?", option, stdin, stdin=text).stdout == answer
        pipe = tmp_path / f"pipe-{name}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=((tmp_path / name).read_text(),))
        writer.start()
        assert run("ask", *model, "-p", "Which?", option, pipe).stdout == answer
        writer.join()


@pytest.mark.parametrize(
    "arguments",
    [["--schema", "-"], ["-p", "What?", "--schema", "-", "-i", "-"], ["--batch", "-", "--grammar", "/dev/stdin"]],
    ids=" ".join,
)
def test_stdin_holds_one_thing(run: Run, arguments: list[str]) -> None:
    done = run("ask", "--model", "there/is/none.gguf", *arguments, stdin=b"{}")
    assert_two_lines(done, code=2)
    assert "cannot both come on stdin" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--schema", "{"], "JSON"),
        (["--schema", '{"type": "nothing"}'], "nothing"),
        (["--schema", "false"], "The schema is false"),
        (["--schema", "null"], "The schema is null"),
        (["--schema", "[1]"], 'Give a JSON schema, or "name, age int, tags list".'),
        (["--schema", ""], 'Give a JSON schema, or "name, age int, tags list".'),
        (["--schema", "name", "--choices", "a,b"], "not --schema and --choices."),
        (["--choices", ""], "empty"),
        (["--choices", "[]"], """--choices '["red", "blue"]'."""),
        (["--choices", "[null]"], "Give texts or numbers."),
        (["--regex", ""], "--regex is ''."),
        (["--grammar", "{}"], "Give a JSON schema as --schema"),
        (["--choices", "[1"], "--choices"),
        (["--regex", "("], "regular expression"),
        (["--regex", "\\"], "ends in a backslash"),
        (["--grammar", "start: /a.b/ x"], "The grammar is wrong"),
        (["--grammar", "start: nothing"], "nothing"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_told_before_anything_is_loaded(run: Run, arguments: list[str], told: str) -> None:
    done = run("ask", "there/is/none.gguf", "What is it?", *arguments)
    assert_two_lines(done, code=2)
    assert told in done.stderr


def test_a_batch_says_which_answers_have_no_value(run: Run, model: list[object], tmp_path: Path) -> None:
    lines = [{"prompt": "a", "max_tokens": 2}, {"prompt": "b", "schema": SCHEMA, "max_tokens": 3}, {"prompt": "c"}]
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    done = run("ask", *model, "--batch", file, "-n", 4)
    assert done.returncode == 1
    assert [(each["finish_reason"], each["parsed"]) for each in records(done.stdout)] == [("length", None)] * 3
    assert "1 of 3 answers ended at the limit before the form was complete" in done.stderr
    assert "The first is line 2." in done.stderr
    done = run("ask", *model, "--batch", file, "--choices", "tea,soup", "-n", 99)
    assert "2 of 3 answers" in done.stderr  # the form of all lines binds the first one, too
    assert "The first is line 1." in done.stderr


def test_lines_of_a_batch_may_have_forms_of_their_own(run: Run, model: list[object], tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"prompt": "a"},
        {"prompt": "b", "schema": SCHEMA},
        {"prompt": "c", "regex": "[xy]{2}"},
        {"prompt": "d", "schema": {"type": "array", "uniqueItems": True}},
        {"prompt": "e", "answer_format": 1},
        {"prompt": "f", "choices": []},
        {"prompt": "g", "boxes": "boxes.png"},
        {"prompt": "h", "logprobs": 5},
        {"prompt": "i", "tools": [5]},
        {"prompt": "j", "schema": 5},
    ]
    file, output = tmp_path / "lines.jsonl", tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    command = ("ask", *model, "--batch", file, "--output", output, "--choices", "tea,soup")
    done = run(*command)
    assert done.returncode == 1
    found = {record["line"]: record for record in records(output.read_text())}
    assert found[1]["parsed"] in ("tea", "soup")
    assert found[2]["parsed"]["drink"] in ("tea", "soup")
    assert set(found[3]["parsed"]) <= {"x", "y"}
    assert "uniqueItems" in found[4]["error"]
    assert "answer_format" in found[5]["error"]
    assert '"choices": ["red", "blue"]' in found[6]["hint"]
    assert found[7]["hint"] == "Give true or false."
    assert found[8]["hint"].startswith("A batch writes none")
    assert found[9]["hint"].startswith('Give objects as OpenAI takes them: {"type": "function"')
    assert found[10]["hint"] == 'Give a JSON schema, or "name, age int, tags list".'
    assert "7 lines that cannot be asked" in done.stderr
    assert "were answered before" in run(*command).stderr
    # Other choices are another question, for the line without a form of its own.
    again = run(*command[:-1], "cake,pie").stderr
    assert "1 line was answered with another model, other options or other words" in again
    found = {record["line"]: record for record in records(output.read_text())}
    assert found[1]["parsed"] in ("cake", "pie")
