"""Read a picture or a question from stdin; a terminal is not waited for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.load import take_source
from internvl_gguf.types import Picture
from internvl_gguf.utils.text_data import decode_text

STDIN: Final = "-"
_OTHER_NAMES: Final = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")  # a socket cannot be opened under these
_NAME: Final = "the picture on stdin"


def is_stdin(image: str) -> bool:
    """Return whether the picture of that name is the one on stdin."""
    return image == STDIN or image in _OTHER_NAMES


def take_pictures(images: Sequence[str]) -> list[Picture]:
    """Return the pictures of the command line, read if on stdin or in pipes; a name given twice is one picture twice.

    Raises:
        PictureError: one that cannot be read.
        InvalidRequestError: none comes on stdin.
    """
    taken: dict[str, Picture] = {}
    for image in images:
        if image not in taken:
            taken[image] = _picture_on_stdin(taken) if is_stdin(image) else take_source(image)
    return [taken[image] for image in images]


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


def _picture_on_stdin(taken: dict[str, Picture]) -> Picture:
    before = next((picture for name, picture in taken.items() if is_stdin(name)), None)
    return before or take_source(read_picture(), _NAME)
