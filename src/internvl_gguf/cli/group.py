"""All subcommands as one command line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperGroup

from internvl_gguf._version import __version__
from internvl_gguf.cli import settings_file
from internvl_gguf.cli.asking_options import asking_elsewhere, asking_types, asks, elsewhere
from internvl_gguf.cli.command_list import COMMANDS, help_text
from internvl_gguf.cli.help_page import PlainCommand
from internvl_gguf.cli.output import print_lines
from internvl_gguf.cli.parameters import VARIABLES
from internvl_gguf.cli.run import option_errors
from internvl_gguf.errors import InvalidRequestError

_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}


_RUN: Final = "run"  # as other runtimes call chatting and asking
_ELSEWHERE: Final = {
    "ps": ("no model stays loaded when its command ends.", "`internvl list` shows the models that are here."),
    "stop": ("no model stays loaded when its command ends.", "There is nothing to stop; Ctrl-C ends a command."),
    "generate": ("one question is answered by ask.", "Use `internvl ask MODEL QUESTION -i PICTURE`."),
    "search": ("the models known by name are in the catalogue.", "Use `internvl list --catalog`."),
    "help": ("help is an option.", "Use `internvl --help`, or `internvl COMMAND --help`."),
    "version": ("the version is an option.", "Use `internvl --version`."),
}
"""Commands of other runtimes that have no like here: why, and what to do instead."""


def _meant_by_run(arguments: list[str]) -> str:
    """Return the command that `run MODEL`, `run MODEL PICTURE` or `run MODEL QUESTION` means."""
    from internvl_gguf.chat.typed_line import has_picture_name

    return "chat" if all(map(has_picture_name, arguments[1:])) or "--help" in arguments else "ask"


class _LazyGroup(TyperGroup):
    """Knows the names and the help of its commands, and loads the one that is run."""

    def get_help(self, ctx: Any) -> str:
        return help_text().rstrip()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _ELSEWHERE:
            why, hint = _ELSEWHERE[args[0]]
            with option_errors():
                raise InvalidRequestError(f"There is no command {args[0]}: {why}", hint)
        if args and args[0] == _RUN:
            args = [_meant_by_run(args[1:]), *args[1:]]
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(command.name or ""), rest


def function_of(name: str) -> Any:
    """Return the function of a command, or the group of commands that a name stands for."""
    module, attribute, _ = COMMANDS[name]
    return getattr(importlib.import_module(f"internvl_gguf.cli.{module}"), attribute)


def load(name: str) -> Any:
    """Return the command of a name, with the defaults from the user's config.toml.

    Raises:
        InvalidRequestError: config.toml cannot be used.
    """
    target = function_of(name)
    loaded = typer.Typer(add_completion=False, context_settings=_SETTINGS)
    if isinstance(target, typer.Typer):
        loaded.add_typer(target, name=name, context_settings=_SETTINGS)
        group = typer.main.get_group(loaded).commands[name]
        group.epilog = elsewhere(_name_variables(group, name))
        for own_name, each in getattr(group, "commands", {}).items():
            _refuse_empty_names(each)
            each.epilog = elsewhere(_name_variables(each, name, own_name))
        return group
    wanted = settings_file.defaults_of(name, target, asking_types(), tuple(COMMANDS))
    loaded.command(name, cls=PlainCommand, context_settings={**_SETTINGS, "default_map": wanted})(target)
    command = typer.main.get_command(loaded)
    _refuse_empty_names(command)
    variables = _name_variables(command, name)
    command.epilog = asking_elsewhere(name) if asks(target) else elsewhere(variables)
    return command


def _refuse_empty_names(command: Any) -> None:
    """Make the options of a command that name a file refuse an empty name."""
    for each in command.params:
        if each.type_descriptor.annotation is Path:
            each.process_value = partial(_named_file, each, each.process_value)


def _named_file(option: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """Return the value of an option that names a file; the library takes an empty name for the current folder.

    Raises:
        typer.BadParameter: it is empty.
    """
    if value == "":
        raise typer.BadParameter("it is empty: name a file", ctx=context, param=option)
    return process(context, value)


def _name_variables(command: Any, *path: str) -> dict[str, str]:
    """Name the variable of each option of a command by its long name, and return the variables by these names.

    The rows of its help leave them out, for they would double it.
    """
    found = {}
    for each in command.params:
        each.show_envvar = False
        long = next((name for name in each.opts if name.startswith("--")), None)
        if long and (each.envvar or each.allow_from_autoenv):
            words = "_".join((VARIABLES, *path, long.removeprefix("--")))
            each.envvar = each.envvar or words.replace("-", "_").upper()
            found[long] = each.envvar
    return found


def _not_loaded() -> None:
    raise AssertionError("a command is loaded before it is run")


app = typer.Typer(
    name="internvl",
    cls=_LazyGroup,
    add_completion=False,
    context_settings={**_SETTINGS, "auto_envvar_prefix": VARIABLES},
    pretty_exceptions_enable=False,
)
for _name, (_, _, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_not_loaded)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_lines(f"internvl-gguf {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: bool = typer.Option(
        False,
        "--version",
        "-V",
        callback=_print_version,
        is_eager=True,
        help="Print the version.",
        allow_from_autoenv=False,
    ),
) -> None:
    pass
