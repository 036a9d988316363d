"""How long OpenMP's threads spin before they sleep, where llama.cpp computes with GCC's OpenMP runtime, libgomp.

Threads wait for each other hundreds of times a token. By default they spin for some milliseconds: while another
program has the core that one of them needs, all others burn theirs. A spin of some microseconds is long enough for
threads that run, and lets a thread whose core is wanted go (docs/performance.md says what that costs and saves).

libgomp reads the environment once, when it is loaded. So the spin count stands there while llama.cpp is imported, and
not longer: programs started from here, and other libraries, see what they saw before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

SPIN_COUNT: Final = 1000
_VARIABLE: Final = "GOMP_SPINCOUNT"
_DECISIVE: Final = ("OMP_WAIT_POLICY", _VARIABLE)
"""Variables by which a person decides; the last one wins in libgomp."""
_MAPS: Final = Path("/proc/self/maps")
_RUNTIME: Final = re.compile(r"(lib(?:gomp|omp|iomp5)[-.][^/]*)$", re.MULTILINE)


@dataclass(frozen=True)
class Waiting:
    """How threads wait for each other in this process.

    Attributes:
        runtimes: OpenMP runtimes that are loaded, as files are called; empty where there is none or the system does
            not tell.
        settings: variables that decide, with their values.
        set_by: who set them; None where nobody did.
        loaded_before: runtimes that something else had loaded before; they keep what they found then, and llama.cpp
            may share them.
    """

    runtimes: tuple[str, ...]
    settings: tuple[str, ...]
    set_by: Literal["environment", "internvl-gguf"] | None
    loaded_before: tuple[str, ...]


_loaded_before: tuple[str, ...] = ()
_settings: tuple[str, ...] = ()
_set_by: Literal["environment", "internvl-gguf"] | None = None


@contextmanager
def short_spins() -> Iterator[None]:
    """While llama.cpp is imported: threads of libgomp will spin shortly, unless the environment says something else."""
    global _loaded_before, _settings, _set_by
    _loaded_before = _runtimes()
    chosen = tuple(f"{name}={os.environ[name]}" for name in _DECISIVE if name in os.environ)
    if chosen:
        _settings, _set_by = chosen, "environment"
        yield
        return
    _settings, _set_by = (f"{_VARIABLE}={SPIN_COUNT}",), "internvl-gguf"
    os.environ[_VARIABLE] = str(SPIN_COUNT)
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def waiting() -> Waiting:
    """How threads wait in this process; to ask when llama.cpp has been imported."""
    return Waiting(_runtimes(), _settings, _set_by, _loaded_before)


def _runtimes() -> tuple[str, ...]:
    """OpenMP runtimes that this process has loaded."""
    try:
        return tuple(sorted(set(_RUNTIME.findall(_MAPS.read_text("utf-8", "replace")))))
    except OSError:  # no Linux
        return ()
