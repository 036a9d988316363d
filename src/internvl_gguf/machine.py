"""What tells one machine's measurements from another's."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
# x86 names its processors, ARM numbers them.
_CPU_KEYS: Final = frozenset(
    ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part", "CPU revision")
)


def library_version() -> str:
    """Version of the installed llama-cpp-python; empty where there is none."""
    import importlib.metadata  # only now: picking for another machine does without

    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return ""


def library_fingerprint() -> str:
    """What tells builds of one llama-cpp-python version apart: a digest of the installer's list with its checksums."""
    import importlib.metadata

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        record = importlib.metadata.distribution("llama-cpp-python").read_text("RECORD") or ""
        return hashlib.blake2b(record.encode(), digest_size=8).hexdigest()
    return ""


def processor_name() -> str:
    """The CPU as the system names it, its first core where they differ."""
    facts: list[str] = []
    with contextlib.suppress(OSError), _CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if not line.strip() and facts:
                break
            if key.strip() in _CPU_KEYS:
                facts.append(value.strip())
    return " ".join(facts) or platform.processor()


def machine_identity() -> str:
    """Processor, name and library of this machine: what a record of measurements is kept under."""
    return f"{platform.machine()} {platform.processor()} {platform.node()} {library_version()}"
