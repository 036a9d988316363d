"""Notices to the user about changed settings or inputs: one line each, to a callback or the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

Notice = Callable[[str], None]
"""Called with one line that says what was changed and why."""


def log_notice(line: str) -> None:
    """Warn in the log of this package, which Python shows on stderr where no logging is set up."""
    logging.getLogger("internvl_gguf").warning("%s", line)
