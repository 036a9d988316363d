"""What a person types or drops for a path, read in every way that terminals and shells write one.

A reading is a path and where it ends in the line. Which reading is meant is decided by the file that exists
(`typed_line`), so a reading too many does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

CLOSING = ".,;:!?)]}>\"'”’»"
"""Characters that may end a sentence or a bracket right after a path."""
OPENING = "([{<“‘«"
"""Characters that may stand right before one."""

_QUOTES = "\"'"
_MOST_CLOSINGS = 4
_MOST_WORDS = 12
_URI = re.compile(r"file://(localhost)?(?=/)", re.IGNORECASE)
_DRIVE = re.compile(r"/?[A-Za-z]:[\\/]")
_ROOTED = re.compile(r"/|~[\\/]|\.\.?[\\/]|[A-Za-z]:[\\/]|\\\\")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Reading:
    """One way to read a piece of a line as a path.

    Attributes:
        path: the path, `~` not expanded.
        end: where it ends in the line.
        is_pattern: whether `*`, `?` and `[` in it stand for other characters.
        is_loose: whether it goes on after a space though nothing says that a path begins there.
    """

    path: str
    end: int
    is_pattern: bool = False
    is_loose: bool = False


def readings(line: str, start: int) -> Iterator[Reading]:
    """Ways to read what begins at `start`, the likeliest first; a path without characters is none of them."""
    for reading in _readings(line, start):
        if reading.path.strip():
            yield reading


def _readings(line: str, start: int) -> Iterator[Reading]:
    uri = _URI.match(line, start)
    if uri:
        yield from _uris(line, uri.end())
        return
    word = _shell_word(line, start)
    if word:
        yield Reading("".join(character for character, _ in word), word[-1][1])
    if line[start] in _QUOTES:
        yield from _quoted(line, start)
    bare_end = _end_of_word(line, start)
    yield Reading(line[start:bare_end], bare_end)
    yield from _without_closing(word)
    bare = [(line[at], at + 1) for at in range(start, bare_end)]
    yield from _without_closing(bare)
    yield from _with_spaces(line, start, bare_end)
    yield from _patterns(line[start:bare_end], start)


def _end_of_word(line: str, start: int) -> int:
    return next((at for at in range(start, len(line)) if line[at].isspace()), len(line))


def _shell_word(line: str, start: int) -> list[tuple[str, int]]:
    """A word as a POSIX shell reads it: each character with where it ends; empty where a quote is left open."""
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


def _quoted(line: str, start: int) -> Iterator[Reading]:
    """What stands in quotes, all characters meant as they are: paths of Windows, names with an apostrophe."""
    end = start
    for _ in range(_MOST_CLOSINGS):
        end = line.find(line[start], end + 1)
        if end < 0:
            return
        yield Reading(line[start + 1 : end], end + 1)


def _without_closing(word: list[tuple[str, int]]) -> Iterator[Reading]:
    """The word up to a character that may end a sentence, the longest first."""
    for at in range(len(word) - 1, 0, -1):
        if word[at][0] in CLOSING:
            yield Reading("".join(character for character, _ in word[:at]), word[at - 1][1])


def _with_spaces(line: str, start: int, end: int) -> Iterator[Reading]:
    """A path that goes on after a space that nobody quoted."""
    is_loose = _ROOTED.match(line, start) is None
    for _ in range(_MOST_WORDS):
        following = re.compile(r"[ \t]+(\S+)").match(line, end)
        if following is None:
            return
        end = following.end()
        yield Reading(line[start:end], end, is_loose=is_loose)
        shorter = len(line[start:end].rstrip(CLOSING)) + start
        if shorter < end:
            yield Reading(line[start:shorter], shorter, is_loose=is_loose)


def _uris(line: str, start: int) -> Iterator[Reading]:
    """A `file://` URI, with and without what may end a sentence after it."""
    end = _end_of_word(line, start)
    while end > start:
        path = unquote(line[start:end], errors="surrogateescape")
        yield Reading(path[1:] if _DRIVE.match(path) else path, end)
        if line[end - 1] not in CLOSING:
            return
        end -= 1


def _patterns(word: str, start: int) -> Iterator[Reading]:
    """The word as a pattern of names. `*` alone or around a word is a list or emphasis, not a wish for files."""
    for length in (len(word), len(word.rstrip(CLOSING))):
        pattern = word[:length]
        if _GLOB.search(pattern) and any(character in pattern for character in "./\\"):
            yield Reading(pattern, start + length, is_pattern=True)
