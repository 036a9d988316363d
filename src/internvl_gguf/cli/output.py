"""One way out: the answer to stdout, everything else to stderr, errors in two lines, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import typer

from internvl_gguf.errors import InsufficientMemoryError, InternVLError, InvalidRequestError
from internvl_gguf.types import Reply

FAILED, WRONG_USAGE = 1, 2
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def run(command: Callable[[], Any]) -> int:
    """Run a command line and give its exit code; no error of ours leaves a traceback.

    Usage errors (2), interruption (130) and a reader that left (1) end in the command line library, as SystemExit.
    """
    try:
        command()
    except InternVLError as error:
        say_error(error)
        return FAILED
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        say_error(InternVLError(f"The answer could not be written: {error.strerror}.", "Free some space."))
        return FAILED
    return 0


def say(line: str) -> None:
    """A line for the person, on stderr."""
    typer.echo(line, err=True)


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
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


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
