"""The CPU cores that this process may use, and the number of threads that suits them."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import Any, Final

import psutil

from internvl_gguf.hardware.cgroups import cpu_limits

TOPOLOGY: Final = Path("/sys/devices/system/cpu")


def usable_cores() -> tuple[int, ...]:
    """Return the numbers of the logical cores that this process may run on."""
    if hasattr(psutil.Process, "cpu_affinity"):  # Linux, Windows, FreeBSD
        with contextlib.suppress(psutil.Error, OSError):
            return tuple(sorted(psutil.Process().cpu_affinity() or ()))
    return tuple(range(os.cpu_count() or 1))


def usable_threads() -> int:
    """Return how many threads can run at once: one a usable core, within a container's CPU limit."""
    return max(1, min([len(usable_cores()), *map(math.ceil, cpu_limits())]))


def usable_physical_cores() -> int:
    """Return how many physical cores the usable ones belong to: two logical cores may share one."""
    cores = usable_cores()
    try:
        return len({_siblings(core) for core in cores})
    except OSError:  # no Linux
        return min(len(cores), psutil.cpu_count(logical=False) or len(cores))


def default_threads() -> int:
    """Return one thread for each usable physical core; more threads slow llama.cpp down."""
    return min(usable_threads(), usable_physical_cores())


def _siblings(core: int) -> str:
    """Return the logical cores that share a physical core with this one, as Linux writes them: "0,4" or "0-1"."""
    folder = TOPOLOGY / f"cpu{core}" / "topology"
    try:
        return (folder / "core_cpus_list").read_text("ascii")
    except FileNotFoundError:  # before Linux 5.3
        return (folder / "thread_siblings_list").read_text("ascii")


def seconds_used_by_others() -> float:
    """Return CPU seconds that others used so far on the usable cores: programs, interrupts, a host's other guests.

    Raises:
        OSError, NotImplementedError, RuntimeError: the system does not tell.
    """
    times, cores = psutil.cpu_times(percpu=True), usable_cores()
    if len(cores) < len(times):
        times = [times[core] for core in cores if core < len(times)]
    return sum(map(_busy, times)) - time.process_time()


def _busy(times: Any) -> float:
    """Return the seconds in which a core was not idle. Linux counts guest time in user and nice, too."""
    aside = ("idle", "iowait", "guest", "guest_nice")
    return float(sum(seconds for name, seconds in times._asdict().items() if name not in aside))
