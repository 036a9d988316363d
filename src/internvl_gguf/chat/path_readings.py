"""All readings of typed or dropped text as a path: escaped, quoted, with spaces, as a URI, as a pattern.

A reading is a path and its end in the line. `typed_line` takes the reading whose file exists, so a wrong reading does
no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

CLOSING = ".,;:!?)]}>\"'”’»"
"""Characters that may end a sentence or a bracket directly after a path."""
OPENING = "([{<“‘«"
"""Characters that may be directly before a path."""

_QUOTES = "\"'"
_MOST_CLOSINGS = 4
_MOST_WORDS = 12
_URI = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)
_DRIVE = re.compile(r"/?[A-Za-z]:[\\/]")
_ROOTED = re.compile(r"/|~[\\/]|\.\.?[\\/]|[A-Za-z]:[\\/]|\\\\")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class PathReading:
    """One way to read a piece of a line as a path.

    Attributes:
        path: the path, `~` not expanded.
        end: its end in the line.
        is_pattern: whether `*`, `?` and `[` in it are wildcards.
        is_loose: whether it contains an unquoted space and does not begin like a path.
    """

    path: str
    end: int
    is_pattern: bool = False
    is_loose: bool = False


def path_readings(line: str, start: int) -> Iterator[PathReading]:
    """Yield the readings of the text at `start`, the likeliest first, without empty paths."""
    for reading in _all_readings(line, start):
        if reading.path.strip():
            yield reading


def _all_readings(line: str, start: int) -> Iterator[PathReading]:
    uri = _URI.match(line, start)
    if uri:
        yield from _uris(line, uri.end())
        return
    word = _shell_word(line, start)
    if word:
        yield PathReading("".join(character for character, _ in word), word[-1][1])
    if line[start] in _QUOTES:
        yield from _quoted(line, start)
    bare_end = _end_of_word(line, start)
    yield PathReading(line[start:bare_end], bare_end)
    yield from _without_closing(word)
    bare = [(line[at], at + 1) for at in range(start, bare_end)]
    yield from _without_closing(bare)
    yield from _with_spaces(line, start, bare_end)
    yield from _patterns(line[start:bare_end], start)


def _end_of_word(line: str, start: int) -> int:
    return next((at for at in range(start, len(line)) if line[at].isspace()), len(line))


def _shell_word(line: str, start: int) -> list[tuple[str, int]]:
    """Return a word as a POSIX shell reads it: each character with its end in the line; empty if a quote is open."""
    word: list[tuple[str, int]] = []
    at, quote = start, ""
    while at < len(line):
        character = line[at]
        at += 1
        if character == quote:
            quote = ""
            if word:
                word[-1] = word[-1][0], at  # the quote is gone with it
        elif character == "\\" and quote != "'" and at < len(line):
            # In double quotes a backslash before any other character is a backslash.
            if quote and line[at] not in '"\\$`':
                word.append((character, at))
            else:
                word.append((line[at], at + 1))
                at += 1
        elif quote:
            word.append((character, at))
        elif character in _QUOTES:
            quote = character
        elif character.isspace():
            break
        else:
            word.append((character, at))
    return [] if quote else word


def _quoted(line: str, start: int) -> Iterator[PathReading]:
    """Yield the text in quotes without escapes: Windows paths, names with an apostrophe."""
    end = start
    for _ in range(_MOST_CLOSINGS):
        end = line.find(line[start], end + 1)
        if end < 0:
            return
        yield PathReading(line[start + 1 : end], end + 1)


def _without_closing(word: list[tuple[str, int]]) -> Iterator[PathReading]:
    """Yield the word up to each character that may end a sentence, the longest first."""
    for at in range(len(word) - 1, 0, -1):
        if word[at][0] in CLOSING:
            yield PathReading("".join(character for character, _ in word[:at]), word[at - 1][1])


def _with_spaces(line: str, start: int, end: int) -> Iterator[PathReading]:
    """Yield paths that continue after unquoted spaces."""
    is_loose = _ROOTED.match(line, start) is None
    for _ in range(_MOST_WORDS):
        following = re.compile(r"[ \t]+(\S+)").match(line, end)
        if following is None:
            return
        end = following.end()
        yield PathReading(line[start:end], end, is_loose=is_loose)
        shorter = len(line[start:end].rstrip(CLOSING)) + start
        if shorter < end:
            yield PathReading(line[start:shorter], shorter, is_loose=is_loose)


def _uris(line: str, start: int) -> Iterator[PathReading]:
    """Yield the path of a `file://` URI, with and without characters that may end a sentence after it."""
    end = _end_of_word(line, start)
    while end > start:
        path = unquote(line[start:end], errors="surrogateescape")
        yield PathReading(path[1:] if _DRIVE.match(path) else path, end)
        if line[end - 1] not in CLOSING:
            return
        end -= 1


def _patterns(word: str, start: int) -> Iterator[PathReading]:
    """Yield the word as a pattern of file names. `*` alone or around a word is a list or emphasis, not a pattern."""
    for length in (len(word), len(word.rstrip(CLOSING))):
        pattern = word[:length]
        if _GLOB.search(pattern) and any(character in pattern for character in "./\\"):
            yield PathReading(pattern, start + length, is_pattern=True)
