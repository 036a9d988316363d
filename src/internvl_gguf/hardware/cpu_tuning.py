"""Choose thread counts and the batch size for this machine's CPU: measured once and kept, else by rule.

A record is valid for the machine, the build of the library and the cores it was made with, and for no other.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from internvl_gguf.config import DEFAULT_N_UBATCH
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.cores import default_threads, usable_cores, usable_physical_cores, usable_threads
from internvl_gguf.hardware.identity import library_fingerprint, machine_identity, processor_name
from internvl_gguf.utils.child_process import child_process, python_module
from internvl_gguf.utils.records import TUNING

OnProgress = Callable[[str], None]

ANSWERS: Final = (1, 2, 4)
"""Numbers of answers that are made at once; more than four gain little, and each takes a KV cache."""
UBATCHES: Final = (128, 256, 512, 1024, 2048)
_COMMAND: Final = python_module("internvl_gguf.llama.measure.threads")
_TIMEOUT: Final = 120.0  # seconds for everything
_THREADS_SLACK: Final = 0.03  # more threads must save more than this share of the time
_UBATCH_SLACK: Final = 0.05  # another size than the default must save more than this share
_NOT_MEASURED: Final = "Run `internvl doctor` to see what llama.cpp finds here."


@dataclass(frozen=True)
class HostSettings:
    """CPU settings of a model.

    Attributes:
        n_threads: threads for one token.
        n_threads_batch: threads for more at once, and for the vision encoder.
        n_ubatch: positions computed at once by a model of which nothing lies on a GPU.
        n_parallel: answers that a server makes at once.
    """

    n_threads: int
    n_threads_batch: int
    n_ubatch: int
    n_parallel: int = 1

    @property
    def most_threads(self) -> int:
        """The larger number of threads, which memory use depends on."""
        return max(self.n_threads, self.n_threads_batch)


class AttentionSeconds(NamedTuple):
    """Seconds of attention at a depth of 4,096; over several layers for one token.

    Attributes:
        token: seconds for one token.
        batch: seconds for 512 tokens.
    """

    token: float
    batch: float


@dataclass(frozen=True)
class Tuning:
    """Measured times of a CPU, medians in seconds.

    Attributes:
        token: one token through matrices larger than caches, by threads.
        batch: 512 tokens through one matrix, by threads.
        ubatch: one position of a batch, by positions computed at once.
        answers: one token of each of several answers, by their number.
        attention: by type of keys and values: "f16", "f16 flash", "q8_0 flash"; those that could be measured.
        measured_at: time of the measurement, in ISO 8601 with the offset from UTC.
        disturbed: number of times in the first four tables that other programs made too slow.

    Raises:
        ValueError: a table without a time, or impossible times and settings.
    """

    token: Mapping[int, float]
    batch: Mapping[int, float]
    ubatch: Mapping[int, float]
    answers: Mapping[int, float]
    attention: Mapping[str, AttentionSeconds]
    measured_at: str
    disturbed: int = 0

    def __post_init__(self) -> None:
        for table in (self.token, self.batch, self.ubatch, self.answers):
            if not table or min(table) < 1 or not all(0 < seconds < math.inf for seconds in table.values()):
                raise ValueError(f"no table of times: {table}")
        if not all(0 < seconds < math.inf for pair in self.attention.values() for seconds in pair):
            raise ValueError(f"no table of times: {self.attention}")

    @property
    def chosen(self) -> HostSettings:
        """The smallest thread counts within 3% of the best; a batch size of 512, or one that is better by 5%.

        So many answers are made at once as are worth their KV caches.
        """
        return HostSettings(
            n_threads=smallest_near_best(self.token, _THREADS_SLACK),
            n_threads_batch=smallest_near_best(self.batch, _THREADS_SLACK),
            n_ubatch=best_ubatch(self.ubatch),
            n_parallel=best_parallel(self.answers),
        )


def host_settings(n_threads: int | None = None) -> HostSettings:
    """Return the CPU settings for models: the user's, else measured, else by rule.

    Args:
        n_threads: the user's number, for one token and for many; None if the user gave none.
    """
    tuning = recorded_tuning()
    threads = n_threads or default_threads()
    chosen = tuning.chosen if tuning else HostSettings(threads, threads, DEFAULT_N_UBATCH)
    return replace(chosen, n_threads=n_threads, n_threads_batch=n_threads) if n_threads else chosen


def recorded_tuning() -> Tuning | None:
    """Return the kept measurement; None if there is none, or if it is of other circumstances or damaged."""
    return TUNING.get(cpu_circumstances(), _read)


def measure_tuning(on_progress: OnProgress = lambda line: None) -> Tuning:
    """Measure this machine's CPU, and keep the result unless other programs disturbed it.

    Takes about 15 seconds, a minute on a busy machine. An older record stays if this one is not kept.

    Args:
        on_progress: called with one line for each step.

    Raises:
        LibraryError: it could not be measured.
    """
    deadline = time.monotonic() + _TIMEOUT
    counts = thread_candidates(usable_threads(), usable_physical_cores())
    on_progress(f"CPU: {', '.join(map(str, counts))} threads (1 of 2)")
    found = _Measurements()
    found.fill(["threads", *map(str, counts)], deadline)
    token, batch = found.numbers("token", counts), found.numbers("batch", counts)
    threads = [smallest_near_best(seconds, _THREADS_SLACK) for seconds in (token, batch)]
    on_progress("CPU: sizes of batches, attention (2 of 2)")
    options = ["--threads", str(threads[0]), "--batch-threads", str(threads[1]), "--answers", *map(str, ANSWERS)]
    found.fill(["sizes", *options, "--", *map(str, UBATCHES)], deadline)
    tuning = Tuning(
        token=token,
        batch=batch,
        ubatch={size: seconds / size for size, seconds in found.numbers("ubatch", UBATCHES).items()},
        answers=found.numbers("answers", ANSWERS),
        attention=found.attention(),
        measured_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        disturbed=found.disturbed,
    )
    if not tuning.disturbed:
        TUNING.put(cpu_circumstances(), asdict(tuning))
    return tuning


def thread_candidates(usable: int, physical: int) -> tuple[int, ...]:
    """Return thread counts worth measuring: powers of two up to the physical cores, those, all, and some around.

    Args:
        usable: threads that can run at once.
        physical: physical cores among those usable.
    """
    cores = min(usable, physical)
    powers = (2**power for power in range(cores.bit_length()))
    around = (cores * 3 // 4, cores - 1, cores, cores + 1, (cores + usable) // 2, usable)
    return tuple(sorted({count for count in (*powers, *around) if 1 <= count <= usable}))


def smallest_near_best(seconds: Mapping[int, float], slack: float) -> int:
    """Return the smallest setting whose time is within `slack` of the best one.

    Args:
        seconds: by setting, at least one.
        slack: share of the best time, for example 0.03.
    """
    limit = (1 + slack) * min(seconds.values())
    return min(setting for setting, each in seconds.items() if each <= limit)


def best_ubatch(seconds: Mapping[int, float]) -> int:
    """Return the default 512 if it is within 5% of the best, else the smallest size that is: memory grows with it.

    Args:
        seconds: for each position, by positions computed at once; at least one.
    """
    usual = seconds.get(DEFAULT_N_UBATCH, math.inf)
    near = usual <= (1 + _UBATCH_SLACK) * min(seconds.values())
    return DEFAULT_N_UBATCH if near else smallest_near_best(seconds, _UBATCH_SLACK)


def best_parallel(seconds: Mapping[int, float]) -> int:
    """Return how many answers are worth their KV caches: the most that give √n times the tokens a second of one.

    Args:
        seconds: for one token of each answer, by the number of answers: 1, 2, 4, ...
    """
    return max(count for count, each in seconds.items() if count * seconds[1] / each >= math.sqrt(count))


class _Measurements:
    """Samples that the measuring process printed, by table and setting."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, float]] = {}
        self._disturbed: dict[str, int] = {}

    def fill(self, arguments: Sequence[str], deadline: float) -> None:
        left = deadline - time.monotonic()
        with child_process([*_COMMAND, *arguments], timeout=left, keeps_errors=False) as child:
            for line in child.objects():
                self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        table = line["table"]
        self._seconds.setdefault(table, {})[line["setting"]] = statistics.median(line["seconds"])
        self._disturbed[table] = self._disturbed.get(table, 0) + line["disturbed"]

    def numbers(self, table: str, settings: Sequence[int]) -> dict[int, float]:
        """Return median seconds by setting.

        Raises:
            LibraryError: some were not measured.
        """
        seconds = self._seconds.get(table, {})
        if seconds.keys() != set(map(str, settings)):
            raise LibraryError(
                "Threads and batches could not be measured: the process that does it ended.", _NOT_MEASURED
            )
        return {setting: seconds[str(setting)] for setting in settings}

    def attention(self) -> dict[str, AttentionSeconds]:
        token, batch = (self._seconds.get(f"{name} attention", {}) for name in ("token", "batch"))
        return {name: AttentionSeconds(token[name], batch[name]) for name in token if name in batch}

    @property
    def disturbed(self) -> int:
        """Number of disturbed times in the tables that settings are chosen by."""
        return sum(self._disturbed.get(table, 0) for table in ("token", "batch", "ubatch", "answers"))


