"""Shorten the time that threads of GCC's OpenMP runtime (libgomp) spin before they sleep.

llama.cpp's threads wait for each other hundreds of times a token. By default they spin for milliseconds: while another
program has the core that one of them needs, all others burn theirs. A spin of microseconds is long enough for running
threads, and gives the core up to other programs (docs/performance.md has the cost and the gain).

libgomp reads the environment once, when it is loaded. So the variable is set only while llama.cpp is imported: child
processes and other libraries see the environment unchanged.
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
"""Variables by which a user decides; the last one wins in libgomp."""
_MAPS: Final = Path("/proc/self/maps")
_RUNTIME: Final = re.compile(r"(lib(?:gomp|omp|iomp5)[-.][^/\n]*)$", re.MULTILINE)


@dataclass(frozen=True)
class SpinSettings:
    """OpenMP settings of this process that decide how threads wait for each other.

    Attributes:
        runtimes: file names of the loaded OpenMP runtimes; empty if there are none or the system does not tell.
        settings: the deciding variables, as NAME=VALUE.
        set_by: who set them; None if they are not set.
        loaded_before: runtimes that another library had loaded before; they keep the settings of that time, and
            llama.cpp may share them.
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
    """Make libgomp's threads spin briefly if llama.cpp is imported in this block, unless the environment decides."""
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


def spin_settings() -> SpinSettings:
    """Return how threads wait in this process; to be called after llama.cpp was imported."""
    return SpinSettings(_runtimes(), _settings, _set_by, _loaded_before)


def _runtimes() -> tuple[str, ...]:
    """Return the file names of the OpenMP runtimes that this process has loaded."""
    try:
        return tuple(sorted(set(_RUNTIME.findall(_MAPS.read_text("utf-8", "replace")))))
    except OSError:  # no Linux
        return ()
