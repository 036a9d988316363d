"""The process in which llama.cpp is imported for the first time: `python -m internvl_gguf.llama.trial.import_process`.

It prints one JSON object a line: `built_for`, the instruction sets the CPU's kernels were compiled for, asked of their
library alone, since the rest may end the process; `imported` with the version of llama-cpp-python, or `error`; and
`started`. It imports `llama_cpp` by itself, not through `library`, which would have it tried again.
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
    _say(built_for=_built_for())
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        _say(error=str(error))
        return
    _say(imported=getattr(llama_cpp, "__version__", ""))
    llama_cpp.llama_backend_init()
    _say(started=True)


def _built_for() -> list[str]:
    """Instruction sets the CPU's kernels were compiled for; none where their library cannot be asked."""
    for folder in library_folders():
        for path in sorted(folder.glob("*ggml-cpu*")):
            with suppress(OSError):
                kernels = ctypes.CDLL(str(path))
                return [name for name in INSTRUCTION_SETS if getattr(kernels, f"ggml_cpu_has_{name}")()]
    return []


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
