"""The trial of a grammar that combines expressions, in a process of its own.

Lark can combine them in ways that keep llguidance busy for ever, and with it everything else in its process:
`A: /.*a.*/ & /.*b.*/ & ...` takes three times as long for each of them, and so does `%json` with a long `allOf`. What
is found here is found again afterwards, within the same time, where its words can be told.

This is the main module of that process, too: it reads a grammar from stdin.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from typing import Final

from internvl_gguf.utils.child_process import python_module

SECONDS: Final = 5.0
"""How long a grammar may take; the process itself takes a quarter of a second of them."""


@lru_cache(maxsize=32)
def ends_in_time(grammar: str) -> bool:
    """Return whether a grammar is read, or refused, within `SECONDS`."""
    command = python_module(__name__)
    try:
        ran = subprocess.run(command, input=grammar.encode(), capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return ran.returncode == 0


def main() -> None:
    """Read a grammar from stdin; that it has a fault is no failure of the trial."""
    from internvl_gguf.structured.constraint import fault

    fault(sys.stdin.buffer.read().decode())


if __name__ == "__main__":
    main()
