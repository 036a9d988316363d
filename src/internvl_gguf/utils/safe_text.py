"""Text from outside (of a model, a file, the hub, another library), made harmless for a terminal or a document.

Every such text passes here before it is shown.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TextIO

_BIDI = "\u061c\u202a-\u202e\u2066-\u2069"  # they show other letters than are there
_HARMFUL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_LONGEST_ERROR = 160


def safe_text(text: str) -> str:
    """The text with every character that a terminal acts on, or no document may hold, as its escape, such as `\\x1b`.

    Line feeds and tabs stay. A carriage return is left out: it belongs to a line end, or would write over the line.
    """
    return _HARMFUL.sub(_escape, text)


def safe_line(text: str) -> str:
    """`safe_text` on one line: line ends and tabs are spaces."""
    return safe_text(" ".join(text.split("\n")).replace("\t", " "))


def safe_name(text: str, longest: int = 60) -> str:
    """`safe_line` of a name, its middle left out where it is longer than `longest`."""
    return shortened(safe_line(text), longest)


def error_line(error: BaseException) -> str:
    """What an exception of another library says: `safe_line` without blanks at the ends, at most 160 characters."""
    return safe_line(" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_ERROR].rstrip(".")


def shortened(text: str, longest: int) -> str:
    """Text with its middle left out where it is longer than `longest`."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def can_show(out: TextIO, text: str) -> bool:
    """Whether the encoding of a stream has all characters of a text."""
    try:
        text.encode(out.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def cells(text: str) -> int:
    """Columns that a text takes in a terminal: two for most characters of East Asia, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clipped(text: str, width: int) -> str:
    """The beginning of a text, as much as `width` cells of a terminal hold."""
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
    """A line with line ends where it is wider than a terminal of so many columns, which breaks in words.

    It is broken at spaces; a word that is wider than a line, as a path may be, after a slash or wherever it must.

    Args:
        line: without line ends.
        width: columns.
        hang: what the lines after the first begin with; as much space as the first one if None.
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
    """Where to break a line that is too wide; something of what stands behind `start` comes before."""
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
