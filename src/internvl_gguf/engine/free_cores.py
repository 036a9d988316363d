"""The number of cores that other programs leave free.

llama.cpp's threads wait for each other after every operation of a graph, hundreds of times a token. A thread that has
lost its core to another program keeps all others waiting, for one time slice of the system each time. So where other
programs use a core, one thread less is faster than a thread without a core. The number of cores they use is read from
the system's counters of CPU time: that costs a token nothing, and it shows when the cores are free again.

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
    """Number of free cores, from the CPU time that others used recently: it falls at once and rises slowly.

    A share of a core that others use counts from 1/n_cores on: with n threads, one less costs 1/n, and all of them
    wait for about the time that one is without its core. Less than a quarter of a core is normal background work.

    Args:
        n_cores: logical cores that this process may use.

    Attributes:
        count: number of them that are free, at least 1.
    """

    def __init__(self, n_cores: int) -> None:
        self._n_cores = n_cores
        self._ignored = max(0.25, 1 / n_cores)
        self._before = 0.0
        self.count = n_cores

    def observe(self, used: float) -> None:
        """Record how many cores others used since the last call. The count rises only after two calls that allow it."""
        fallen = self._left(used)
        risen = self._left(max(used, self._before) + _MARGIN)
        self.count = fallen if fallen < self.count else max(risen, self.count)
        self._before = used

    def _left(self, used: float) -> int:
        return max(1, self._n_cores - max(0, math.ceil(used - self._ignored)))


class CoreWatch:
    """Reads the CPU time of other programs at most five times a second.

    Args:
        n_cores: logical cores that this process may use.
        used_by_others: returns the seconds of CPU time that others have used on these cores so far.
        clock: returns seconds.
    """

    def __init__(
        self, n_cores: int, used_by_others: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free = FreeCores(n_cores)
        self._used_by_others = used_by_others
        self._clock = clock
        self._read_at, self._used = clock(), used_by_others()

    def free(self) -> int:
        """Return the number of free cores; it is read again if the last reading is at least 0.2 seconds old."""
        now = self._clock()
        elapsed = now - self._read_at
        if elapsed >= _WINDOW:
            used = self._used_by_others()
            self._free.observe((used - self._used) / elapsed)
            self._read_at, self._used = now, used
        return self._free.count
