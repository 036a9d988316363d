"""Print the facts of this machine as one line of JSON: `python -m internvl_gguf.bench.machine_facts`.

It runs in a process of its own, since a process that has looked at a GPU holds memory there until it ends.
"""

from __future__ import annotations

import json
import os

from internvl_gguf.bench.jobs import MachineFacts
from internvl_gguf.bench.plain_json import as_plain
from internvl_gguf.errors import InternVLError
from internvl_gguf.planning.machine_memory import machine_budget, total_host_memory
from internvl_gguf.utils.sizes import format_size


def machine_facts() -> MachineFacts:
    """Return the facts of this machine.

    Raises:
        LibraryError: the installed llama.cpp is not the build this package is made for.
    """
    from internvl_gguf.llama.library import build, devices  # only now: a library that cannot be loaded is reported

    found = devices()
    budget = machine_budget().budget
    processor = next((device.description for device in found if device.kind == "cpu"), "an unknown processor")
    parts = [processor, f"{os.cpu_count() or 1} threads", f"{format_size(total_host_memory())} of RAM"]
    gpus = [device for device in found if device.kind in ("gpu", "igpu")]
    parts += [f"{gpu.description} with {format_size(gpu.total_bytes)}" for gpu in gpus]
    return MachineFacts(", ".join(parts), build(), budget.host, budget.gpus, budget.is_unified)


def main() -> None:
    """Print the facts, or the error."""
    try:
        answer = {"machine": as_plain(machine_facts())}
    except InternVLError as error:
        answer = {"error": {"message": error.message, "hint": error.hint}}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
