"""One way out: the answer to stdout, everything else to stderr, errors in two lines, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from internvl_gguf.cli.streams import closed_error, is_stdout_closed
from internvl_gguf.errors import InsufficientMemoryError, InternVLError, InvalidRequestError
from internvl_gguf.types import Reply

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
_REASONS = {
    "int_parsing": "{!r} is not a whole number",
    "float_parsing": "{!r} is not a number",
    "bool_parsing": "{!r} is neither true nor false",
}
"""What pydantic's kinds of errors mean for a value of an option."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def run(command: typer.Typer) -> int:
    """Run a command line and give its exit code; no error of ours or of its use leaves a traceback.

    A reader that left ends in the command line library, as SystemExit(1).
    """
    try:
        code = typer.main.get_command(command).main(prog_name="internvl", standalone_mode=False)
    except InternVLError as error:
        say_error(error)
        return FAILED
    except typer.TyperException as error:
        say_error(_usage_error(error))
        return WRONG_USAGE
    except typer.Abort:  # a question at the terminal that was answered with no, or with nothing
        say("Nothing was changed.")
        return FAILED
    except OSError as error:
        if is_stdout_closed():
            say_error(closed_error())
            return FAILED
        if error.errno not in _NO_ROOM:
            raise
        say_error(InternVLError(f"The answer could not be written: {error.strerror}.", "Free some space."))
        return FAILED
    return code if isinstance(code, int) else 0


def _usage_error(error: typer.TyperException) -> InternVLError:
    """What is wrong with a command line, in our words: the library's are for programmers."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else " ".join(["internvl", *sys.argv[1:2]])
    message = getattr(error, "format_message", error.__str__)()
    found: Any = error.__cause__
    if isinstance(error, typer.BadParameter) and hasattr(found, "errors"):  # pydantic's, which is not imported here
        first = found.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        name = max(error.param.opts if error.param else ["The argument"], key=len)
        message = f"{name}: {_REASONS[first['type']].format(first['input']) if first['type'] in _REASONS else said}"
    return InternVLError(message if message.endswith(("?", ".")) else f"{message}.", f"See {path} --help.")


def say(text: str) -> None:
    """Lines for the person, on stderr; broken at words where it is a terminal. Lost where it cannot be written."""
    if sys.stderr.isatty():
        from internvl_gguf.utils.safe_text import broken

        width = shutil.get_terminal_size().columns
        text = "\n".join(broken(line, width) for line in text.split("\n"))
    try:
        typer.echo(text, err=True)
    except OSError:  # its reader has left, or its disk is full; an answer may still be under way
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (as long as the process)


def say_error(error: InternVLError) -> None:
    """What happened and what to do, one line each."""
    if isinstance(error, InsufficientMemoryError) and error.table:
        say(error.table)
    coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    say(f"{typer.style('Error:', fg='red', bold=True) if coloured else 'Error:'} {error.message}")
    say(f"  {error.hint}")


@contextlib.contextmanager
def option_errors() -> Iterator[None]:
    """Turn an option value out of range into wrong usage, exit code 2."""
    try:
        yield
    except InvalidRequestError as error:
        say_error(error)
        raise typer.Exit(WRONG_USAGE) from error


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print_json_text(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_text(text: str) -> None:
    """JSON on stdout; where that lacks a character, all beyond ASCII, which stand in strings, as JSON's escapes."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = "".join(character if character.isascii() else json.dumps(character)[1:-1] for character in text)
    typer.echo(text.removesuffix("\n"))


def reply_as_json(reply: Reply) -> dict[str, Any]:
    """An answer as `--json` and `--batch` show it."""
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": {**asdict(reply.usage), "tiles_cached": reply.usage.tiles_cached},
        "timings": asdict(reply.timings),
        "notices": list(reply.notices),
    }


def show_library_log() -> None:
    """Send the log of llama.cpp and of this package to stderr (`--verbose`)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    ours = logging.getLogger("internvl_gguf")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
