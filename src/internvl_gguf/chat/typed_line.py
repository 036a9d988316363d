"""A line as it was typed: the pictures named anywhere in it, and the rest, which is the question.

A path counts as a picture where its file exists and is one by its content. A file that is none by its content but has
a picture's name counts, too: whoever names it wants to know why it cannot be shown. So does a name that leads nowhere
where it begins the line or has a folder in it: an answer without that picture would be about something else. Everything
else stays text, a name in the middle of a question with a hint.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from glob import glob
from pathlib import Path

from internvl_gguf.chat.words import CLOSING, OPENING, Reading, readings
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
    """Whether a text ends like the name of a picture, one that can be decoded or not."""
    return _PICTURE_NAME.search(text) is not None


class Kind(Enum):
    """What a path leads to."""

    PICTURE = "picture"
    FOLDER = "folder"
    OTHER = "other"
    NOTHING = "nothing"


@dataclass(frozen=True)
class TypedLine:
    """A line taken apart.

    Attributes:
        prompt: the question; empty where the line names pictures only.
        pictures: the pictures in order.
        hints: what looks like a picture and is none, one line each.
    """

    prompt: str
    pictures: tuple[Path, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files:
    """Where paths are looked up; the disk, unless a test says otherwise.

    Attributes:
        kind: what a path leads to.
        matches: the paths that a pattern stands for, in order.
    """

    kind: Callable[[Path], Kind]
    matches: Callable[[str], list[Path]]


def parse_line(line: str, files: Files | None = None) -> TypedLine:
    """Take the pictures out of a line."""
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


def _picture_in(line: str, start: int, end: int, files: Files) -> tuple[int, int, list[Path]] | None:
    """Where the word names pictures, and which; brackets and quotes before them are passed over."""
    while start < end:
        for reading in readings(line, start):
            paths = _pictures(reading, files)
            if paths:
                return start, reading.end, paths
        if line[start] not in OPENING:
            break
        start += 1
    return None


def _pictures(reading: Reading, files: Files) -> list[Path]:
    if reading.is_pattern:
        return [path for path in files.matches(reading.path) if files.kind(path) is Kind.PICTURE]
    if reading.is_loose and not has_picture_name(reading.path):
        return []  # a dozen words are not looked up for every word of a question
    path = expanded(reading.path)
    return [path] if path and files.kind(path) is Kind.PICTURE else []


def expanded(text: str) -> Path | None:
    """The path a text stands for, `~` replaced; None for what cannot be one."""
    if "\0" in text:
        return None
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user, or one without a home
        return Path(text)


def typed_path(text: str) -> Path:
    """A text that is a path and nothing else, its quotes or escapes taken off."""
    quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", text)
    plain = quoted[2] if quoted else re.sub(r"\\([\s'\"()&;])", r"\1", text.strip())
    return expanded(plain) or Path(plain)


def _joined(prompt: str, text: str) -> str:
    """A prompt and what follows a picture that stood between them: one space, unless a line ends there."""
    left, right = prompt.rstrip(" \t"), text.lstrip(" \t")
    if not left or not right or left.endswith("\n") or right.startswith("\n"):
        return left + right
    return left + right if right[0] in CLOSING else f"{left} {right}"


def _hint(line: str, start: int, end: int, files: Files) -> tuple[str | None, Path | None, int]:
    """What to say of a word that looks like a picture and is none, the path that leads nowhere, and where it ends."""
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
    if path is None or files.kind(path) is not Kind.NOTHING:
        return None, None, end
    return f"no such file: {name}", path, end


def _named(line: str, start: int, end: int) -> tuple[str, int]:
    """The path that a person most likely means by what begins at `start`, and where it ends."""
    for reading in readings(line, start):
        raw = line[start : reading.end]
        # A shell joins "What's in 'a.png'" to one word, a person does not.
        if raw[:1] in _QUOTES or not any(quote in raw for quote in _QUOTES):
            path = reading.path if has_picture_name(reading.path) else reading.path.rstrip(CLOSING)
            return (path, reading.end) if has_picture_name(path) else ("", end)
    return "", end


def _named_with_spaces(line: str, start: int, files: Files) -> tuple[str, int] | None:
    """A picture's path that nobody quoted, from its root to a name of a picture some words on, and where it ends.

    None where the first word leads somewhere, where a sentence ends in between, and where the last word is itself a
    picture.
    """
    for reading in readings(line, start):
        first, *others = reading.path.split()
        if others and not reading.is_loose and has_picture_name(reading.path):
            is_one = expanded(first) is not None and files.kind(expanded(first) or Path(first)) is Kind.NOTHING
            ends = any(word[-1] in CLOSING for word in (first, *others[:-1]))
            last = expanded(others[-1])
            is_one = is_one and not ends and last is not None and files.kind(last) is not Kind.PICTURE
            return (reading.path, reading.end) if is_one else None
    return None


def kind_of(path: Path) -> Kind:
    """What a path leads to, by its content where it is a file that can be read."""
    try:
        if path.is_dir():
            return Kind.FOLDER
        if not path.exists():
            return Kind.NOTHING
        if not path.is_file():
            return Kind.OTHER
        if has_picture_name(path.name):
            return Kind.PICTURE
        from internvl_gguf.images.raster_formats import identify  # only now: it brings Pillow with it

        with path.open("rb") as file:
            identify(file.read(_HEAD_BYTES), path.name)
    except (OSError, ValueError, PictureError):  # a name too long, no permission, no picture
        return Kind.OTHER if _exists(path) else Kind.NOTHING
    return Kind.PICTURE


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


DISK = Files(kind_of, _matches)
"""The files of this machine."""
