"""Make text from outside (a model, a file, the hub, another library) safe for a terminal or a document.

Every such text passes through here before it is shown.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TextIO

_BIDI = "\u061c\u202a-\u202e\u2066-\u2069"  # they reorder the letters on the screen
_HARMFUL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_LONGEST_ERROR = 160


def safe_text(text: str) -> str:
    """Replace every character that a terminal interprets, or no document may hold, by its escape, such as `\\x1b`.

    Line feeds and tabs stay. Carriage returns are removed: they belong to a line end, or would overwrite the line.
    """
    return _HARMFUL.sub(_escape, text)


def safe_line(text: str) -> str:
    """Apply `safe_text` and join lines: line ends and tabs become spaces."""
    return safe_text(" ".join(text.split("\n")).replace("\t", " "))


def safe_name(text: str, longest: int = 60) -> str:
    """Apply `safe_line` to a name, and leave out its middle if it is longer than `longest`."""
    return shortened(safe_line(text), longest)


def quoted(text: str, longest: int = 60) -> str:
    """Return a name in quotes with line ends and other characters that do not show as escapes: `'a\\nb'`."""
    return repr(shortened(text, longest))


def error_line(error: BaseException) -> str:
    """Return the message of another library's exception: a stripped `safe_line` of at most 160 characters."""
    return safe_line(" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_ERROR].rstrip(".")


def shortened(text: str, longest: int) -> str:
    """Leave out the middle of a text that is longer than `longest`."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def can_show(out: TextIO, text: str) -> bool:
    """Return whether the encoding of a stream has all characters of a text."""
    try:
        text.encode(out.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def cells(text: str) -> int:
    """Return the columns of a text in a terminal: two for most East Asian characters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clipped(text: str, width: int) -> str:
    """Return the beginning of a text that fits `width` columns of a terminal."""
    if cells(text) <= width:
        return text
    kept, taken = "", 1
    for character in text:
        taken += cells(character)
        if taken > width:
            break
        kept += character
    return f"{kept}…"


def broken(line: str, width: int, hang: str | None = None) -> str:
    """Wrap a line to `width` columns at spaces, since a terminal would break it inside words.

    A word that is wider than a line, such as a path, is broken after a slash or, failing that, anywhere.

    Args:
        line: without line ends.
        width: columns.
        hang: beginning of the lines after the first; None repeats the indentation of the first.
    """
    start = len(line) - len(line.lstrip(" "))
    hang = (line[:start] if hang is None else hang)[: width // 2]
    lines: list[str] = []
    while cells(line) > width:
        at = _break(line, width, start)
        lines.append(line[:at].rstrip(" "))
        line = hang + line[at:].lstrip(" ")
        start = len(hang)
    return "\n".join([*lines, line])


def _break(line: str, width: int, start: int) -> int:
    """Return the place to break a line that is too wide; it lies after `start`."""
    end = start + 1
    while end < len(line) and cells(line[: end + 1]) <= width:
        end += 1
    blank = line.rfind(" ", start + 1, end + 1)
    if blank > start:
        return blank
    slash = max(line.rfind("/", start, end), line.rfind("\\", start, end))
    return slash + 1 if slash > start else end


def _escape(found: re.Match[str]) -> str:
    return "" if found[0] == "\r" else ascii(found[0])[1:-1]
