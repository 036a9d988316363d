"""Notices to the user about changed settings or inputs: one line each, to a callback or the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

Notice = Callable[[str], None]
"""Called with one line that says what was changed and why."""

LIBRARY_LOG: Final = "internvl_gguf.llama"
"""Log of llama.cpp's own lines, in the process where they come from and in its parent."""
logging.getLogger(LIBRARY_LOG).addHandler(logging.NullHandler())  # where no logging is set up llama.cpp is silent


def log_notice(line: str) -> None:
    """Warn in the log of this package, which Python shows on stderr where no logging is set up."""
    logging.getLogger("internvl_gguf").warning("%s", line)
