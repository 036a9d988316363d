"""Read a picture or a question from stdin; a terminal is not waited for."""

from __future__ import annotations

import sys
from typing import Final

import typer

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.text_data import decode_text

STDIN: Final = "-"
_OTHER_NAMES: Final = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")  # a socket cannot be opened under these


def is_stdin(image: str) -> bool:
    """Return whether the picture of that name is the one on stdin."""
    return image == STDIN or image in _OTHER_NAMES


def read_picture() -> bytes:
    """Return the bytes of the picture on stdin.

    Raises:
        InvalidRequestError: stdin is a terminal.
    """
    if sys.stdin.isatty():
        raise InvalidRequestError("No picture comes on stdin.", "Pipe one in, as in: cat photo.jpg | internvl ...")
    return sys.stdin.buffer.read()


def read_question() -> str:
    """Return the question on stdin, without line ends around it.

    Raises:
        typer.BadParameter: stdin is a terminal.
        InvalidRequestError: it is no text.
    """
    if sys.stdin.isatty():
        raise typer.BadParameter("give a question, or pipe one in", param_hint="PROMPT")
    return decode_text(sys.stdin.buffer.read(), "The question on stdin").strip("\r\n")
