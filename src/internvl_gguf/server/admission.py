"""Places for requests of one model: some run, others wait in a bounded queue, in turn by client."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Final

from internvl_gguf.server.api_errors import RefusedRequestError

_REMEMBERED: Final = 16  # durations of requests, for the estimate of how long one waits
_LONGEST_WAIT: Final = 60  # seconds of Retry-After


class Place:
    """The place of one request: waiting, then running until `release`.

    Attributes:
        has_begun: set when it runs, or never will.
        refusal: why it never will; None otherwise.
    """

    def __init__(self, admission: Admission, client: Hashable) -> None:
        self._admission = admission
        self.client = client
        self.has_begun = asyncio.Event()
        self.refusal: Exception | None = None
        self.started = 0.0
        self._is_released = False

    @property
    def waiting_before(self) -> int:
        """Number of requests that wait and came before it or are in turn before it, about; 0 if it runs."""
        return 0 if self.has_begun.is_set() else self._admission.rank(self)

    def release(self) -> None:
        """Give the place to the next request; harmless if done before."""
        if not self._is_released:
            self._is_released = True
            self._admission.leave(self)


class Admission:
    """Decides which requests run. Used in the thread of the event loop only.

    Among those that wait, the client with the fewest running requests is first, and among equals the one whose turn
    was longest ago: a client with a hundred questions delays another by one.

    Args:
        parallel: requests that run at once.
        most_waiting: requests that may wait.
    """

    def __init__(self, parallel: int, most_waiting: int) -> None:
        self.parallel = parallel
        self._most_waiting = most_waiting
        self._queues: OrderedDict[Hashable, deque[Place]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def running(self) -> int:
        """Number of requests that run."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return sum(map(len, self._queues.values()))

    def check_room(self, coming: int = 0) -> None:
        """Refuse a request if too many wait already.

        Args:
            coming: requests that will come here and are still being prepared.

        Raises:
            RefusedRequestError: too many wait.
        """
        if self.running >= self.parallel and self.waiting + coming >= self._most_waiting:
            raise RefusedRequestError(
                f"{self.waiting + coming} requests wait already.",
                "Ask again later; the server's owner can raise the bound with --queue.",
                status=503,
                code="queue_full",
                retry_after=self._seconds_to_wait(),
            )

    def enter(self, client: Hashable) -> Place:
        """Return a place for a request; it runs at once if there is room.

        Raises:
            RefusedRequestError: too many wait.
        """
        self.check_room()
        place = Place(self, client)
        self._queues.setdefault(client, deque()).append(place)
        self._begin_next()
        return place

    def refuse_waiting(self, error: Exception) -> None:
        """Let no request that waits run any more: each ends in an error."""
        for queue in self._queues.values():
            for place in queue:
                place.refusal = error
                place.has_begun.set()
        self._queues.clear()

    def leave(self, place: Place) -> None:
        """Take a request out, whether it runs or waits."""
        if place.refusal is not None:
            return
        if place.has_begun.is_set():
            self._running[place.client] -= 1
            self._running += Counter()  # drops those at 0
            self._seconds.append(time.monotonic() - place.started)
        else:
            self._queues[place.client].remove(place)
            if not self._queues[place.client]:
                del self._queues[place.client]
        self._begin_next()

    def rank(self, place: Place) -> int:
        """Return how many requests are before a waiting one: those in turn until its own comes."""
        position = self._queues[place.client].index(place)
        return position + sum(
            min(len(queue), position + 1) for who, queue in self._queues.items() if who != place.client
        )

    def _begin_next(self) -> None:
        while self._queues and self.running < self.parallel:
            client = min(self._queues, key=lambda each: self._running[each])  # the first of equals
            queue = self._queues.pop(client)
            place = queue.popleft()
            if queue:
                self._queues[client] = queue  # at the end: others are in turn before its next
            self._running[client] += 1
            place.started = time.monotonic()
            place.has_begun.set()

    def _seconds_to_wait(self) -> int:
        each = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        return min(max(1, round(each * (self.waiting + 1) / self.parallel)), _LONGEST_WAIT)
