"""Times in a clip, as people write them: 83.5, 1:23.5 or 0:01:23.5."""

from __future__ import annotations

import re
from typing import Final

from internvl_gguf.errors import InvalidRequestError

HINT: Final = "Give seconds, as 83.5, or minutes and hours before them, as 1:23.5 or 0:01:23.5."
_CLOCK: Final = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,2}(?:\.[0-9]*)?)")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]*)?|\.[0-9]+")
_LIMIT: Final = 60


def parse_time(name: str, text: str) -> float:
    """Return the seconds that a text says.

    Args:
        name: of what is set by it, for the error.
        text: seconds, "minutes:seconds" or "hours:minutes:seconds"; the last part may have decimals.

    Raises:
        InvalidRequestError: it is no time.
    """
    stripped = text.strip()
    if _SECONDS.fullmatch(stripped):
        return float(stripped)
    found = _CLOCK.fullmatch(stripped)
    if found is None or float(found[3]) >= _LIMIT or (found[1] and int(found[2]) >= _LIMIT):
        raise InvalidRequestError(f"{name} is {text[:80]!r}.", HINT)
    return (int(found[1] or 0) * _LIMIT + int(found[2])) * _LIMIT + float(found[3])


def format_time(seconds: float) -> str:
    """Return seconds as people write them: "0.6 s", "1:23.5", "1:02:03.0"."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, _LIMIT * 10)
    if not minutes:
        return f"{rest / 10:.1f} s"
    hours, minutes = divmod(minutes, _LIMIT)
    return f"{minutes}:{rest / 10:04.1f}" if not hours else f"{hours}:{minutes:02}:{rest / 10:04.1f}"
