"""The `internvl` command. Each subcommand is a thin user of the package, imported when it is run."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from internvl_gguf._version import __version__
from internvl_gguf.cli.output import run

COMMANDS: Final = {
    "ask": ("ask", "ask", "Ask one question, about pictures or not."),
    "inspect": ("inspect", "inspect", "Show how pictures are cut, and what they take of the context."),
    "pick": ("pick", "pick", "Rank what fits the memory there is, before a download."),
    "pull": ("pull", "pull", "Fetch a model, verified: the text model and its vision encoder."),
    "list": ("models", "list_models", "List the models that are on this machine, or in the catalogue."),
    "show": ("models", "show", "Show what a model is, from the headers of its files."),
    "rm": ("models", "rm", "Take a model out of the cache."),
    "cache": ("caches", "app", "Show or clear what is kept on disk."),
    "doctor": ("doctor", "doctor", "Check what is installed, and measure this machine."),
}
"""Module, function (or group of commands) and help of each subcommand; what one imports, the others do not wait for."""

_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}


class _LazyGroup(TyperGroup):
    """Knows the names and the help of its commands, and loads the one that is run."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """In plain text: the library for boxes takes three times as long to import as everything else here."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _load(command.name or ""), rest


def _load(name: str) -> Any:
    module, attribute, _ = COMMANDS[name]
    target = getattr(importlib.import_module(f"internvl_gguf.cli.{module}"), attribute)
    loaded = typer.Typer(add_completion=False, context_settings=_SETTINGS)
    if isinstance(target, typer.Typer):
        loaded.add_typer(target, name=name, context_settings=_SETTINGS)
        return typer.main.get_group(loaded).commands[name]
    loaded.command(name)(target)
    return typer.main.get_command(loaded)


def _not_loaded() -> None:
    raise AssertionError("a command is loaded before it is run")


app = typer.Typer(
    name="internvl",
    cls=_LazyGroup,
    help="Ask InternVL3 about pictures, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    context_settings=_SETTINGS,
    pretty_exceptions_enable=False,
)
for _name, (_, _, _help) in COMMANDS.items():
    app.command(_name, help=_help)(_not_loaded)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"internvl-gguf {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Entry point: exit codes are 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(app))
