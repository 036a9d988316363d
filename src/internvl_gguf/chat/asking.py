"""One question under way: its events on the screen, Ctrl-C, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_gguf.chat.wording import count
from internvl_gguf.chat.worker import Interrupted, Worker, interrupts_told
from internvl_gguf.types import Chunk

if TYPE_CHECKING:
    from internvl_gguf.chat.terminal.screen import Screen
    from internvl_gguf.session import Session
    from internvl_gguf.types import Reply

TICK = 0.1  # seconds


class LeavingAtOnce(Exception):  # noqa: N818  (nothing went wrong)
    """Ctrl-C came twice: nobody waits for what is under way any more."""


@dataclass(frozen=True)
class TilesDone:
    """So many tiles of a question are encoded."""

    done: int
    total: int


@dataclass(frozen=True)
class Noted:
    """A line that the person should see."""

    line: str


def follow(worker: Worker, stream: Callable[[], Iterable[Chunk]], session: Session, screen: Screen) -> Reply | None:
    """Ask, show what comes, and let Ctrl-C end it.

    Args:
        stream: asks the question; it runs in the worker.
        session: who answers.

    Returns:
        The answer, with finish_reason "aborted" where Ctrl-C ended it; None where there is none.

    Raises:
        InternVLError: the question cannot be asked.
        LeavingAtOnce: Ctrl-C came a second time.
    """
    task = worker.start(stream)
    showing = _Showing(session, screen)
    try:
        with interrupts_told(task):
            for event in task.events(TICK):
                showing.take(event)
    finally:
        showing.end()
    return showing.reply


class _Showing:
    """What a question has shown so far.

    Attributes:
        reply: the answer once it is there.
    """

    def __init__(self, session: Session, screen: Screen) -> None:
        self.reply: Reply | None = None
        self._session = session
        self._screen = screen
        self._has_begun = False
        self._interrupts = 0
        screen.progress("Reading the question")

    def take(self, event: object) -> None:
        """Show one event."""
        if isinstance(event, Interrupted):
            self._interrupts += 1
            if self._interrupts > 1:
                raise LeavingAtOnce
            if not self._has_begun:  # an answer ends at its next token; a picture or a long prompt may take a while
                self._screen.progress("Stopping", "Ctrl-C again leaves the chat")
        elif isinstance(event, Chunk):
            self._answer(event)
        elif isinstance(event, TilesDone) and not self._interrupts:
            self._tiles(event)
        elif isinstance(event, Noted):
            self._screen.say(event.line)
        elif event is None:
            self._screen.tick()
        if self._interrupts:
            self._session.abort()  # each time: the question may not have been under way yet

    def end(self) -> None:
        """Nothing more comes."""
        self._screen.progress()
        if self._has_begun:
            self._screen.end_answer()

    def _answer(self, chunk: Chunk) -> None:
        self.reply = chunk.reply or self.reply
        if not chunk.text:
            return
        if not self._has_begun:
            self._has_begun = True
            self._screen.progress()
            self._screen.begin_answer()
        self._screen.write(chunk.text)

    def _tiles(self, event: TilesDone) -> None:
        if event.done < event.total:
            self._screen.progress("Looking at the picture", f"tile {event.done + 1} of {event.total}")
        else:
            self._screen.progress("Reading what was seen", count(event.total, "tile"))
