"""Parsing a typed line: the pictures named anywhere in it, and the rest, which is the question.

A path counts as a picture if its file exists and is a picture by its content. So does a file that is not, but has the
name of a picture: the user then gets an error that says why it cannot be read. So does the name of a missing picture,
if it begins the line or names a folder: an answer without that picture would be about something else. Everything else
stays text; for the name of a missing picture in the middle of a question there is a hint.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from glob import glob
from pathlib import Path

from internvl_gguf.chat.path_readings import CLOSING, OPENING, PathReading, path_readings
from internvl_gguf.errors import PictureError

_HEAD_BYTES = 1024
_PICTURE_NAME = re.compile(
    r"[^\s./\\]\.(png|jpe?g|jpe|jfif|webp|gif|bmp|tiff?|avif|p[bgpn]m|hei[cf]|svg|pdf|psd|jp2|jxl|ico|exr|hdr|eps)$",
    re.IGNORECASE,
)
_WEB = re.compile(r"https?://\S+", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_BRACKETS = ("()", "[]", "{}", "<>")
_QUOTES = "\"'"


def has_picture_name(text: str) -> bool:
    """Return whether a text ends like the file name of a picture, in a supported format or not."""
    return _PICTURE_NAME.search(text) is not None


class PathKind(Enum):
    """Kinds of things that a path can name on disk."""

    PICTURE = "picture"
    FOLDER = "folder"
    OTHER = "other"
    NOTHING = "nothing"


@dataclass(frozen=True)
class TypedLine:
    """A parsed line.

    Attributes:
        prompt: the question; empty if the line names pictures only.
        pictures: paths of the pictures in order.
        hints: one line for each text that looks like a picture and is none.
    """

    prompt: str
    pictures: tuple[Path, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileLookup:
    """Functions that look paths up.

    Attributes:
        kind: returns what a path names.
        matches: returns the paths that match a pattern, in order.
    """

    kind: Callable[[Path], PathKind]
    matches: Callable[[str], list[Path]]


def parse_line(line: str, files: FileLookup | None = None) -> TypedLine:
    """Split a line into question and pictures."""
    files = files or DISK
    prompt, pictures, hints = "", list[Path](), list[str]()
    at = done = 0
    while word := _WORD.search(line, at):
        found = _picture_in(line, word.start(), word.end(), files)
        if found is None:
            begin = word.start()
            hint, missing, at = _hint(line, begin, word.end(), files)
            is_first = not prompt and not line[done:begin].strip()
            has_folder = any(slash in line[begin:at] for slash in "/\\")
            if missing is None or not (is_first or has_folder):
                hints += [hint] if hint and hint not in hints else []
                continue
            found = begin, at, [missing]
        begin, at, paths = found
        pictures += paths
        if begin > done and line[begin - 1 : begin] + line[at : at + 1] in _BRACKETS:
            begin, at = begin - 1, at + 1
        prompt = _joined(prompt, line[done:begin])
        done = at
        while at < len(line) and line[at] in CLOSING:  # another may follow a comma
            at += 1
    return TypedLine(_joined(prompt, line[done:]).strip(), tuple(pictures), tuple(hints))


def _picture_in(line: str, start: int, end: int, files: FileLookup) -> tuple[int, int, list[Path]] | None:
    """Return start, end and paths of the pictures that a word names, behind brackets and quotes; None if none."""
    while start < end:
        for reading in path_readings(line, start):
            paths = _pictures(reading, files)
            if paths:
                return start, reading.end, paths
        if line[start] not in OPENING:
            break
        start += 1
    return None


def _pictures(reading: PathReading, files: FileLookup) -> list[Path]:
    if reading.is_pattern:
        return [path for path in files.matches(reading.path) if files.kind(path) is PathKind.PICTURE]
    if reading.is_loose and not has_picture_name(reading.path):
        return []  # avoids looking up a dozen paths for every word of a question
    path = expanded(reading.path)
    return [path] if path and files.kind(path) is PathKind.PICTURE else []


def expanded(text: str) -> Path | None:
    """Return the path a text stands for, `~` expanded; None if it cannot be a path."""
    if "\0" in text:
        return None
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or one without a home
        return Path(text)


def typed_path(text: str) -> Path:
    """Return the path of a text that is a path and nothing else, without its quotes or escapes."""
    quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", text)
    plain = quoted[2] if quoted else re.sub(r"\\([\s'\"()&;])", r"\1", text.strip())
    return expanded(plain) or Path(plain)


def _joined(prompt: str, text: str) -> str:
    """Join a prompt and the text after a picture that was between them: with one space, unless a line ends there."""
    left, right = prompt.rstrip(" \t"), text.lstrip(" \t")
    if not left or not right or left.endswith("\n") or right.startswith("\n"):
        return left + right
    return left + right if right[0] in CLOSING else f"{left} {right}"


def _hint(line: str, start: int, end: int, files: FileLookup) -> tuple[str | None, Path | None, int]:
    """Return a hint about a word that looks like a picture and is none, its missing path, and the end of the word."""
    web = _WEB.match(line, start)
    if web:
        address = web[0].rstrip(CLOSING)
        looks = has_picture_name(address)
        hint = f"{address} is not fetched: pictures come from this machine. Download it first."
        return hint if looks else None, None, web.end()
    while start < end - 1 and line[start] in OPENING:
        start += 1
    name, end = _named_with_spaces(line, start, files) or _named(line, start, end)
    path = expanded(name) if has_picture_name(name) else None
    if path is None or files.kind(path) is not PathKind.NOTHING:
        return None, None, end
    return f"no such file: {name}", path, end


def _named(line: str, start: int, end: int) -> tuple[str, int]:
    """Return the most likely reading of the path that begins at `start`, and its end."""
    for reading in path_readings(line, start):
        raw = line[start : reading.end]
        # A shell joins "What's in 'a.png'" to one word; a reader does not.
        if raw[:1] in _QUOTES or not any(quote in raw for quote in _QUOTES):
            path = reading.path if has_picture_name(reading.path) else reading.path.rstrip(CLOSING)
            return (path, reading.end) if has_picture_name(path) else ("", end)
    return "", end


def _named_with_spaces(line: str, start: int, files: FileLookup) -> tuple[str, int] | None:
    """Return an unquoted path with spaces, from its root to a picture's name some words later, and its end.

    None if the first word names something on disk, if a sentence ends in between, or if the last word is a picture.
    """
    for reading in path_readings(line, start):
        first, *others = reading.path.split()
        if others and not reading.is_loose and has_picture_name(reading.path):
            is_one = expanded(first) is not None and files.kind(expanded(first) or Path(first)) is PathKind.NOTHING
            ends = any(word[-1] in CLOSING for word in (first, *others[:-1]))
            last = expanded(others[-1])
            is_one = is_one and not ends and last is not None and files.kind(last) is not PathKind.PICTURE
            return (reading.path, reading.end) if is_one else None
    return None


def path_kind(path: Path) -> PathKind:
    """Return what a path names; a readable file is judged by its content."""
    try:
        if path.is_dir():
            return PathKind.FOLDER
        if not path.exists():
            return PathKind.NOTHING
        if not path.is_file():
            return PathKind.OTHER
        if has_picture_name(path.name):
            return PathKind.PICTURE
        from internvl_gguf.images.raster_formats import identify  # only now: it brings Pillow with it

        with path.open("rb") as file:
            identify(file.read(_HEAD_BYTES), path.name)
    except (OSError, ValueError, PictureError):  # a name too long, no permission, no picture
        return PathKind.OTHER if _exists(path) else PathKind.NOTHING
    return PathKind.PICTURE


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _matches(pattern: str) -> list[Path]:
    from os.path import expanduser

    def by_number(path: str) -> list[tuple[int, int, str]]:
        """page2 before page10."""
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", path) if part]

    return [Path(path) for path in sorted(glob(expanduser(pattern)), key=by_number)]  # noqa: PTH111, PTH207


DISK = FileLookup(path_kind, _matches)
"""The files of this machine."""
