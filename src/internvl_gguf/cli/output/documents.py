"""What goes to stdout for programs: JSON, documents as they stand, and answers as the model gives them."""

from __future__ import annotations

import json
import sys
from typing import Any, BinaryIO

import typer

from internvl_gguf.cli.output.lines import is_terminal
from internvl_gguf.utils.safe_text import safe_text


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


def print_document(text: str) -> None:
    """A document on stdout, as it stands: it ends as it ends."""
    typer.echo(text, nl=False)


def answer_stream() -> BinaryIO:
    """Stdout for records, one JSON object a line."""
    return sys.stdout.buffer


class StreamedAnswer:
    """An answer on stdout, piece by piece. A file or a program gets what the model said, a terminal harmless text."""

    def __init__(self) -> None:
        self._ends_line = True

    def write(self, text: str) -> None:
        """The next piece."""
        sys.stdout.write(safe_text(text) if is_terminal() else text)
        sys.stdout.flush()
        self._ends_line = text.endswith("\n")

    def end(self) -> None:
        """It is over: end its last line."""
        if not self._ends_line:
            self.write("\n")
