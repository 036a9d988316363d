"""The output of a chat: the base class, and plain output for a screen reader or a script."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from internvl_gguf.errors import InsufficientMemoryError, InternVLError
from internvl_gguf.utils.safe_text import broken, safe_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from internvl_gguf.types import Box


_HANG = 4
_TICKS_BEFORE_PROGRESS = 10
"""Progress that ends sooner is not shown: here a printed line stays."""


class Screen(ABC):
    """Shows a chat. One answer at a time: `begin_answer`, `write` for each piece, `end_answer`.

    Attributes:
        for_screen_reader: whether symbols are written as words.
        shows_pictures: whether `preview` shows anything.
    """

    for_screen_reader = False
    shows_pictures = False

    @property
    def columns(self) -> int:
        """Number of columns used; the last column of a terminal stays free."""
        return max(shutil.get_terminal_size().columns - 1, 10)

    @property
    def rows(self) -> int:
        """Number of lines of the window."""
        return shutil.get_terminal_size().lines

    @abstractmethod
    def say(self, text: str = "") -> None:
        """Show a message to the user, wrapped at words."""

    @abstractmethod
    def show_lines(self, lines: Sequence[str]) -> None:
        """Show lines of a table; a line that is too long continues indented."""

    @abstractmethod
    def quote(self, role: str, text: str) -> None:
        """Show a question or an answer of an earlier turn."""

    @abstractmethod
    def progress(self, phase: str = "", detail: str = "", *, at_once: bool = False) -> None:
        """Show the current phase of work and its progress; without arguments, remove it.

        Args:
            at_once: whether it is shown at once, though it may end soon.
        """

    @abstractmethod
    def tick(self) -> None:
        """Update animations; called at regular intervals."""

    @abstractmethod
    def begin_answer(self) -> None:
        """Prepare for the pieces of an answer."""

    @abstractmethod
    def write(self, text: str) -> None:
        """Show a piece of the answer."""

    @abstractmethod
    def end_answer(self) -> None:
        """End the answer."""

    @abstractmethod
    def status(self, parts: Sequence[str]) -> None:
        """Show the statistics of the answer."""

    def fail(self, error: InternVLError) -> None:
        """Show an error: what happened, and what to do."""
        if isinstance(error, InsufficientMemoryError) and error.table:
            self.show_lines(error.table.splitlines())
        self.say(f"Error: {error.message}")
        self.show_lines([f"  {error.hint}"])

    def preview(self, picture: Image, boxes: Sequence[Box] = ()) -> None:
        """Show a small preview of a picture, if the terminal can; with boxes a larger one, on which they are drawn."""
        return


class PlainScreen(Screen):
    """Plain output: nothing is redrawn.

    Args:
        answers: file that answers are written to.
        rest: file that everything else is written to.
        is_script: whether a script asks: progress and statistics are left out.
        for_screen_reader: whether symbols are written as words, and each answer is announced.
    """

    def __init__(self, answers: TextIO, rest: TextIO, *, is_script: bool, for_screen_reader: bool) -> None:
        self._answers = answers
        self._rest = rest
        self._is_raw = not answers.isatty()
        self._is_script = is_script
        self.for_screen_reader = for_screen_reader
        self._phase = ""
        self._ticks = 0
        self._ends_line = True

    def say(self, text: str = "") -> None:
        if text or not self._is_script:
            self._tell(text)

    def show_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._tell(line, further_in=_HANG)

    def quote(self, role: str, text: str) -> None:
        self._tell(f"{'You' if role == 'user' else 'Answer'}: {text}")

    def progress(self, phase: str = "", detail: str = "", *, at_once: bool = False) -> None:
        if phase != self._phase:
            self._phase, self._ticks = phase, 0
        if at_once and self._ticks == 0:
            self._tell_phase()

    def tick(self) -> None:
        self._ticks += 1
        if self._phase and self._ticks == _TICKS_BEFORE_PROGRESS:
            self._tell_phase()

    def begin_answer(self) -> None:
        self._ends_line = True
        if self.for_screen_reader:
            self.write("Answer: ")

    def write(self, text: str) -> None:
        if text:
            # A file or a program gets the exact text; from a terminal, control characters are kept away.
            self._answers.write(text if self._is_raw else safe_text(text))
            self._answers.flush()
            self._ends_line = text.endswith("\n")

    def end_answer(self) -> None:
        if not self._ends_line:
            self.write("\n")

    def status(self, parts: Sequence[str]) -> None:
        if not self._is_script:
            self._tell(f"({', '.join(parts)})")

    def _tell_phase(self) -> None:
        self._ticks = _TICKS_BEFORE_PROGRESS  # once is enough
        if not self._is_script:
            self._tell(f"{self._phase}.")

    def _tell(self, line: str, further_in: int = 0) -> None:
        line = safe_text(line)
        if self._rest.isatty():
            indent = len(line) - len(line.lstrip(" "))
            line = broken(line, self.columns, " " * (indent + further_in))
        self._rest.write(f"{line}\n")
        self._rest.flush()
