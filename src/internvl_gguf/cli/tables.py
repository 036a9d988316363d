"""Tables that fit the terminal they are printed on."""

from __future__ import annotations

import shutil
import sys
import textwrap

import typer

from internvl_gguf.utils.safe_text import broken

_PIPE_WIDTH = 200


def say_wrapped(text: str, *, err: bool = False, hang: int | None = None) -> None:
    """Lines, broken where they go to a terminal that is narrower.

    Args:
        text: the lines.
        err: to stderr.
        hang: columns by which what follows a break stands further in; as far as its line if None.
    """
    if (sys.stderr if err else sys.stdout).isatty():
        width, further = shutil.get_terminal_size().columns, None if hang is None else " " * hang
        text = "\n".join(broken(line, width, further) for line in text.split("\n"))
    typer.echo(text, err=err)


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table; where the terminal is too narrow for it, each row as a line with its facts below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    # Rows go whole to a file or a pipe, where nobody's window is narrow.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, title in enumerate(head):
        table.add_column(title, no_wrap=True, justify="left" if index in (0, len(head) - 1) else "right")
    for row in rows:
        table.add_row(*row)
    if Measurement.get(console, console.options.update(max_width=_PIPE_WIDTH), table).maximum <= console.width:
        console.print(table)
        return
    for first, *rest in rows:
        say_wrapped(first, hang=4)
        facts = [f"{title.lower()} {fact}" for title, fact in zip(head[1:], rest, strict=True) if fact]
        typer.echo(textwrap.fill(", ".join(facts), console.width, initial_indent="  ", subsequent_indent="  "))
