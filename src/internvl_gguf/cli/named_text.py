"""Text that an option gives by a name: a file, a pipe that a shell made (`<(command)`), or stdin."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from internvl_gguf.cli.stdin import is_stdin
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.utils.text_data import decode_text

_LONGEST_NAME, _LONGEST_SHOWN = 4096, 200  # characters


def named_text(given: str, option: str) -> str | None:
    """Return the text of what an option names; None where nothing of that name is there.

    Args:
        given: what was given: a name, or perhaps the text itself.
        option: the option, for messages.

    Raises:
        InvalidRequestError: it is a folder, cannot be read, or holds no text.
        typer.BadParameter: it is stdin, which is a terminal.
    """
    if is_stdin(given):
        if sys.stdin.isatty():
            raise typer.BadParameter("nothing comes on stdin: pipe it in", param_hint=option)
        return decode_text(sys.stdin.buffer.read(), "What comes on stdin")
    path = Path(given)
    try:
        if not given or len(given) > _LONGEST_NAME or not path.exists():
            return None
    except (OSError, ValueError):  # a text may be longer than any name
        return None
    if path.is_dir():
        raise InvalidRequestError(f"{shown_name(given)} is a folder.", f"Name a file in it with {option}.")
    try:
        return decode_text(path.read_bytes(), shown_name(given))
    except OSError as error:
        name, reason = shown_name(given), error.strerror
        raise InvalidRequestError(f"{name} cannot be read: {reason}.", "Check the path.") from error


def shown_name(given: str) -> str:
    """Return the name of a file for messages: "stdin" for `-`."""
    return "stdin" if is_stdin(given) else safe_name(given, _LONGEST_SHOWN)


def missing_file(given: str, option: str) -> InvalidRequestError:
    """Return the error of a name under which there is no file."""
    return InvalidRequestError(f"There is no file {shown_name(given)}.", f"Check the path given with {option}.")
