"""Which worker gets which line: handed out, taken back from a busy one, handed out again after a death.

A worker reads and cuts the pictures of lines ahead of those that it answers, so it is given more lines than it can
begin. Where lines come to an end, these would lie with a slow worker while a fast one has nothing to do. Therefore:

- As soon as fewer lines are left than all workers together would read ahead, a worker gets a line only when it can
  begin it at once.
- Where none is left and a worker could begin one, it gets the last one of another worker that has not begun it.

A line goes to a worker that has one about the same pictures, where that has room: they are encoded once.

A worker that dies had begun at most as many lines as it answers at once, the first ones that it has. Nobody knows which
of them it died of: each is tried once more, alone in its worker. The others were not begun and go to any worker.

No processes and no clock here: what is to be sent is returned, what has come is told.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from internvl_gguf.bulk.answerer import PlacedLine, PlacedLines
from internvl_gguf.bulk.clip_fields import CLIP_FIELDS
from internvl_gguf.bulk.lines import Line, digest_of
from internvl_gguf.session.feed import Absent, feed_of

Worker = TypeVar("Worker", bound=Hashable)

_MOST_TRIES: Final = 2


class HandOut(NamedTuple, Generic[Worker]):
    """Give these lines to a worker."""

    worker: Worker
    lines: tuple[PlacedLine, ...]


class Recall(NamedTuple, Generic[Worker]):
    """Ask a worker for these lines back, by their places, unless it has begun them."""

    worker: Worker
    places: tuple[int, ...]


@dataclass
class _Hand:
    """The lines that a worker has.

    Attributes:
        n_parallel: lines that it answers at once.
        lines: by place, in the order in which they were handed out.
        recalled: places that it was asked for and has not answered.
        kept: places that it was asked for and has begun.
        is_testing: whether its line is alone with it, as one of which a worker died.
    """

    n_parallel: int
    lines: dict[int, PlacedLine] = field(default_factory=dict)
    recalled: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    is_testing: bool = False

    @property
    def read_ahead(self) -> int:
        """Lines beyond those being answered whose pictures a worker reads and cuts."""
        return self.n_parallel + 1

    @property
    def unbegun(self) -> list[int]:
        """Places of lines that it has not begun, and that nobody has asked for."""
        places = list(self.lines)[self.n_parallel :]
        return [place for place in places if place not in self.recalled and place not in self.kept]

    @property
    def n_free(self) -> int:
        """Lines that it could begin at once."""
        return 0 if self.is_testing else max(0, self.n_parallel - len(self.lines))


class Dispatcher(Generic[Worker]):
    """Hands out lines, and knows who has which.

    Args:
        lines: read as they are needed: a few more than all workers have. A `Feed` may have none at this moment, as long
            as a line is under way.

    Attributes:
        is_paused: whether nothing is handed out.
    """

    def __init__(self, lines: PlacedLines) -> None:
        self._lines = feed_of(lines)
        self._waiting: deque[PlacedLine] = deque()
        self._suspects: deque[PlacedLine] = deque()
        self._deaths: Counter[int] = Counter()
        self._pictures: dict[int, str] = {}  # of lines that have no outcome, by place
        self._hands: dict[Worker, _Hand] = {}
        self.is_paused = False

    @property
    def is_done(self) -> bool:
        """Whether every line has its outcome."""
        return self.is_idle and not self._suspects and not self._look_ahead(1)

    @property
    def is_idle(self) -> bool:
        """Whether no worker has a line."""
        return not any(hand.lines for hand in self._hands.values())

    def add(self, worker: Worker, n_parallel: int) -> None:
        """Add a worker that has loaded its model and answers so many lines at once."""
        self._hands[worker] = _Hand(n_parallel)

    def has(self, worker: Worker) -> bool:
        """Return whether a worker was added, and has neither died nor been removed."""
        return worker in self._hands

    def remove(self, worker: Worker) -> None:
        """Remove a worker that has no lines."""
        self._hands.pop(worker, None)

    def pause(self) -> None:
        """Hand out nothing any more, and take back what has not begun, until `resume`."""
        self.is_paused = True

    def resume(self) -> None:
        """Hand out lines again."""
        self.is_paused = False

    def moves(self) -> list[HandOut[Worker] | Recall[Worker]]:
        """Return what is to be sent now; it counts as sent."""
        if self.is_paused:
            recalls = [Recall(worker, tuple(hand.unbegun)) for worker, hand in self._hands.items() if hand.unbegun]
            for recall in recalls:
                self._hands[recall.worker].recalled.update(recall.places)
            return [*recalls]
        handed = self._hand_out_suspects()
        given: dict[Worker, list[PlacedLine]] = {}
        while (worker := self._next_worker()) is not None:
            line = self._waiting.popleft()
            self._hands[worker].lines[line.place] = line
            given.setdefault(worker, []).append(line)
        handed += [HandOut(worker, tuple(lines)) for worker, lines in given.items()]
        return [*handed, *self._recalls()]

    def answered(self, worker: Worker, place: int) -> PlacedLine:
        """Take note of the outcome of a line; return the line."""
        hand = self._hands[worker]
        hand.recalled.discard(place)
        hand.kept.discard(place)
        hand.is_testing = False
        self._pictures.pop(place, None)
        return hand.lines.pop(place)

    def returned(self, worker: Worker, given: Collection[int], kept: Collection[int]) -> None:
        """Take note of what a worker says to a `Recall`.

        Args:
            worker: the worker.
            given: places of lines that it has given back.
            kept: places of those that it has begun, or answered meanwhile.
        """
        hand = self._hands[worker]
        hand.recalled.difference_update(given, kept)
        hand.kept.update(place for place in kept if place in hand.lines)
        self._put_back([hand.lines.pop(place) for place in given])

    def died(self, worker: Worker) -> list[PlacedLine]:
        """Take note of the death of a worker; return the lines that are not tried again, for they were twice."""
        hand = self._hands.pop(worker, None)
        if hand is None:  # it had not loaded its model
            return []
        lines = list(hand.lines.values())
        begun = [line for index, line in enumerate(lines) if index < hand.n_parallel or line.place in hand.kept]
        self._put_back([line for line in lines if line not in begun])
        self._deaths.update(line.place for line in begun)
        self._suspects.extend(line for line in begun if self._deaths[line.place] < _MOST_TRIES)
        return [line for line in begun if self._deaths[line.place] >= _MOST_TRIES]

    def _put_back(self, lines: Iterable[PlacedLine]) -> None:
        self._waiting.extendleft(sorted(lines, key=lambda line: -line.place))

    def _look_ahead(self, count: int) -> int:
        """Return how many of the next `count` lines there are."""
        while len(self._waiting) < count:
            line = self._lines.take(waits=False)
            if isinstance(line, Absent):
                break
            self._waiting.append(line)
        return min(len(self._waiting), count)

    def _hand_out_suspects(self) -> list[HandOut[Worker] | Recall[Worker]]:
        """Hand out the lines that a worker may have died of, each to a worker that has no other."""
        handed: list[HandOut[Worker] | Recall[Worker]] = []
        for worker, hand in self._hands.items():
            if self._suspects and not hand.lines:
                line = self._suspects.popleft()
                hand.lines[line.place] = line
                hand.is_testing = True
                handed.append(HandOut(worker, (line,)))
        return handed

    def _next_worker(self) -> Worker | None:
        """Return the worker that gets the next line: one that knows its pictures, else the one with the least to do.

        None if none gets one.
        """
        all_ahead = sum(hand.read_ahead for hand in self._hands.values())
        left = self._look_ahead(max(1, all_ahead))
        is_tail = left < all_ahead
        room = {
            worker: len(hand.lines) / hand.n_parallel
            for worker, hand in self._hands.items()
            if not hand.is_testing and len(hand.lines) < hand.n_parallel + (0 if is_tail else hand.read_ahead)
        }
        if not left:
            return None
        near = [worker for worker in room if self._knows(worker, self._waiting[0])]
        return min(near or room, key=lambda worker: room[worker], default=None)

    def _knows(self, worker: Worker, line: PlacedLine) -> bool:
        """Return whether a worker has a line about the same pictures."""
        if line.place not in self._pictures:
            self._pictures[line.place] = pictures_key(line.line)
        key = self._pictures[line.place]
        return bool(key) and any(self._pictures.get(place) == key for place in self._hands[worker].lines)

    def _recalls(self) -> list[HandOut[Worker] | Recall[Worker]]:
        """Ask for lines back that could begin elsewhere at once, the last ones of those who have most."""
        wanted = sum(hand.n_free for hand in self._hands.values()) if not self._waiting else 0
        wanted -= sum(len(hand.recalled) for hand in self._hands.values())
        asked: dict[Worker, list[int]] = {}
        while wanted > 0:
            worker = max(self._hands, key=lambda worker: len(self._hands[worker].unbegun))
            if not (unbegun := self._hands[worker].unbegun):
                break
            self._hands[worker].recalled.add(unbegun[-1])
            asked.setdefault(worker, []).append(unbegun[-1])
            wanted -= 1
        return [Recall(worker, tuple(places)) for worker, places in asked.items()]


def pictures_key(line: Line) -> str:
    """Return a digest of the pictures and clips that a line names; "" for none."""
    given = line.known_fields
    named = [given.get(name) for name in ("images", *CLIP_FIELDS)]
    return digest_of(json.dumps(named).encode()) if any(named) else ""
