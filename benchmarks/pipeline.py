"""A simulation of many machines answering questions about pictures: where the time goes, and what is full first.

The pipeline is that of `internvl_gguf.ray`: one driver hands batches of rows to actors; an actor reads the pictures of
its batch from a storage that all share, decodes and cuts them in two threads, and answers them on its device, one stage
beside the other; the driver takes the answers and writes them. Each stage is a server with a queue, first come, first
served, and takes a fixed time for a picture: what was measured, or what the planner estimates.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Final

PREPARING_THREADS: Final = 2  # of a session
STAGES: Final = ("storage", "prepare", "device", "driver")


@dataclass(frozen=True)
class Rates:
    """Seconds that a picture takes in each stage.

    Attributes:
        read: at the storage that all share.
        prepare: one core to decode it and cut its tiles.
        device: its tiles, its prompt and its answer, with several answers at once.
        driver: handing it out and writing its answer.
        load: until an actor can answer.
        batch: rows that an actor gets at a time.
    """

    read: float
    prepare: float
    device: float
    driver: float
    load: float = 0.0
    batch: int = 64


@dataclass(frozen=True)
class Outcome:
    """What a simulated run took.

    Attributes:
        seconds: from the first row handed out to the last answer written, loading included.
        pictures: how many were answered.
        busy: part of that time in which each stage was at work, of those that there are of it: 1 is full.
    """

    seconds: float
    pictures: int
    busy: dict[str, float]

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.pictures / self.seconds

    @property
    def bottleneck(self) -> str:
        """The stage that is at work most."""
        return max(self.busy, key=self.busy.__getitem__)


class _Server:
    """A stage with several places; requests come in the order of time."""

    def __init__(self, places: int) -> None:
        self._free = [0.0] * places
        self.work = 0.0

    def serve(self, at: float, seconds: float) -> float:
        """Return when a request is done that comes at a time and takes so long."""
        end = max(at, heapq.heappop(self._free)) + seconds
        heapq.heappush(self._free, end)
        self.work += seconds
        return end


def simulate(rates: Rates, actors: int, pictures: int) -> Outcome:
    """Run a number of pictures through a cluster.

    Args:
        rates: of each stage.
        actors: how many there are, each with a device.
        pictures: how many are answered.
    """
    storage, driver = _Server(1), _Server(1)
    preparing = [_Server(PREPARING_THREADS) for _ in range(actors)]
    devices = [_Server(1) for _ in range(actors)]
    order = itertools.count()
    events: list[tuple[float, int, str, int, int]] = []

    def at(time: float, what: str, actor: int, rows: int = 1) -> None:
        heapq.heappush(events, (time, next(order), what, actor, rows))

    left, last = pictures, 0.0
    unfinished: defaultdict[int, int] = defaultdict(int)
    for actor in range(actors):
        at(rates.load, "idle", actor)
    while events:
        time, _, what, actor, rows = heapq.heappop(events)
        if what == "idle" and left:
            rows = min(rates.batch, left)
            left -= rows
            unfinished[actor] = rows
            for _ in range(rows):
                at(time, "read", actor)
        elif what == "read":
            at(storage.serve(time, rates.read), "prepare", actor)
        elif what == "prepare":
            at(preparing[actor].serve(time, rates.prepare), "device", actor)
        elif what == "device":
            at(devices[actor].serve(time, rates.device), "answered", actor)
        elif what == "answered":
            last = max(last, driver.serve(time, rates.driver))
            unfinished[actor] -= 1
            if not unfinished[actor]:
                at(time, "idle", actor)
    busy = {
        "storage": storage.work,
        "prepare": sum(each.work for each in preparing) / (actors * PREPARING_THREADS),
        "device": sum(each.work for each in devices) / actors,
        "driver": driver.work,
    }
    return Outcome(last, pictures, {name: work / last for name, work in busy.items()})


def steady(rates: Rates, actors: int, batches: int = 20) -> Outcome:
    """Return the outcome of a run so long that its beginning and end hardly count: no loading, many batches."""
    return simulate(replace(rates, load=0.0), actors, actors * rates.batch * batches)
