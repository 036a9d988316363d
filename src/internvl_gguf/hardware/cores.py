"""The cores of this machine that the process may use, and how many threads suit them."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import Any, Final

import psutil

from internvl_gguf.hardware.cgroups import cpu_limits

_TOPOLOGY: Final = Path("/sys/devices/system/cpu")


def usable_cores() -> tuple[int, ...]:
    """Numbers of the logical cores that this process may run on."""
    if hasattr(psutil.Process, "cpu_affinity"):  # Linux, Windows, FreeBSD
        with contextlib.suppress(psutil.Error, OSError):
            return tuple(sorted(psutil.Process().cpu_affinity() or ()))
    return tuple(range(os.cpu_count() or 1))


def usable_threads() -> int:
    """Threads that can run at once: one for each usable core, within a container's limit of CPU time."""
    return max(1, min([len(usable_cores()), *map(math.ceil, cpu_limits())]))


def usable_physical_cores() -> int:
    """Physical cores among the usable ones: two of these may be threads of one core."""
    cores = usable_cores()
    try:
        return len({_siblings(core) for core in cores})
    except OSError:  # no Linux
        return min(len(cores), psutil.cpu_count(logical=False) or len(cores))


def default_threads() -> int:
    """One thread for each physical core this process may use; more of them slow llama.cpp down."""
    return min(usable_threads(), usable_physical_cores())


def _siblings(core: int) -> str:
    """The logical cores of the physical core that this one belongs to, as Linux writes them: "0,4" or "0-1"."""
    folder = _TOPOLOGY / f"cpu{core}" / "topology"
    try:
        return (folder / "core_cpus_list").read_text("ascii")
    except FileNotFoundError:  # before Linux 5.3
        return (folder / "thread_siblings_list").read_text("ascii")


def seconds_used_by_others() -> float:
    """CPU time that others have used so far on the usable cores: other programs, interrupts, and a host's other guests.

    Raises:
        OSError, NotImplementedError, RuntimeError: the system does not tell.
    """
    times, cores = psutil.cpu_times(percpu=True), usable_cores()
    if len(cores) < len(times):
        times = [times[core] for core in cores if core < len(times)]
    return sum(map(_busy, times)) - time.process_time()


def _busy(times: Any) -> float:
    """Seconds in which a core was not idle. Linux counts those of guests and of nice guests in user and nice, too."""
    aside = ("idle", "iowait", "guest", "guest_nice")
    return float(sum(seconds for name, seconds in times._asdict().items() if name not in aside))
