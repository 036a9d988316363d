"""How many workers a CPU is worth: found on the lines themselves, whose answers are kept, and remembered.

One worker answers the first lines, with all threads; then two, with half of them each; then twice as many, as long as
the work done in a second grows. Work is what a line would take by the planner's speeds, so that lines with many tiles
count for more. The first answers of each set of workers do not count: they are loading, or reading what all prompts
have in common.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.hardware.cpu_tuning import cpu_circumstances
from internvl_gguf.types import Reply
from internvl_gguf.utils.records import WORKERS

if TYPE_CHECKING:
    from internvl_gguf.bulk.answerer import Answering, LoadedFacts
    from internvl_gguf.hardware.device_speed import Range

_GAIN: Final = 1.1  # less is noise: lines differ, and so do minutes of a machine
_ROUNDS: Final = 3  # answers of each place that count
_LEAST_SECONDS: Final = 20.0
_WORTH: Final = 20  # lines that are left for each that a trial takes


@dataclass(frozen=True)
class Measured:
    """The result of a trial.

    Attributes:
        workers: the number of workers that is worth it.
        rates: seconds of work done in a second, by number of workers.
    """

    workers: int
    rates: Mapping[int, float]

    def keep(self, key: str) -> None:
        """Remember it; where that cannot be written, the next run measures again."""
        rates = {str(workers): rate for workers, rate in self.rates.items()}
        WORKERS.put(key, {"workers": self.workers, "rates": rates})


class RateWindow:
    """The work that a set of workers does in a second.

    Args:
        places: lines that they answer at once, all together.
        clock: returns seconds.

    Attributes:
        places: as given.
    """

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.places = places
        self._clock = clock
        self._count = 0
        self._work = 0.0
        self._began = self._ended = clock()

    def add(self, work: float) -> None:
        """Count a line that was answered while all workers were there."""
        self._count += 1
        self._ended = self._clock()
        if self._count <= self.places:
            self._began = self._ended
        else:
            self._work += work

    @property
    def is_over(self) -> bool:
        """Whether enough was seen."""
        seconds = self._ended - self._began
        return self._count >= self.places * (1 + _ROUNDS) and seconds >= _LEAST_SECONDS

    @property
    def rate(self) -> float:
        """Work done in a second; 0 where none was."""
        seconds = self._ended - self._began
        return self._work / seconds if seconds > 0 else 0.0


class WorkerTrial:
    """Which numbers of workers are tried, and which is worth it.

    Args:
        most: the largest number.

    Attributes:
        workers: the number that goes on.
        rates: seconds of work done in a second, by number of workers.
        is_settled: whether no other number is tried.
        is_proven: whether that is so because none is better.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.rates: dict[int, float] = {}
        self.workers = 1
        self.is_settled = self.is_proven = False

    def add(self, rate: float, *, may_grow: bool) -> None:
        """Take note of the rate of `workers`, and go on with the next number, or with the best.

        Args:
            rate: seconds of work done in a second.
            may_grow: whether enough lines are left for a larger number.
        """
        is_better = rate > _GAIN * max(self.rates.values(), default=0.0)
        self.rates[self.workers] = rate
        could_grow = is_better and self.workers < self._most
        if could_grow and may_grow:
            self.workers = min(2 * self.workers, self._most)
            return
        self.workers = self.best
        self.is_settled = True
        self.is_proven = rate > 0 and not could_grow

    @property
    def best(self) -> int:
        """The smallest number of workers that no larger one exceeds by more than noise."""
        chosen = 1
        for workers, rate in sorted(self.rates.items()):
            if rate > _GAIN * self.rates.get(chosen, 0.0):
                chosen = workers
        return chosen


def is_worth_a_trial(lines: int, places: int) -> bool:
    """Return whether so many lines are left that the best number of workers should be known.

    Args:
        lines: lines that are left.
        places: lines that are answered at once by the workers to be tried.
    """
    return lines >= _WORTH * places * (1 + _ROUNDS)


def work_of(outcome: object, facts: LoadedFacts) -> float:
    """Return the seconds that an answer would take alone by the planner's speeds; 0 of an error."""
    if not isinstance(outcome, Reply):
        return 0.0
    usage, speed = outcome.usage, facts.speed
    work = (usage.prompt_tokens - usage.cached_tokens) / _middle(speed.prefill)
    work += usage.completion_tokens / _middle(speed.decode)
    return work + (usage.tiles_encoded * _middle(speed.tile_seconds) if speed.tile_seconds else 0.0)


def _middle(value: Range) -> float:
    return fmean((value.low, value.high))


def known_workers(key: str) -> int | None:
    """Return the number of workers that an earlier run found; None if none did."""
    return WORKERS.get(key, _read)


def _read(kept: Any) -> int:
    workers = int(kept["workers"])
    if workers < 1:
        raise ValueError(f"{workers} workers")
    return workers


def trial_key(answering: Answering, n_threads: int) -> str:
    """Return what the best number of workers depends on: the machine, the model, and how it is run."""
    files, opening = answering.files, answering.opening
    sizes = " ".join(f"{path.name} {path.stat().st_size}" for path in (files.text, files.mmproj))
    names = ("n_ctx", "n_parallel", "kv_type", "flash_attn", "encoder", "encoder_precision", "n_draft", "max_tiles")
    options = " ".join(f"{name}={opening.get(name)}" for name in names)
    return f"{cpu_circumstances()}; {sizes}; {options}; {n_threads} threads"
