"""Timing native code on a machine that others use too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_SAMPLE_SECONDS: Final = 0.05  # of a sample, at least: the system counts CPU time in milliseconds
_SAMPLES: Final = 3  # that nothing disturbed
_PATIENCE: Final = 1.2  # seconds after which whatever there is must do
_UNDISTURBED: Final = 0.95  # of the CPU time that its threads could have, a sample that nothing disturbed had this much
_LEAST_ROUNDS: Final = 3  # of what is compared, however slow it is; so many samples must be undisturbed
_COMPARING: Final = 8.0  # seconds after which a comparison ends


@dataclass(frozen=True)
class Timing:
    """How long something takes.

    Attributes:
        fastest: seconds of the fastest sample; what disturbs a run makes it slower, never faster.
        median: seconds of the middle one.
        disturbed: whether other programs took the CPU in most samples, so that these may be far too slow.
    """

    fastest: float
    median: float
    disturbed: bool


@dataclass(frozen=True)
class Trial:
    """One of several things whose times are compared.

    Attributes:
        prepare: done before each sample; its time does not count.
        run: what to time.
        n_threads: threads that it keeps busy all the time.
    """

    prepare: Callable[[], object]
    run: Callable[[], object]
    n_threads: int


@dataclass(frozen=True)
class Samples:
    """How long one of them took.

    Attributes:
        seconds: of each sample that counts.
        disturbed: whether other programs took the CPU in most of its samples; then all count, and may be far too slow.
    """

    seconds: tuple[float, ...]
    disturbed: bool


def timed(run: Callable[[], object], n_threads: int = 0) -> Timing:
    """Run something again and again, after once to warm up.

    Samples in which other programs took the CPU do not count, unless there are too few others: where threads wait for
    one that lost its core, a run takes several times longer.

    Args:
        run: what to time.
        n_threads: threads that it keeps busy all the time; 0 does not watch them.
    """
    run()
    calm: list[float] = []
    every: list[float] = []
    ends = time.perf_counter() + _PATIENCE
    while len(calm) < _SAMPLES and (not every or time.perf_counter() < ends):
        seconds, busy = _sample(run, n_threads)
        every.append(seconds)
        if busy >= _UNDISTURBED:
            calm.append(seconds)
    counted = calm or every
    return Timing(min(counted), statistics.median(counted), len(calm) < _SAMPLES and len(calm) < len(every))


def compared(trials: Mapping[str, Trial], n_samples: int) -> dict[str, Samples]:
    """Time several things in turns, so that a machine that becomes slower becomes so for all of them.

    Each has one sample in a round; every other round goes backwards. It ends when all have their samples, and after
    eight seconds with what there is. Samples in which other programs took the CPU do not count, as in `timed`.

    Args:
        trials: by name.
        n_samples: undisturbed samples wanted of each.
    """
    for trial in trials.values():
        trial.prepare()
        trial.run()
    every: dict[str, list[float]] = {name: [] for name in trials}
    calm: dict[str, list[float]] = {name: [] for name in trials}
    order = list(trials)
    rounds, ends = 0, time.perf_counter() + _COMPARING
    while rounds < _LEAST_ROUNDS or (
        min(map(len, calm.values()), default=n_samples) < n_samples and time.perf_counter() < ends
    ):
        for name in order:
            trials[name].prepare()
            seconds, busy = _sample(trials[name].run, trials[name].n_threads)
            every[name].append(seconds)
            if busy >= _UNDISTURBED:
                calm[name].append(seconds)
        order.reverse()
        rounds += 1
    disturbed = {name: len(calm[name]) < _LEAST_ROUNDS for name in trials}
    return {name: Samples(tuple(every[name] if disturbed[name] else calm[name]), disturbed[name]) for name in trials}


def _sample(run: Callable[[], object], n_threads: int) -> tuple[float, float]:
    """Seconds of a run, of several where it is short, and the part of their CPU time that its threads had."""
    runs, elapsed = 0, 0.0
    started, used = time.perf_counter(), time.process_time()
    while not runs or elapsed < _SAMPLE_SECONDS:
        run()
        runs += 1
        elapsed = time.perf_counter() - started
    busy = (time.process_time() - used) / (n_threads * elapsed) if n_threads else 1.0
    return elapsed / runs, busy
