"""The `internvl` command. Each subcommand is a thin user of the package; heavy imports happen inside them."""

from __future__ import annotations

import sys

import typer

from internvl_gguf._version import __version__
from internvl_gguf.cli.ask import ask
from internvl_gguf.cli.doctor import doctor
from internvl_gguf.cli.inspect import inspect
from internvl_gguf.cli.models import list_models, rm, show
from internvl_gguf.cli.output import run
from internvl_gguf.cli.pull import pull

app = typer.Typer(
    name="internvl",
    help="Ask InternVL3 about pictures, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(ask)
app.command()(inspect)
app.command()(pull)
app.command("list")(list_models)
app.command()(show)
app.command()(rm)
app.command()(doctor)


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
