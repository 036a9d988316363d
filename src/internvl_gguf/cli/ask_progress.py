"""What `internvl ask` shows while something takes time, on one line of stderr."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from internvl_gguf.cli.output import StatusLine, say, status_line
from internvl_gguf.cli.parameters import in_flags
from internvl_gguf.utils.sizes import counted


@contextlib.contextmanager
def ask_progress(noun: str) -> Iterator[AskProgress]:
    """Show what takes time on one line, until the work ends. `noun` is as in `AskProgress`."""
    with status_line("Loading the model") as line:
        yield AskProgress(line, noun)


class AskProgress:
    """Show on one line what takes time at the moment.

    Args:
        line: where it is shown.
        noun: what the question is about, "picture" or "clip".

    Attributes:
        is_answering: whether the answer is being written, so that notices wait.
    """

    def __init__(self, line: StatusLine, noun: str) -> None:
        self.line = line
        self._noun = noun
        self.is_answering = False
        self._thought = ""
        self._after_answer: list[str] = []

    def notice(self, line: str) -> None:
        """Show a notice; one that comes while the answer is written waits for its end."""
        if self.is_answering:
            self._after_answer.append(in_flags(line))
        else:
            self.line.say(in_flags(line))

    def answered(self) -> None:
        """Show the notices that waited."""
        self.is_answering = False
        for line in self._after_answer:
            say(line)

    def load(self, done: float) -> None:
        """Show how much of the model is loaded, 0 to 1."""
        self.line.show(f"Loading the model, {done:.0%}")

    def load_judge(self, done: float) -> None:
        """Show how much of the critic is loaded, 0 to 1."""
        self.line.show(f"Loading the critic, {done:.0%}")

    def candidates(self, ended: int, every: int, tokens: int) -> None:
        """Show how many of several answers have ended, and the tokens of all."""
        if tokens:  # pictures are looked at before
            self.line.show(
                f"{ended} of {every} answers, {counted(tokens, 'token')}" if ended < every else "Judging the answers"
            )

    def think(self, piece: str) -> None:
        """Show the end of the thought under way."""
        from internvl_gguf.chat.formatting import thought_end

        self._thought += piece
        self.line.show(f"Thinking, {thought_end(self._thought, shutil.get_terminal_size().columns - 16)}")

    def tiles(self, done: int, total: int) -> None:
        """Show how many tiles are encoded."""
        self.line.show(f"Looking at the {self._noun}, tile {min(done + 1, total)} of {total}")