def cpu_circumstances() -> str:
    """Return what a measurement of the CPU depends on: it is worthless on another CPU, build or number of cores."""
    cores = " ".join(map(str, usable_cores()))
    machine = f"{machine_identity()} {library_fingerprint()}"
    return f"{machine}, {processor_name()}, cores {cores}, {usable_threads()} threads"


def _read(kept: Mapping[str, Any]) -> Tuning:
    """Parse a kept tuning.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged, or not of this machine.
    """
    tuning = Tuning(
        token=_by_number(kept["token"], range(1, usable_threads() + 1)),
        batch=_by_number(kept["batch"], range(1, usable_threads() + 1)),
        ubatch=_by_number(kept["ubatch"], UBATCHES),
        answers=_by_number(kept["answers"], ANSWERS),
        attention={str(name): AttentionSeconds(*map(float, pair)) for name, pair in kept["attention"].items()},
        measured_at=str(kept["measured_at"]),
    )
    datetime.fromisoformat(tuning.measured_at)
    return tuning


def _by_number(kept: Mapping[str, Any], possible: Iterable[int]) -> dict[int, float]:
    found = {int(setting): float(seconds) for setting, seconds in kept.items()}
    if not found.keys() <= set(possible):
        raise ValueError(f"settings {sorted(found)}")
    return found
