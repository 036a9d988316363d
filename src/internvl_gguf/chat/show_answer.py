"""Asks one question in the background thread and shows its progress and answer; Ctrl-C stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internvl_gguf.chat.background_thread import BackgroundThread, Interrupt, interrupts_as_events
from internvl_gguf.chat.formatting import thought_end
from internvl_gguf.types import Chunk
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.chat.terminal.screen import Screen
    from internvl_gguf.session.contract import AnySession
    from internvl_gguf.types import Reply

TICK = 0.1  # seconds
_THINKING: Final = "Thinking"
_BESIDE: Final = 4  # columns of the spinner, the comma and two spaces


class LeaveChatAtOnce(Exception):  # noqa: N818  (nothing went wrong)
    """Ctrl-C was pressed twice: leave the chat without waiting for the answer."""


@dataclass(frozen=True)
class TilesEncoded:
    """Event: progress of encoding the tiles of a question."""

    done: int
    total: int


@dataclass(frozen=True)
class AnswersWritten:
    """Event: progress of several answers to a question.

    Attributes:
        ended: those that have ended.
        every: all of them.
        tokens: what is written of all; None where a server does not say it.
    """

    ended: int
    every: int
    tokens: int | None = None


@dataclass(frozen=True)
class Shown:
    """What came of a question.

    Attributes:
        reply: the answer; None if there is none.
        was_stopped: whether Ctrl-C was pressed.
    """

    reply: Reply | None
    was_stopped: bool


@dataclass(frozen=True)
class Phase:
    """Event: another phase of the work that comes before an answer.

    Attributes:
        text: the phase.
        detail: how far it is.
    """

    text: str
    detail: str = ""


@dataclass(frozen=True)
class NoticeLine:
    """Event: a notice for the user."""

    line: str


def show_answer(
    thread: BackgroundThread, stream: Callable[[], Iterable[Chunk]], session: AnySession, screen: Screen
) -> Shown:
    """Ask a question, show the answer as it streams, and stop it on Ctrl-C; of several answers the best so far stays.

    Args:
        thread: the thread that asks.
        stream: asks the question; called in that thread.
        session: the session that answers.
        screen: shows progress and answer.

    Returns:
        The answer, with finish_reason "aborted" if Ctrl-C cut it.

    Raises:
        InternVLError: the question cannot be asked.
        LeaveChatAtOnce: Ctrl-C was pressed a second time.
    """
    task = thread.start(stream)
    showing = _AnswerDisplay(session, screen)
    try:
        with interrupts_as_events(task):
            for event in task.events(TICK):
                showing.take(event)
    finally:
        showing.end()
    if showing.interrupts and any(isinstance(event, Interrupt) for event in task.unread()):
        raise LeaveChatAtOnce
    return Shown(showing.reply, was_stopped=bool(showing.interrupts))


class _AnswerDisplay:
    """Shows the events of one question.

    Attributes:
        reply: the finished answer; None before.
        interrupts: how often Ctrl-C was pressed.
    """

    def __init__(self, session: AnySession, screen: Screen) -> None:
        self.reply: Reply | None = None
        self.interrupts = 0
        self._session = session
        self._screen = screen
        self._has_begun = False
        self._thought = ""
        screen.progress("Reading the question")

    def take(self, event: object) -> None:
        """Show one event."""
        if isinstance(event, Interrupt):
            self.interrupts += 1
            if self.interrupts > 1:
                raise LeaveChatAtOnce
            if not self._has_begun:  # an answer stops at its next token; a picture or a long prompt takes longer
                self._screen.progress("Stopping", "Ctrl-C again leaves the chat")
        elif isinstance(event, Chunk):
            self._answer(event)
        elif isinstance(event, TilesEncoded) and not self.interrupts:
            self._tiles(event)
        elif isinstance(event, AnswersWritten) and not self.interrupts and not self._has_begun:
            self._answers(event)
        elif isinstance(event, Phase) and not self.interrupts and not self._has_begun:
            self._screen.progress(event.text, event.detail)
        elif isinstance(event, NoticeLine):
            self._screen.say(event.line)
        elif event is None:
            self._screen.tick()
        if self.interrupts:
            self._session.abort()  # each time: the question may not have been under way yet

    def end(self) -> None:
        """Finish the display after the last event."""
        self._screen.progress()
        if self._has_begun:
            self._screen.end_answer()

    def _answer(self, chunk: Chunk) -> None:
        self.reply = chunk.reply or self.reply
        self._thought += chunk.thinking
        if chunk.thinking and not self.interrupts:
            width = self._screen.columns - len(_THINKING) - _BESIDE
            self._screen.progress(_THINKING, thought_end(self._thought, max(width, 1)))
        if not chunk.text:
            return
        if not self._has_begun:
            self._has_begun = True
            self._screen.progress()
            self._screen.begin_answer()
        self._screen.write(chunk.text)

    def _answers(self, event: AnswersWritten) -> None:
        if event.ended == event.every:
            self._screen.progress("Judging the answers")
        elif event.tokens != 0:  # the question is read before
            tokens = "" if event.tokens is None else f", {counted(event.tokens, 'token')}"
            self._screen.progress("Answering", f"{event.ended} of {event.every} answers{tokens}")

    def _tiles(self, event: TilesEncoded) -> None:
        if event.done < event.total:
            self._screen.progress("Looking at the picture", f"tile {event.done + 1} of {event.total}")
        else:
            self._screen.progress("Reading what was seen", counted(event.total, "tile"))
