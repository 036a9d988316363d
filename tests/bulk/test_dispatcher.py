"""Who gets which line: each is answered once, nobody waits while another has a line to give, a death costs little."""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.bulk.answerer import PlacedLine
from internvl_gguf.bulk.dispatcher import Dispatcher, HandOut, Recall, pictures_key
from internvl_gguf.bulk.lines import Line


def placed(count: int) -> list[PlacedLine]:
    return [PlacedLine(place, Line(place + 1, b"{}")) for place in range(count)]


@dataclass
class StandIn:
    """A worker of the simulation: it answers its first lines, each in a time of its own."""

    n_parallel: int
    speed: float
    lines: list[int] = field(default_factory=list)
    running: set[int] = field(default_factory=set)


class Simulation:
    """Workers with one dispatcher, in simulated time; messages take none.

    Args:
        dispatcher: hands out the lines.
        draw: makes times.
        workers: number and speed of each.
    """

    def __init__(self, dispatcher: Dispatcher[int], draw: random.Random, workers: list[StandIn]) -> None:
        self.dispatcher = dispatcher
        self.draw = draw
        self.workers = dict(enumerate(workers))
        self.outcomes: Counter[int] = Counter()
        self.tries: Counter[int] = Counter()
        self.now = 0.0
        self._ends: list[tuple[float, int, int]] = []
        self._next_worker = len(workers)
        for number, worker in self.workers.items():
            dispatcher.add(number, worker.n_parallel)

    def settle(self) -> None:
        """Carry out what the dispatcher wants, until it wants nothing."""
        while moves := self.dispatcher.moves():
            for move in moves:
                worker = self.workers[move.worker]
                if isinstance(move, HandOut):
                    worker.lines += [line.place for line in move.lines]
                else:
                    assert isinstance(move, Recall)
                    kept = set(move.places) & worker.running
                    given = set(move.places) - kept
                    worker.lines = [place for place in worker.lines if place not in given]
                    self.dispatcher.returned(move.worker, given, kept)
            for number in self.workers:
                self._begin(number)

    def _begin(self, number: int) -> None:
        worker = self.workers[number]
        for place in worker.lines[: worker.n_parallel]:
            if place not in worker.running:
                worker.running.add(place)
                self.tries[place] += 1
                heapq.heappush(self._ends, (self.now + self.draw.random() / worker.speed, number, place))

    def step(self) -> None:
        """Let the next line end."""
        while True:
            self.now, number, place = heapq.heappop(self._ends)
            if number in self.workers and place in self.workers[number].running:
                break
        worker = self.workers[number]
        worker.running.discard(place)
        worker.lines.remove(place)
        assert self.dispatcher.answered(number, place).place == place
        self.outcomes[place] += 1
        self._begin(number)

    def kill(self, number: int) -> None:
        """Let a worker die; another one takes its place."""
        worker = self.workers.pop(number)
        for line in self.dispatcher.died(number):
            self.outcomes[line.place] += 1
        self.workers[self._next_worker] = StandIn(worker.n_parallel, worker.speed)
        self.dispatcher.add(self._next_worker, worker.n_parallel)
        self._next_worker += 1


WORKERS = st.lists(
    st.builds(StandIn, st.integers(1, 4), st.sampled_from([0.01, 0.3, 1.0, 30.0])), min_size=1, max_size=4
)


@given(st.integers(0, 60), WORKERS, st.randoms(use_true_random=False))
def test_no_unbegun_line_lies_with_one_while_another_could_begin_it(
    count: int, workers: list[StandIn], draw: random.Random
) -> None:
    simulation = Simulation(Dispatcher(iter(placed(count))), draw, workers)
    simulation.settle()
    while not simulation.dispatcher.is_done:
        free = [worker for worker in simulation.workers.values() if len(worker.running) < worker.n_parallel]
        unbegun = [worker for worker in simulation.workers.values() if len(worker.lines) > worker.n_parallel]
        assert not free or not unbegun
        assert all(len(worker.lines) <= 2 * worker.n_parallel + 1 for worker in simulation.workers.values())
        simulation.step()
        simulation.settle()
    assert simulation.outcomes == Counter(range(count))
    assert all(tries == 1 for tries in simulation.tries.values()), "nothing is computed twice"


