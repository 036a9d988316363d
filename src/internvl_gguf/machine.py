"""What tells one machine's measurements from another's."""

from __future__ import annotations

import platform


def library_version() -> str:
    """Version of the installed llama-cpp-python; empty where there is none."""
    import importlib.metadata  # only now: picking for another machine does without

    try:
        return importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return ""


def machine_identity() -> str:
    """Processor, name and library of this machine: what a record of measurements is kept under."""
    return f"{platform.machine()} {platform.processor()} {platform.node()} {library_version()}"
