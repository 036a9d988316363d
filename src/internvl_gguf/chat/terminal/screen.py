"""What a chat shows, and to whom: a terminal, a screen reader, or a script that reads the answers."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from internvl_gguf.errors import InsufficientMemoryError, InternVLError
from internvl_gguf.utils.safe_text import broken, safe_text

if TYPE_CHECKING:
    from PIL.Image import Image


_HANG = 4
_TICKS_BEFORE_PROGRESS = 10
"""Where lines stay, what is over sooner is not worth one."""


class Screen(ABC):
    """Where a chat is shown. One answer at a time: `begin_answer`, `write` its pieces, `end_answer`.

    Attributes:
        speaks_words: whether symbols are told in words, for people who listen to their screen.
    """

    speaks_words = False

    @property
    def columns(self) -> int:
        """Columns that are written to; the last one of a terminal stays free."""
        return max(shutil.get_terminal_size().columns - 1, 10)

    @abstractmethod
    def say(self, text: str = "") -> None:
        """A line or several for the person, broken at words."""

    @abstractmethod
    def show_lines(self, lines: Sequence[str]) -> None:
        """Lines in columns; one that is too long goes on further in."""

    @abstractmethod
    def quote(self, role: str, text: str) -> None:
        """A question or an answer of before."""

    @abstractmethod
    def progress(self, phase: str = "", detail: str = "", *, at_once: bool = False) -> None:
        """What takes time now, and how far it is; nothing where it is over.

        Args:
            at_once: show it even if it may be over soon.
        """

    @abstractmethod
    def tick(self) -> None:
        """Some time passed: what moves may move."""

    @abstractmethod
    def begin_answer(self) -> None:
        """An answer follows."""

    @abstractmethod
    def write(self, text: str) -> None:
        """A piece of the answer."""

    @abstractmethod
    def end_answer(self) -> None:
        """The answer is over."""

    @abstractmethod
    def status(self, parts: Sequence[str]) -> None:
        """What the answer took."""

    def fail(self, error: InternVLError) -> None:
        """What happened, and what to do."""
        if isinstance(error, InsufficientMemoryError) and error.table:
            self.show_lines(error.table.splitlines())
        self.say(f"Error: {error.message}")
        self.say(error.hint)

    def preview(self, picture: Image) -> None:
        """Show a picture in small, where the terminal can."""
        return


class PlainScreen(Screen):
    """Nothing is redrawn and nothing moves.

    Args:
        answers: where answers go.
        rest: where everything else goes.
        is_script: whether a script asks: nobody waits for progress or wonders what an answer took.
        speaks_words: whether symbols are told in words, and who speaks is said.
    """

    def __init__(self, answers: TextIO, rest: TextIO, *, is_script: bool, speaks_words: bool) -> None:
        self._answers = answers
        self._rest = rest
        self._is_raw = not answers.isatty()
        self._is_script = is_script
        self.speaks_words = speaks_words
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
        if self.speaks_words:
            self.write("Answer: ")

    def write(self, text: str) -> None:
        if text:
            # A file or a program gets what the model said; a terminal would act on what it obeys.
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
