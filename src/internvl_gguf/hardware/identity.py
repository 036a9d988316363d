"""Identify this machine and its library, as the key of kept measurements."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
# x86 names its processors, ARM numbers them.
_CPU_KEYS: Final = frozenset(
    ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part", "CPU revision")
)
_FLAG_KEYS: Final = frozenset(("flags", "Features"))


def library_version() -> str:
    """Return the version of the installed llama-cpp-python; "" if it is not installed."""
    import importlib.metadata  # only now: picking for another machine does without

    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return ""


def library_fingerprint() -> str:
    """Return a digest that tells builds of one llama-cpp-python version apart: of the installer's checksums."""
    import importlib.metadata

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        record = importlib.metadata.distribution("llama-cpp-python").read_text("RECORD") or ""
        return hashlib.blake2b(record.encode(), digest_size=8).hexdigest()
    return ""


def processor_name() -> str:
    """Return the name of the CPU as the system gives it, of the first core if they differ."""
    return " ".join(value for key, value in _first_core() if key in _CPU_KEYS) or platform.processor()


def cpu_flags() -> frozenset[str]:
    """Return the first core's instruction sets by Linux's names, such as "avx2"; empty on other systems."""
    return frozenset(flag for key, value in _first_core() if key in _FLAG_KEYS for flag in value.split())


def _first_core() -> list[tuple[str, str]]:
    """Return the entries of the first core in /proc/cpuinfo, in order."""
    facts: list[tuple[str, str]] = []
    with contextlib.suppress(OSError), CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if not line.strip() and facts:
                break
            facts.append((key.strip(), value.strip()))
    return facts


def machine_identity() -> str:
    """Return processor, host name and library version: the key that measurements are kept under."""
    return f"{platform.machine()} {platform.processor()} {platform.node()} {library_version()}"
