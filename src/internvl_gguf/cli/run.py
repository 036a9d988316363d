"""Run a command line: report errors in two lines, and return an exit code."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator
from typing import Any

import typer

from internvl_gguf.cli.output import say, say_error
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.cli.settings_file import SettingsError
from internvl_gguf.cli.streams import closed_error, is_stdout_closed
from internvl_gguf.errors import CatalogError, InternVLError, InvalidRequestError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
_REASONS = {
    "int_parsing": "{!r} is not a whole number",
    "float_parsing": "{!r} is not a number",
    "bool_parsing": "{!r} is neither true nor false",
}
"""What pydantic's kinds of errors mean for a value of an option."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def run(command: typer.Typer) -> int:
    """Run a command line and return its exit code; errors of this package or of usage show no traceback.

    A reader that left ends in the command line library, as SystemExit(1).
    """
    try:
        code = typer.main.get_command(command).main(prog_name="internvl", standalone_mode=False)
    except InternVLError as error:
        _tell(error)
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
    """Describe an error in a command line in our own words, since the library's are for programmers."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else " ".join(["internvl", *sys.argv[1:2]])
    message = getattr(error, "format_message", error.__str__)()
    found: Any = error.__cause__
    if isinstance(error, typer.BadParameter) and hasattr(found, "errors"):  # pydantic's, which is not imported here
        first = found.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        name = max(error.param.opts if error.param else ["The argument"], key=len)
        message = f"{name}: {_REASONS[first['type']].format(first['input']) if first['type'] in _REASONS else said}"
    message = " ".join(message.split())
    return InternVLError(message if message.endswith(("?", ".")) else f"{message}.", f"See {path} --help.")


@contextlib.contextmanager
def option_errors() -> Iterator[None]:
    """Turn an option value out of range into wrong usage, exit code 2."""
    try:
        yield
    except InvalidRequestError as error:
        _tell(error)
        raise typer.Exit(WRONG_USAGE) from error


def _tell(error: InternVLError) -> None:
    say_error(error, str if isinstance(error, SettingsError | CatalogError) else in_flags)
