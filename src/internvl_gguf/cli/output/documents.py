"""Write to stdout for programs: JSON, documents unchanged, and answers as the model gives them."""

from __future__ import annotations

import json
import sys
from typing import Any, BinaryIO

import typer

from internvl_gguf.cli.output.lines import is_terminal
from internvl_gguf.utils.safe_text import can_show, safe_text


def print_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    print_json_text(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_text(text: str) -> None:
    """Print JSON to stdout; if stdout lacks a character, all characters beyond ASCII become JSON escapes."""
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = "".join(character if character.isascii() else json.dumps(character)[1:-1] for character in text)
    typer.echo(text.removesuffix("\n"))


def print_document(text: str) -> None:
    """Print a document to stdout unchanged; no line end is added."""
    typer.echo(text, nl=False)


def can_print(text: str) -> bool:
    """Return whether the encoding of stdout has all characters of a text."""
    return can_show(sys.stdout, text)


def answer_stream() -> BinaryIO:
    """Return stdout as a stream for records, one JSON object a line."""
    return sys.stdout.buffer


class StreamedAnswer:
    """Write an answer to stdout, piece by piece. A file or program gets it unchanged, a terminal harmless text."""

    def __init__(self) -> None:
        self._ends_line = True

    def write(self, text: str) -> None:
        """Write the next piece."""
        sys.stdout.write(safe_text(text) if is_terminal() else text)
        sys.stdout.flush()
        self._ends_line = text.endswith("\n")

    def end(self) -> None:
        """End the last line of the answer."""
        if not self._ends_line:
            self.write("\n")
