"""Timing native code on a machine that others use too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_SAMPLES: Final = 3  # undisturbed samples wanted of one run
_MIN_CPU_SHARE: Final = 0.95  # a sample is undisturbed if its threads got at least this share of CPU time
_LEAST_ROUNDS: Final = 3  # of a comparison, however slow; also the undisturbed samples that each run needs

Sample = tuple[float, float]
"""Seconds of one run, and the share of CPU time that its threads got meanwhile."""


@dataclass(frozen=True)
class TimingLimits:
    """Limits of the time that timing takes, in seconds.

    Attributes:
        sample: shortest sample: the system counts CPU time in milliseconds.
        run: time after which the samples of one run so far have to do.
        comparison: time after which a comparison of several runs ends.
    """

    sample: float = 0.05
    run: float = 1.2
    comparison: float = 8.0


DEFAULT_LIMITS: Final = TimingLimits()


@dataclass(frozen=True)
class Timing:
    """Time that one run takes.

    Attributes:
        fastest: seconds of the fastest sample; what disturbs a run makes it slower, never faster.
        median: seconds of the middle one.
        disturbed: whether other programs took the CPU in most samples, so that these may be far too slow.
    """

    fastest: float
    median: float
    disturbed: bool


@dataclass(frozen=True)
class TimedRun:
    """One of several runs whose times are compared.

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
    """Samples of one of several compared runs.

    Attributes:
        seconds: of each sample that counts.
        disturbed: whether other programs took the CPU in most of its samples; then all count, and may be far too slow.
    """

    seconds: tuple[float, ...]
    disturbed: bool


def time_repeatedly(run: Callable[[], object], n_threads: int = 0, limits: TimingLimits = DEFAULT_LIMITS) -> Timing:
    """Time a run repeatedly, after one warm-up run.

    Samples in which other programs took the CPU do not count, unless there are too few others: where threads wait for
    one that lost its core, a run takes several times longer.

    Args:
        run: what to time.
        n_threads: threads that it keeps busy all the time; 0 does not watch them.
        limits: of the time it takes.
    """
    run()
    calm: list[float] = []
    every: list[float] = []
    ends = time.perf_counter() + limits.run
    while len(calm) < _SAMPLES and (not every or time.perf_counter() < ends):
        seconds, busy = take_sample(run, n_threads, limits.sample)
        every.append(seconds)
        if busy >= _MIN_CPU_SHARE:
            calm.append(seconds)
    counted = calm or every
    return Timing(min(counted), statistics.median(counted), len(calm) < _SAMPLES and len(calm) < len(every))


def time_interleaved(
    trials: Mapping[str, TimedRun],
    n_samples: int,
    limits: TimingLimits = DEFAULT_LIMITS,
    sample: Callable[[Callable[[], object], int, float], Sample] | None = None,
) -> dict[str, Samples]:
    """Time several runs in turns, so that a machine that becomes slower does so for all of them.

    Each run has one sample a round; every other round goes backwards. The comparison ends when all runs have their
    samples, or after `limits.comparison` seconds. Samples in which other programs took the CPU do not count, see
    `time_repeatedly`.

    Args:
        trials: by name.
        n_samples: undisturbed samples wanted of each.
        limits: of the time it takes.
        sample: takes one sample; None for `take_sample`.
    """
    sample = sample or take_sample
    for trial in trials.values():
        trial.prepare()
        trial.run()
    every: dict[str, list[float]] = {name: [] for name in trials}
    calm: dict[str, list[float]] = {name: [] for name in trials}
    order = list(trials)
    rounds, ends = 0, time.perf_counter() + limits.comparison
    while rounds < _LEAST_ROUNDS or (
        min(map(len, calm.values()), default=n_samples) < n_samples and time.perf_counter() < ends
    ):
        for name in order:
            trials[name].prepare()
            seconds, busy = sample(trials[name].run, trials[name].n_threads, limits.sample)
            every[name].append(seconds)
            if busy >= _MIN_CPU_SHARE:
                calm[name].append(seconds)
        order.reverse()
        rounds += 1
    disturbed = {name: len(calm[name]) < _LEAST_ROUNDS for name in trials}
    return {name: Samples(tuple(every[name] if disturbed[name] else calm[name]), disturbed[name]) for name in trials}


def take_sample(run: Callable[[], object], n_threads: int, shortest: float) -> Sample:
    """Time one run, averaged over several if it takes less than `shortest` seconds."""
    runs, elapsed = 0, 0.0
    started, used = time.perf_counter(), time.process_time()
    while not runs or elapsed < shortest:
        run()
        runs += 1
        elapsed = time.perf_counter() - started
    busy = (time.process_time() - used) / (n_threads * elapsed) if n_threads else 1.0
    return elapsed / runs, busy
