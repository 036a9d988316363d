"""Parameters of commands that are derived from the options of configuration dataclasses.

A command has one parameter for such a dataclass; `expand` puts an option of the command line for each field in its
place, and gives the command the dataclass made of what was typed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from internvl_gguf.utils.options import options_of

VARIABLES: Final = "INTERNVL"
"""Prefix of the names of all environment variables."""


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


def parameters_of(configuration: Any) -> Iterator[inspect.Parameter]:
    """Return the parameters of a command for the options of a configuration dataclass.

    Each can be set by a variable for every command that has it: INTERNVL_ and its key.
    """
    for declared in options_of(configuration).values():
        if declared.option.on_command_line:
            default = None if declared.can_be_open else declared.default
            described = typer.Option(
                *declared.flags,
                help=declared.help,
                metavar=declared.option.metavar,
                envvar=f"{VARIABLES}_{declared.key.upper()}",
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
        declared.name: declared.read(values.pop(declared.key))
        for declared in options_of(configuration).values()
        if declared.option.on_command_line
    }
    return configuration(**given, **more)
