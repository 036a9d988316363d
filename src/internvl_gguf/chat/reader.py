"""Readers of lines: the base class, and those for a script and for a terminal without an editor."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

from internvl_gguf.utils.text_data import decode_text, has_wide_mark

_QUOTES = '"""'


class Reader(ABC):
    """Reads the lines of a user or a script.

    Attributes:
        is_script: whether a script is read: no user can correct a line or answer a question.
    """

    is_script = False

    @abstractmethod
    def read(self, text: str, waiting: int) -> str:
        """Read the next line, or several lines within triple quotes.

        Args:
            text: initial text of the line.
            waiting: number of pictures added to the next question.

        Raises:
            EOFError: the input has ended.
            KeyboardInterrupt: Ctrl-C on an empty line; on another line it clears the line.
            InvalidRequestError: the input is not text.
        """

    @abstractmethod
    def choose(self, question: str) -> str:
        """Ask the user a question about the chat and return the answer; "" without one."""


def is_complete(text: str) -> bool:
    """Return whether the triple quotes that a text begins with, if any, are closed."""
    return not text.lstrip().startswith(_QUOTES) or text.count(_QUOTES) > 1


def without_quotes(text: str) -> str:
    """Return a text without the triple quotes around it."""
    inner = text.strip()
    if not inner.startswith(_QUOTES):
        return text
    before, _, after = inner[len(_QUOTES) :].rpartition(_QUOTES) if inner.count(_QUOTES) > 1 else (inner[3:], "", "")
    return (before + after).strip("\n")


class ScriptReader(Reader):
    """Reads the lines of a file or pipe.

    Args:
        file: text, in UTF-8 unless a byte order mark says otherwise.
    """

    is_script = True

    def __init__(self, file: BinaryIO) -> None:
        self._lines = self._decoded(file)

    def read(self, text: str, waiting: int) -> str:
        lines = [self._next()]
        while not is_complete("\n".join(lines)):
            try:
                lines.append(self._next())
            except EOFError:
                break
        return "\n".join(lines)

    def choose(self, question: str) -> str:
        return ""

    def _next(self) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None

    @staticmethod
    def _decoded(file: BinaryIO) -> Iterator[str]:
        for number, line in enumerate(file, 1):
            if number == 1 and has_wide_mark(line):  # its lines end within characters
                yield from decode_text(line + file.read(), "What comes on stdin").splitlines()
                return
            yield decode_text(line, f"Line {number} of stdin").rstrip("\r\n")


class PlainReader(Reader):
    """Reads lines with Python's `input`, without drawing.

    Args:
        prompt: text before the line.
    """

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt

    def read(self, text: str, waiting: int) -> str:
        prompt = f"{waiting} picture{'s' * (waiting > 1)} added. {self._prompt}" if waiting else self._prompt
        lines = [self._input(prompt, text)]
        while not is_complete("\n".join(lines)):
            lines.append(self._input("", ""))
        return "\n".join(lines)

    def choose(self, question: str) -> str:
        try:
            return self._input(f"{question} ", "")
        except (EOFError, KeyboardInterrupt):
            return ""

    @staticmethod
    def _input(prompt: str, text: str) -> str:
        """Read a line; `text` is put into it if this Python has readline."""
        if not sys.stdout.isatty():  # only answers go to stdout
            sys.stderr.write(prompt)
            sys.stderr.flush()
            prompt = ""
        try:
            import readline
        except ImportError:
            if text:
                sys.stderr.write(f"It was: {text}\n")
            return input(prompt)
        readline.set_startup_hook((lambda: readline.insert_text(text)) if text else None)
        try:
            return input(prompt)
        finally:
            readline.set_startup_hook(None)