@given(st.integers(0, 40), WORKERS, st.randoms(use_true_random=False), st.sets(st.integers(0, 39), max_size=5))
def test_whoever_dies_every_line_has_one_outcome_and_two_tries_at_most(
    count: int, workers: list[StandIn], draw: random.Random, deaths: set[int]
) -> None:
    simulation = Simulation(Dispatcher(iter(placed(count))), draw, workers)
    simulation.settle()
    steps = 0
    while not simulation.dispatcher.is_done:
        if steps in deaths:
            simulation.kill(draw.choice(sorted(simulation.workers)))
        else:
            simulation.step()
        steps += 1
        simulation.settle()
    assert simulation.outcomes == Counter(range(count))
    assert all(tries <= 2 for tries in simulation.tries.values())


def test_a_line_that_kills_takes_no_other_line_with_it() -> None:
    """It is tried again alone: its neighbours of the first time are tried with it no more."""
    dispatcher: Dispatcher[str] = Dispatcher(placed(10))
    dispatcher.add("first", 3)
    (handed,) = dispatcher.moves()
    assert isinstance(handed, HandOut)
    assert len(handed.lines) == 7
    assert dispatcher.died("first") == []
    dispatcher.add("second", 3)
    tried: list[int] = []
    failed: list[int] = []
    worker = "second"
    while not dispatcher.is_done:
        for move in dispatcher.moves():
            assert isinstance(move, HandOut)
            for line in move.lines:
                tried.append(line.place)
                if line.place == 1:
                    failed += [each.place for each in dispatcher.died(worker)]
                    worker = "third"
                    dispatcher.add(worker, 3)
                else:
                    dispatcher.answered(worker, line.place)
    assert tried[:3] == [0, 1, 2]
    assert sorted(tried) == list(range(10))
    assert failed == [1]


def test_a_pause_takes_back_what_has_not_begun_and_the_next_workers_get_it() -> None:
    dispatcher: Dispatcher[str] = Dispatcher(placed(9))
    dispatcher.add("first", 2)
    dispatcher.moves()
    dispatcher.pause()
    (recall,) = dispatcher.moves()
    assert recall == Recall("first", (2, 3, 4))
    assert dispatcher.moves() == []
    dispatcher.returned("first", [3, 4], [2])
    for place in (0, 1, 2):
        dispatcher.answered("first", place)
    assert dispatcher.moves() == []
    assert dispatcher.is_idle
    assert not dispatcher.is_done
    dispatcher.remove("first")
    dispatcher.resume()
    dispatcher.add("second", 8)
    (handed,) = dispatcher.moves()
    assert isinstance(handed, HandOut)
    assert [line.place for line in handed.lines] == [3, 4, 5, 6, 7, 8]


def test_lines_about_one_picture_go_to_one_worker() -> None:
    """Two workers would encode it twice at the same moment."""
    data = [json.dumps({"prompt": "?", "images": [f"{place // 3}.png"]}).encode() for place in range(60)]
    lines = [PlacedLine(place, Line(place + 1, each)) for place, each in enumerate(data)]
    dispatcher: Dispatcher[str] = Dispatcher(lines)
    for name in ("one", "two"):
        dispatcher.add(name, 4)
    handed = {
        move.worker: {line.place // 3 for line in move.lines}
        for move in dispatcher.moves()
        if isinstance(move, HandOut)
    }
    assert len(handed["one"] & handed["two"]) <= 1  # the last of one that has no room for all three
    assert pictures_key(Line(1, b'{"prompt": "?"}')) == pictures_key(Line(1, b"no JSON")) == ""


def test_lines_are_read_a_few_ahead_only() -> None:
    read: list[int] = []

    def endless() -> object:
        for line in placed(10**6):
            read.append(line.place)
            yield line

    dispatcher: Dispatcher[str] = Dispatcher(endless())  # type: ignore[arg-type]
    dispatcher.add("one", 4)
    dispatcher.moves()
    assert len(read) == 9 + 5
