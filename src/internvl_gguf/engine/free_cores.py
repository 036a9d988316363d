"""How many cores other programs leave.

llama.cpp's threads wait for each other after every operation of a graph, hundreds of times a token. One that has lost
its core to another program keeps all others waiting, for a time slice of the system each time. So where others use a
core, a thread less is faster than a thread without a core. How many cores they use is read from the system's counters
of CPU time: that costs a token nothing, and it says when the cores are free again without trying.

Each value is summed by one thread, so the number of threads changes no result; flash attention on a CPU is the
exception (`docs/parity.md`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

_WINDOW: Final = 0.2  # seconds between two readings, in which the system counts ticks of up to 10 ms
_MARGIN: Final = 0.25  # cores that others must use less before a core counts as free again


class FreeCores:
    """Counts the cores that others leave, by what they used of late: falls at once, rises slowly.

    A share of a core that others use counts from 1/n_cores on: with n threads, one less costs 1/n, and all of them
    wait for about the time that one is without its core. Below a quarter of a core is what any system does beside.

    Args:
        n_cores: logical cores that this process may use.

    Attributes:
        count: those of them that are free, 1 at least.
    """

    def __init__(self, n_cores: int) -> None:
        self._n_cores = n_cores
        self._ignored = max(0.25, 1 / n_cores)
        self._before = 0.0
        self.count = n_cores

    def note(self, used: float) -> None:
        """Others used so many cores since the last note. Two notes must allow it before the count rises."""
        fallen = self._left(used)
        risen = self._left(max(used, self._before) + _MARGIN)
        self.count = fallen if fallen < self.count else max(risen, self.count)
        self._before = used

    def _left(self, used: float) -> int:
        return max(1, self._n_cores - max(0, math.ceil(used - self._ignored)))


class CoreWatch:
    """Looks now and then at what others have used.

    Args:
        n_cores: logical cores that this process may use.
        used_by_others: seconds of CPU time that others have used on these cores so far.
        clock: seconds.
    """

    def __init__(
        self, n_cores: int, used_by_others: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free = FreeCores(n_cores)
        self._used_by_others = used_by_others
        self._clock = clock
        self._read_at, self._used = clock(), used_by_others()

    def free(self) -> int:
        """Cores that are free, read anew where the last reading is old enough to tell."""
        now = self._clock()
        elapsed = now - self._read_at
        if elapsed >= _WINDOW:
            used = self._used_by_others()
            self._free.note((used - self._used) / elapsed)
            self._read_at, self._used = now, used
        return self._free.count
