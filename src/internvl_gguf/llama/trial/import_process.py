"""Import llama.cpp for the first time in a child process: `python -m internvl_gguf.llama.trial.import_process`.

The process prints one JSON object a line: `built_for`, the instruction sets of the CPU's kernels, read from their
library alone, since loading the rest may end the process; `imported` with the version of llama-cpp-python, or `error`;
and `started`. It imports `llama_cpp` directly, not through `llama.library`, which would start another such process.
"""

from __future__ import annotations

import ctypes
import json
import sys
from contextlib import suppress
from typing import Any

from internvl_gguf.hardware.trial.build_hint import INSTRUCTION_SETS
from internvl_gguf.hardware.trial.circumstances import library_folders


def main() -> None:
    """Import the library and start its backends."""
    sys.stdin.readline()
    _print_line(built_for=_built_for())
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        _print_line(error=str(error))
        return
    _print_line(imported=getattr(llama_cpp, "__version__", ""))
    llama_cpp.llama_backend_init()
    _print_line(started=True)


def _built_for() -> list[str]:
    """Return the instruction sets that the CPU's kernels were compiled for; none if their library cannot be asked."""
    for folder in library_folders():
        for path in sorted(folder.glob("*ggml-cpu*")):
            with suppress(OSError):
                kernels = ctypes.CDLL(str(path))
                return [name for name in INSTRUCTION_SETS if getattr(kernels, f"ggml_cpu_has_{name}")()]
    return []


def _print_line(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
