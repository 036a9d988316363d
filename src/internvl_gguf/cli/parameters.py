"""Parameters of commands that are derived from the options of configuration dataclasses.

A command has one parameter for such a dataclass; `expand` puts an option of the command line for each field in its
place, and gives the command the dataclass made of what was typed.
"""

from __future__ import annotations

import functools
import inspect
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from internvl_gguf.cli.settings_file import SettingsError, settings_path
from internvl_gguf.config import EngineConfig, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.options import Declared, options_of

VARIABLES: Final = "INTERNVL"
"""Prefix of the names of all environment variables."""
_SHARED: Final = {*options_of(SamplingParams), *options_of(PictureOptions), *options_of(EngineConfig)}
_OTHER_FLAGS: Final = {
    **{name: f"--{name}" for name in ("schema", "choices", "regex", "grammar", "frames", "fps", "start", "end")},
    "format_in_prompt": "--format-in-prompt",
    "n_parallel": "--parallel",
}
"""Flags of options that are declared in no dataclass of `in_flags`."""
_CALLS: Final = {
    "session.clear() (/clear)": "/clear",
    "session.each() or batch()": "`internvl ask --batch`",
    "without Video": "with -i",
}
"""Calls that messages recommend, and what does the same from a command line."""
VALUE: Final = r"""\[[^\]\n]*\]|r?'[^'\n]*'|r?"[^"\n]*"|-?\w+(?:\.\w+)*"""  # as messages write it behind `name=`
value_sources: ContextVar[Mapping[str, str]] = ContextVar("value_sources", default={})  # noqa: B039  (never changed)
"""Where each value of the running command came from, by the parameter: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP, ..."""


@dataclass(frozen=True)
class Group:
    """Parameters that replace one parameter of a command.

    Attributes:
        parameters: options of the command line.
        build: makes the command's parameter of their values, by their names.
    """

    parameters: tuple[inspect.Parameter, ...]
    build: Callable[[dict[str, Any]], Any]


def expand(command: Callable[..., None], groups: Mapping[str, Group]) -> Callable[..., None]:
    """Return a command in which groups of parameters replace the parameters of those names.

    Args:
        command: its function.
        groups: by the name of the parameter that each stands for.
    """
    parameters: list[inspect.Parameter] = []
    for each in inspect.signature(command, eval_str=True).parameters.values():
        expanded = groups[each.name].parameters if each.name in groups else (each,)
        parameters += [new.replace(kind=inspect.Parameter.KEYWORD_ONLY) for new in expanded]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name, group in groups.items():
            given = {each.name: arguments.pop(each.name) for each in group.parameters}
            arguments[name] = group.build(given)
        command(**arguments)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return run


def parameters_of(configuration: Any, *, are_shared: bool = True) -> Iterator[inspect.Parameter]:
    """Return the parameters of a command for the options of a configuration dataclass.

    Args:
        configuration: the dataclass.
        are_shared: whether each can be set by a variable for every command that has it: INTERNVL_ and its key. Those of
            one command have variables with the command's name, as all its own options.
    """
    for declared in options_of(configuration).values():
        if declared.option.on_command_line:
            default = None if declared.can_be_open else declared.default
            described = typer.Option(
                *declared.flags,
                help=declared.help,
                metavar=declared.option.metavar,
                envvar=f"{VARIABLES}_{declared.key.upper()}" if are_shared else declared.option.variable or None,
                show_envvar=False,
                show_default=not declared.can_be_open,
                rich_help_panel=configuration.PANEL,
            )
            type_ = declared.kind.parameter
            yield parameter(declared.key, Annotated[type_ | None if default is None else type_, described], default)


def parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """Return one option of the command line, its annotation described by a `typer.Option`."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def taken(configuration: Any, values: dict[str, Any], **more: Any) -> Any:
    """Return a configuration made of the values of `parameters_of`'s parameters, which are removed from `values`.

    Args:
        configuration: the dataclass.
        values: of parameters, by name; what is of other ones stays.
        **more: further fields.

    Raises:
        InvalidRequestError: a value that cannot be used.
    """
    given = {
        declared.name: _checked(declared, values.pop(declared.key))
        for declared in options_of(configuration).values()
        if declared.option.on_command_line
    }
    return configuration(**given, **more)


def _checked(declared: Declared, value: Any) -> Any:
    """Return the value of an option, called in errors as it was given: by its flag, its variable or its key."""
    origin = value_sources.get().get(declared.key, "")
    is_named = origin == "ENVIRONMENT" and declared.name in _SHARED
    called = f"{VARIABLES}_{declared.key.upper()}" if is_named else declared.flag
    if origin != "DEFAULT_MAP":
        return declared.checked(declared.read(value), called)
    try:
        return declared.checked(declared.read(value), declared.key)
    except InvalidRequestError as error:
        raise SettingsError(f"In {settings_path()}: {error.message}", error.hint) from None


def in_flags(text: str, *configurations: Any) -> str:
    """Return a message as the command line says it: options, which it calls as Python does, by their flags.

    `n_ctx=8192` becomes `--n-ctx 8192`, and a call in Python a command. A name that is an English word, too, counts in
    brackets, before `=` and as the subject of the message only.

    Args:
        text: the message.
        *configurations: dataclasses whose options are meant; all, and those that bind an answer, if none is given.
    """
    for call, command in _CALLS.items():
        text = text.replace(call, command)
    flags = {
        name: declared.flag
        for configuration in configurations or (SamplingParams, PictureOptions, EngineConfig)
        for name, declared in options_of(configuration).items()
        if declared.option.on_command_line
    } | ({} if configurations else _OTHER_FLAGS)
    any_name, no_word = "|".join(flags), "|".join(name for name in flags if "_" in name)
    text = re.sub(rf"\b({any_name})=({VALUE})?", lambda found: _as_typed(flags[found[1]], found[2] or "True"), text)
    called = rf"(?<![-\w])(?:{no_word})(?![-\w])|(?<=\()(?:{any_name})(?=\))|\A(?:{any_name})(?= (?:is|has)\b)"
    return re.sub(called, lambda found: flags[found[0]], text)


def _as_typed(flag: str, value: str) -> str:
    """Return a flag with a value that a message writes in Python; a switch has none."""
    if value in ("True", "False"):
        return flag if value == "True" else f"--no-{flag.removeprefix('--')}"
    text = value.removeprefix("r")[1:-1] if value.endswith(("'", '"')) else value
    return f"{flag} {shlex.quote(text)}"
