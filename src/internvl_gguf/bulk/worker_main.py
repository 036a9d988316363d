"""Main module of a worker of a batch: answers lines with a model of its own until there are no more.

It reads and cuts the pictures of its lines in this process; the model is in one more, so that a crash of the library is
an error of a question (`session.worker`). It ends when its parent does.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from internvl_gguf.bulk import worker_messages as messages
from internvl_gguf.bulk.answerer import Answered, PlacedLine, open_answerer
from internvl_gguf.errors import InternVLError
from internvl_gguf.session.feed import Absent, Feed
from internvl_gguf.session.worker.channel import Channel
from internvl_gguf.session.worker.child_side import Send, channel_to_parent, log_to_parent, sender
from internvl_gguf.session.worker.messages import Close, LogLine, NoticeLine

_LOOK_SECONDS: Final = 1.0


class LinesOfParent(Feed[PlacedLine]):
    """The lines that the parent sends. One thread adds them, another takes them.

    Args:
        send: sends to the parent.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lines: deque[PlacedLine] = deque()
        self._wanted: frozenset[int] = frozenset()
        self._is_closed = False
        self._change = threading.Condition()

    def add(self, lines: Sequence[PlacedLine]) -> None:
        """Add lines."""
        with self._change:
            self._lines.extend(lines)
            self._change.notify()

    def recall(self, places: Sequence[int]) -> None:
        """Give lines back that have not begun."""
        with self._change:
            self._wanted |= frozenset(places)
            self._change.notify()

    def close(self) -> None:
        """Say that there will be no more lines."""
        with self._change:
            self._is_closed = True
            self._change.notify()

    def take(self, *, waits: bool) -> PlacedLine | Absent:
        """See `Feed.take`."""
        with self._change:
            while True:
                if self._wanted:
                    if not waits:
                        return Absent.NOT_NOW  # what is wanted back is looked for first
                    self._give_back(())
                if self._lines:
                    return self._lines.popleft()
                if self._is_closed:
                    return Absent.NO_MORE
                if not waits:
                    return Absent.NOT_NOW
                self._change.wait()

    @property
    def is_ready(self) -> bool:
        """See `Feed.is_ready`."""
        return bool(self._lines) or self._is_closed

    @property
    def is_recalling(self) -> bool:
        """See `Feed.is_recalling`."""
        return bool(self._wanted)

    def withdraw(self, unbegun: Sequence[PlacedLine]) -> frozenset[int]:
        """See `Feed.withdraw`."""
        with self._change:
            return self._give_back(unbegun)

    def _give_back(self, unbegun: Sequence[PlacedLine]) -> frozenset[int]:
        """Tell the parent what it gets back, of these and of the lines that were not taken yet."""
        wanted, self._wanted = self._wanted, frozenset()
        found = frozenset(index for index, line in enumerate(unbegun) if line.place in wanted)
        given = {unbegun[index].place for index in found} | {each.place for each in self._lines if each.place in wanted}
        self._lines = deque(each for each in self._lines if each.place not in wanted)
        self._send(messages.GivenBack(tuple(sorted(given)), tuple(sorted(wanted - given))))
        return found


def main() -> None:
    """Do what the first message says."""
    parent = os.getppid()
    channel = channel_to_parent()
    send = sender(channel)
    first: messages.Start | messages.LayOut = channel.receive()
    log_to_parent(send, first.log_level, LogLine)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        if isinstance(first, messages.LayOut):
            _lay_out(first, send)
        else:
            _answer(first, channel, send)
    except InternVLError as error:
        send(messages.Failed(error))
    os._exit(0)  # without waiting for the thread that reads


def _lay_out(wanted: messages.LayOut, send: Send) -> None:
    from internvl_gguf.bulk.layout import lay_out

    send(messages.LaidOut(lay_out(wanted.answering, wanted.workers, lambda line: send(NoticeLine(line)))))


def _answer(start: messages.Start, channel: Channel, send: Send) -> None:
    lines = LinesOfParent(send)
    threading.Thread(target=_read, args=(channel, lines), daemon=True).start()

    def answered(each: Answered) -> None:
        send(messages.LineAnswered(each.place, each.outcome, each.is_bound))

    with open_answerer(
        start.answering,
        lambda done: send(messages.Loading(done)),
        lambda line: send(NoticeLine(line)),
        lambda done: send(messages.CriticLoading(done)),
    ) as answerer:
        send(messages.Ready(answerer.facts))
        answerer.answer(lines, answered)


def _read(channel: Channel, lines: LinesOfParent) -> None:
    """Pass on received messages; end the process when the parent does, even in the middle of an answer."""
    try:
        while True:
            message = channel.receive()
            if isinstance(message, messages.Lines):
                lines.add(message.lines)
            elif isinstance(message, messages.WantBack):
                lines.recall(message.places)
            elif isinstance(message, Close):
                lines.close()
    except EOFError:
        os._exit(0)


def _end_with_parent(parent: int) -> None:
    """End with the parent, though a sibling holds the pipe open."""
    never = threading.Event()
    while not never.wait(_LOOK_SECONDS):
        if os.getppid() != parent:
            os._exit(0)


if __name__ == "__main__":
    main()
