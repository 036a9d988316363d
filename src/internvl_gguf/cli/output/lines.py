"""Write lines to stdout and stderr: harmless for a terminal, and broken at words where it is too narrow."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

import typer

from internvl_gguf.errors import InsufficientMemoryError, InternVLError
from internvl_gguf.utils.safe_text import broken, safe_text

PIPE_WIDTH: Final = 400
"""Columns of a file or a pipe: rows go there whole, for nobody's window is narrow."""
_TERMINAL_WIDTH: Final = 80  # of a terminal that does not say


def is_terminal(*, err: bool = False) -> bool:
    """Return whether stdout, or stderr, is a terminal."""
    return _stream(err).isatty()


def columns(*, err: bool = False) -> int:
    """Return the columns of stdout's or stderr's terminal; `PIPE_WIDTH` if it is not a terminal."""
    if not is_terminal(err=err):
        return PIPE_WIDTH
    with suppress(ValueError):
        if (told := int(os.environ.get("COLUMNS", ""))) > 0:
            return told
    with suppress(OSError):
        return os.get_terminal_size(_stream(err).fileno()).columns or _TERMINAL_WIDTH
    return _TERMINAL_WIDTH


def print_lines(text: str = "", *, hang: int | None = None, wrap: bool = True) -> None:
    """Print lines to stdout.

    Args:
        text: the lines.
        hang: columns by which what follows a break stands further in; as far as its line if None.
        wrap: whether lines are broken where the terminal is narrower.
    """
    typer.echo(_laid_out(text, hang=hang, wrap=wrap))


def say(text: str, *, hang: int | None = None) -> None:
    """Print lines for the user to stderr; they are lost if it cannot be written. Arguments as in `print_lines`."""
    _write_err(_laid_out(text, err=True, hang=hang))


def say_dim(text: str) -> None:
    """Print lines for the user to stderr, dim where it shows styles: what is told beside an answer."""
    text = _laid_out(text, err=True)
    _write_err(typer.style(text, dim=True) if _is_styled(err=True) else text)


def say_error(error: InternVLError, worded: Callable[[str], str] = str) -> None:
    """Print what happened and what to do, one line each.

    Args:
        error: the error.
        worded: makes the words of the command line of its message and hint.
    """
    if isinstance(error, InsufficientMemoryError) and error.table:
        say(error.table)
    title = "Error:"
    message = _laid_out(f"{title} {worded(error.message)}", err=True)
    if _is_styled(err=True):
        message = typer.style(title, fg="red", bold=True) + message.removeprefix(title)
    _write_err(message)
    say(f"  {worded(error.hint)}")


def bold(text: str) -> str:
    """Return harmless text for `print_styled`, bold where stdout shows styles."""
    return _styled(text, bold=True)


def dim(text: str) -> str:
    """Return harmless text for `print_styled`, dim where stdout shows styles."""
    return _styled(text, dim=True)


def print_styled(text: str) -> None:
    """Print lines to stdout unchanged; the caller made them with `safe_text`, `bold` and `dim`."""
    typer.echo(text)


def confirm(question: str) -> None:
    """Ask on stderr whether to go on.

    Raises:
        typer.Abort: it was answered with no, or with nothing.
    """
    typer.confirm(_laid_out(question, err=True), abort=True, err=True)


def flush() -> None:
    """Flush stdout."""
    sys.stdout.flush()


def show_library_log() -> None:
    """Send the log of llama.cpp and of this package to stderr (`--verbose`)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    ours = logging.getLogger("internvl_gguf")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)


def _laid_out(text: str, *, err: bool = False, hang: int | None = None, wrap: bool = True) -> str:
    text = safe_text(text)
    if not wrap or not is_terminal(err=err):
        return text
    width, further = columns(err=err), None if hang is None else " " * hang
    return "\n".join(broken(line, width, further) for line in text.split("\n"))


def _write_err(text: str) -> None:
    try:
        typer.echo(text, err=True)
    except OSError:  # its reader has left, or its disk is full; an answer may still be under way
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (as long as the process)


def _styled(text: str, **style: bool) -> str:
    text = safe_text(text)
    return typer.style(text, **style) if _is_styled() else text


def _is_styled(*, err: bool = False) -> bool:
    return is_terminal(err=err) and "NO_COLOR" not in os.environ


def _stream(err: bool) -> TextIO:
    return sys.stderr if err else sys.stdout
