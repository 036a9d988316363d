"""Options from variables and config.toml, and completion in shells."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.chat.settings import Settings
from internvl_gguf.cli import options
from internvl_gguf.cli.ask import ask
from internvl_gguf.cli.asking_options import asking_options, asking_types, asks
from internvl_gguf.cli.batch_words import in_fields
from internvl_gguf.cli.chat import chat
from internvl_gguf.cli.command_list import COMMANDS, COMPLETE
from internvl_gguf.cli.completion import answer
from internvl_gguf.cli.group import load
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.cli.settings_file import FILE_NAME, defaults_of, option_types, wanted_model
from internvl_gguf.config import AskOptions, EngineConfig, FormOptions, PictureOptions, SamplingOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.history import History
from internvl_gguf.images.fit_context import BEGIN_ANEW
from internvl_gguf.utils.kinds import Choice, JudgeName, Number, Switch, Texts
from internvl_gguf.utils.options import Declared, options_of


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes config.toml."""
    monkeypatch.setenv("INTERNVL_CONFIG", str(tmp_path))

    def write(text: str) -> None:
        (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")

    return write


def defaults(command: str = "chat") -> dict[str, Any]:
    function = {"ask": ask, "chat": chat}[command]
    return defaults_of(command, function, asking_types(), tuple(COMMANDS))


def given(command: str, *arguments: str) -> dict[str, Any]:
    """What the command's function would be called with."""
    with load(command).make_context(command, list(arguments), auto_envvar_prefix="INTERNVL") as context:
        return dict(context.params)


def test_the_file_holds_options_of_asking_and_of_one_command(configure: Callable[[str], None]) -> None:
    configure(
        'model = "demo"\ntemperature = 1\nn_gpu_layers = 20\nstop = ["a", "b"]\nlayout = "frames"\nthumbnail = false\n'
        "[chat]\npreview = false\ntemperature = 0.5\n[ask]\nverbose = true\n"
    )
    shared = {"n_gpu_layers": "20", "stop": ["a", "b"], "layout": "frames", "thumbnail": False}
    assert defaults("chat") == {**shared, "preview": False, "temperature": 0.5}
    assert defaults("ask") == {**shared, "verbose": True, "temperature": 1}
    assert wanted_model() == "demo"
    assert options.chosen_model(None) == "demo"


def test_without_a_file_nothing_is_said(configure: Callable[[str], None]) -> None:
    assert defaults() == {}
    assert wanted_model() is None


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("temprature = 1", "temprature, which is no option of ask and chat", "Did you mean temperature?"),
        ("[chat]\nprevew = true", "prevew of [chat], which is no option of internvl chat", "Did you mean preview?"),
        ("[chatt]\npreview = true", "[chatt], which is no command", "Did you mean chat?"),
        ('temperature = "hot"', "temperature is 'hot' in ", "Give a number."),
        ("n_ctx = 1.5", "n_ctx is 1.5 in ", "Give a whole number."),
        ("n_ctx = true", "n_ctx is True in ", "Give a whole number."),
        ("thumbnail = 1", "thumbnail is 1 in ", "Give true or false."),
        ('kv_type = "q5"', "kv_type is 'q5' in ", "Give one of f32, f16"),
        ('stop = "a"', "stop is 'a' in ", "Give a list of texts."),
        ("model = 7\n[chat]\nplain = 1", "plain of [chat] is 1 in ", "Give true or false."),
        ("temperature = ", "is not TOML: Invalid value (at ", "Write lines such as"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_clear_line(
    configure: Callable[[str], None], text: str, message: str, hint: str
) -> None:
    configure(text)
    with pytest.raises(InvalidRequestError) as caught:
        defaults()
    assert message in caught.value.message
    assert FILE_NAME in caught.value.message
    assert caught.value.hint.startswith(hint)
    assert "\n" not in caught.value.message + caught.value.hint


def test_the_command_line_wins_then_variables_then_the_file(
    configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("max_tiles = 2\nthumbnail = false\ntemperature = 1\n")
    assert given("chat")["max_tiles"] == 2
    assert given("chat")["thumbnail"] is False
    monkeypatch.setenv("INTERNVL_MAX_TILES", "3")
    monkeypatch.setenv("INTERNVL_THUMBNAIL", "1")
    monkeypatch.setenv("INTERNVL_STOP", "END")
    assert given("chat")["max_tiles"] == given("ask")["max_tiles"] == 3
    assert given("chat")["thumbnail"] is True
    assert given("chat")["stop"] == ["END"]
    assert given("chat", "--max-tiles", "4")["max_tiles"] == 4
    assert given("chat")["temperature"] == 1


def test_every_option_of_asking_has_a_variable() -> None:
    parameters = inspect.signature(ask).parameters
    variables = {parameters[name].annotation.__metadata__[0].envvar for name in asking_types()}
    assert variables == {f"INTERNVL_{name.upper()}" for name in asking_types()}
    taken = {"INTERNVL_CACHE", "INTERNVL_CONFIG", "INTERNVL_DATA", "INTERNVL_MODEL"}
    assert not variables & taken
    of_commands = {f"INTERNVL_{name}_{option}".upper() for name in ("ask", "chat") for option in asking_types()}
    assert not of_commands & (taken | variables)


@pytest.mark.parametrize("command", ["ask", "chat"])
@pytest.mark.parametrize("declared", [*options_of(SamplingParams).values(), *options_of(PictureOptions).values()])
def test_an_option_of_a_question_is_on_every_surface(
    declared: Declared, command: str, configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`penalty_last_n` was a field of SamplingParams and nowhere else: no flag, no variable, no key."""
    values = {Switch: (False, True), Choice: ("frames", "combined"), Texts: (("a",), ("b",)), Number: (0.25, 0.5)}
    values[JudgeName] = ("certainty", "VisualPRM-8B")
    one, other = values.get(type(declared.kind), (1, 2))
    name, arguments = declared.name, ["demo", "Hello?"] if command == "ask" else []

    def asked(*more: str) -> Any:
        values = given(command, *arguments, *more)
        asking = asking_options({name: values[name] for name in asking_types()})
        return getattr(asking.sampling if name in vars(asking.sampling) else asking.pictures, name)

    data = json.dumps(list(one) if isinstance(one, tuple) else one)
    typed = declared.kind.show(one)
    assert asked() == declared.default
    configure(f"{name} = {data}")
    assert asked() == one
    monkeypatch.setenv(f"INTERNVL_{name.upper()}", declared.kind.show(other))
    assert asked() == other
    flag = [declared.flags[0].split("/")[1]] if one is False else [declared.flags[0], typed]
    assert asked(*flag) == one
    changed = Settings().changed(name, typed)
    assert one in (vars(changed.sampling) | vars(changed.pictures)).values()
    assert dict(changed.rows())[name] == typed
    question = Common().question_of(Line(1, f'{{"prompt": "Hello?", "{name}": {data}}}'.encode()))
    assert ({**question.options} | vars(question.options["sampling"]))[name] == one
    assert flag[0] in words(command, flag[0][:-1])


def test_another_name_of_a_flag_is_the_same_option() -> None:
    chosen = given("ask", "demo", "Hello?", "--penalty-last-n", "7")["penalty_last_n"]
    assert chosen == given("chat", "--repeat-last-n", "7")["penalty_last_n"] == 7


def test_one_habit_serves_every_command() -> None:
    """-o names the file that is written (but for bench, whose -o is that of llama-bench), --context the positions."""
    assert given("ask", "--batch", "questions.jsonl", "-o", "answers.jsonl")["output"] == Path("answers.jsonl")
    assert given("inspect", "photo.png", "-o", "grid.png")["save"] == Path("grid.png")
    for command in ("ask", "chat", "inspect", "pick"):
        arguments = ["photo.png"] if command == "inspect" else []
        for name in ("--context", "--n-ctx", "-c"):
            assert 512 in given(command, *arguments, name, "512").values()


def test_every_way_to_load_a_model_is_an_option_or_has_a_reason_not_to_be() -> None:
    elsewhere = {
        "n_parallel": "--parallel goes with --batch",
        "n_candidates": "as many as --best-of says",
        "embedding_cache_bytes": "of a process that ends with its answer",
        "embedding_disk_bytes": "--no-cache",
    }
    declared = options_of(EngineConfig)
    assert {name for name, each in declared.items() if not each.option.on_command_line} == elsewhere.keys()
    assert {each.key for name, each in declared.items() if name not in elsewhere} <= asking_types().keys()
    arguments = ("-b", "1024", "-ub", "256", "-t", "3", "-ngl", "all", "-fa", "on", "--draft", "2", "--no-cache")
    values = given("chat", *arguments)
    engine = asking_options({name: values[name] for name in asking_types()}).engine
    assert (engine.n_batch, engine.n_ubatch, engine.n_threads, engine.n_draft) == (1024, 256, 3, 2)
    assert (engine.n_gpu_layers, engine.flash_attn, engine.embedding_disk_bytes) == (-1, True, 0)


def test_options_of_a_question_are_options_of_pictures() -> None:
    own = AskOptions.__annotations__.keys() - SamplingOptions.__annotations__.keys()
    assert own == {"sampling", "confidence"} | options_of(PictureOptions).keys() | FormOptions.__annotations__.keys()


def test_every_field_of_the_sampling_is_an_option_of_a_question() -> None:
    assert list(SamplingOptions.__annotations__) == list(options_of(SamplingParams))
    assert SamplingOptions.__annotations__.keys() <= AskOptions.__annotations__.keys()


def test_every_field_of_a_configuration_is_declared() -> None:
    for configuration in (SamplingParams, PictureOptions, EngineConfig):
        assert list(options_of(configuration)) == [field.name for field in fields(configuration)]


def test_the_options_of_asking_are_those_of_ask_and_chat() -> None:
    for command in (ask, chat):
        assert asks(command)
        assert asking_types().keys() <= option_types(command).keys()
        assert "asking" not in inspect.signature(command).parameters
    assert "model_and_pictures" not in option_types(chat), "an argument is no option"


def test_help_names_the_file(configure: Callable[[str], None], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", "chat", "--help"], capture_output=True, text=True, check=True
    )
    said = "".join(done.stdout.split())
    assert f"in{tmp_path}/config.toml" in said
    assert "--continue" in said


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_cuts_no_name_of_an_option(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It showed `--no-prompt-pic…` and `<separate|combin/ed|frames>`."""
    monkeypatch.setenv("COLUMNS", str(columns))
    command = load(name)
    for each in (command, *getattr(command, "commands", {}).values()):
        page = each.get_help(each.context_class(each, info_name=f"internvl {name}"))
        assert max(map(len, page.splitlines())) < columns
        shown = set(re.split(r"[ ,\n]+", page))
        assert {
            option
            for parameter in each.params
            for option in parameter.opts
            if option.startswith("-") and not getattr(parameter, "hidden", False)
        } <= shown
        assert "<" not in page
    if name == "ask":
        assert {"--no-prompt-pictures", "--kv"} <= shown
        assert "combined|" in page


@pytest.mark.parametrize("name", COMMANDS)
def test_a_shell_can_set_every_variable(name: str) -> None:
    """One was INTERNVL_RPC-SERVER_HOST."""
    command = load(name)
    for each in (command, *getattr(command, "commands", {}).values()):
        assert all(not parameter.envvar or parameter.envvar.isidentifier() for parameter in each.params)


def test_a_variable_is_called_as_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help said "--{NAME} by INTERNVL_SHOW_{NAME}", and --json had to be INTERNVL_SHOW_JSON_OUTPUT."""
    assert load("show").epilog == "Every option can be set by a variable, too: --mmproj by INTERNVL_MMPROJ."
    assert load("cache").epilog == "The option can be set by a variable, too: --json by INTERNVL_CACHE_JSON."
    assert not load("completion").epilog
    assert "--host by INTERNVL_RPC_SERVER_HOST." in load("rpc-server").epilog
    monkeypatch.setenv("INTERNVL_RPC_SERVER_HOST", "127.0.0.2")
    assert given("rpc-server")["host"] == "127.0.0.2"
    monkeypatch.setenv("INTERNVL_SHOW_JSON", "1")
    assert given("show", "demo")["json_output"] is True
    monkeypatch.setenv("INTERNVL_CACHE_CLEAR_ALL", "1")
    clear = load("cache").commands["clear"]
    assert clear.make_context("clear", []).params["everything"] is True


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Use n_ctx=8192 or less.", "Use --n-ctx 8192 or less."),
        ("a context of 768 (n_ctx)", "a context of 768 (--n-ctx)"),
        ("n_ubatch is 5 and n_batch 4", "--ubatch-size is 5 and --batch-size 4"),
        ("force=True loads it", "--force loads it"),
        ("Use force=True, or name another file.", "Use --force, or name another file."),
        ("fewer layers (n_gpu_layers), less of it (vram)", "fewer layers (--n-gpu-layers), less of it (--vram)"),
        ("the CPU alone (vram='none')", "the CPU alone (--vram none)"),
        ("by force, seed of the layout; stop", "by force, seed of the layout; stop"),
        ("my_n_ctx and --n-ctx", "my_n_ctx and --n-ctx"),
        ("regex is ''.", "--regex is ''."),
        ("The choices of a schema, seed is 5", "The choices of a schema, seed is 5"),
        ('Give the texts: choices=["red", "blue"].', """Give the texts: --choices '["red", "blue"]'."""),
        (r'Give one: regex=r"\d{4}-\d{2}".', r"Give one: --regex '\d{4}-\d{2}'."),
        (
            "Give it as schema=, or a grammar; not schema= and choices=.",
            "Give it as --schema, or a grammar; not --schema and --choices.",
        ),
        ("Leave it out (format_in_prompt=False).", "Leave it out (--no-format-in-prompt)."),
        ("n_parallel is 300 and n_batch is 20.", "--parallel is 300 and --batch-size is 20."),
        (
            f"Too much: {BEGIN_ANEW}.",
            "Too much: begin anew with /clear; for separate pictures use `internvl ask --batch`.",
        ),
    ],
)
def test_the_command_line_calls_options_by_their_flags(said: str, shown: str) -> None:
    """`-c 100000` was told to use n_ctx=8192, and `-t 0` that n_threads is 0."""
    assert in_flags(said) == shown
    assert in_flags("max_tiles 3 (n_ctx)", EngineConfig) == "max_tiles 3 (--n-ctx)"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('choices is empty. Give them: choices=["red"].', 'choices is empty. Give them: "choices": ["red"].'),
        (r'Give one: regex=r"\d{4}".', r'Give one: "regex": "\\d{4}".'),
        ("Give it as schema=, not schema= and choices=.", 'Give it as "schema", not "schema" and "choices".'),
        ("temperature=0.8, thumbnail=False, stop='x'", '"temperature": 0.8, "thumbnail": false, "stop": "x"'),
        ("Ask with tools=[...] first.", "Ask with tools=[...] first."),
        (
            "at most 3 tiles (max_tiles) or a context of 768 (n_ctx)",
            "at most 3 tiles (max_tiles) or a context of 768 (--n-ctx)",
        ),
    ],
)
def test_the_lines_of_a_batch_call_options_by_their_fields(said: str, shown: str) -> None:
    assert in_fields(said) == shown


def words(*line: str) -> list[str]:
    """What zsh and fish would be told."""
    return [row.split("\t")[0] for row in answer(["zsh", *line]).splitlines()]


def test_completion_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("INTERNVL_DATA", str(tmp_path / "data"))
    assert words("ch") == ["chat"]
    assert set(words("")) == set(COMMANDS)
    assert words("--v") == ["--version"]
    assert words("chat", "--pl") == ["--plain"]
    assert {"--preview", "--no-preview", "--n-ctx"} <= set(words("chat", "--"))
    assert words("ask", "--kv-type", "") == ["f32", "f16", "bf16", "q8_0", "q4_0"]
    assert words("chat", "--layout", "s") == ["separate"]
    assert words("chat", "dem") == ["demo"]
    assert "InternVL3-14B-Instruct" in words("pick", "InternVL3")
    assert words("chat", "InternVL3-14B-Instruct:Q4_K_M") == ["InternVL3-14B-Instruct:Q4_K_M"]
    assert words("inspect", "-m", "de") == ["demo"]
    assert "clear" in words("cache", "")
    assert words("completion", "") == ["bash", "zsh", "fish"]
    assert words("nothing", "x") == []
    assert words("chat", "--resume", "") == []
    assert not (tmp_path / "data").exists(), "nothing is begun by asking"
    assert answer(["fish", "ch"]) == "chat\tTalk with a model about pictures.\n"


def test_completion_knows_the_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `internvl history show` it offered the files of the folder."""
    monkeypatch.setenv("INTERNVL_DATA", str(tmp_path))
    told = {
        "format": "internvl conversation",
        "version": 1,
        "id": "k7m2qa",
        "title": "",
        "model": "demo",
        "system": None,
    }
    told |= {"created": "2026-01-01T00:00:00.000000+00:00", "updated": "2026-01-01T00:00:00.000000+00:00"}
    said = {"role": "user", "text": "What is it?", "created": told["created"]}
    (tmp_path / "talk.json").write_text(json.dumps({**told, "messages": [said]}))
    with History.open() as history:
        kept = history.load(tmp_path / "talk.json").id
    for arguments in (("history", "show"), ("history", "rm"), ("history", "export"), ("chat", "--resume")):
        assert words(*arguments, "") == [kept]


def test_bash_breaks_words_at_colons() -> None:
    assert answer(["bash", "internvl chat InternVL3-14B-Instruct:Q4_K_"]).splitlines()[:2] == ["Q4_K_M", "Q4_K_S"]
    assert answer(["bash", "internvl "]).startswith("chat\n")
    assert answer(["bash", "internvl ask 'an open quote"]) == ""
    assert answer(["bash", ""]) == answer(["bash"]) == answer([]) == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts(shell: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", "completion", shell], capture_output=True, text=True, check=True
    )
    script = tmp_path / f"script.{shell}"
    script.write_text(done.stdout)
    assert f" {COMPLETE} {shell} " in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(tmp_path: Path) -> None:
    """As readline does it: the words, the line, the function."""
    program = tmp_path / "internvl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m internvl_gguf "$@"\n')
    program.chmod(0o755)
    script = """
    eval "$(internvl completion bash)"
    COMP_LINE="internvl chat --no-hi"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(internvl chat --no-hi); COMP_CWORD=2
    _internvl; echo "${COMPREPLY[@]}"
    complete -p internvl
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.stdout.splitlines() == ["--no-history", "complete -o default -F _internvl internvl"]
