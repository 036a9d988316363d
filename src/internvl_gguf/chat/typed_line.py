"""Parsing a typed line: the pictures and clips named anywhere in it, and the rest, which is the question.

A path counts as a picture if its file exists and is a picture or a clip by its content. So does a file that is not, but
has the name of one: the user then gets an error that says why it cannot be read. So does the name of a missing picture,
and a picture's address on the web, for an answer without that picture would be about something else. Everything else
stays text. Clips are pictures here but for what a question calls them.

Paths before or after the question, as files are dropped, are no part of it. Within a sentence a picture is called by
its number, so that the sentence stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from glob import glob
from pathlib import Path
from typing import TypeAlias

from internvl_gguf.chat.path_readings import CLOSING, OPENING, PathReading, path_readings
from internvl_gguf.errors import PictureError
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.video.formats import ENDINGS, REFUSED_ENDINGS, is_meant_as_clip

_HEAD_BYTES = 1024
_NAMED_PICTURE = (
    r"[^\s./\\]\.(png|jpe?g|jpe|jfif|webp|gif|bmp|tiff?|avif|p[bgpn]m|hei[cf]|svg|pdf|psd|jp2|jxl|ico|exr|hdr|eps"
    rf"|{ENDINGS})"
)
_PICTURE_NAME = re.compile(rf"{_NAMED_PICTURE}$", re.IGNORECASE)
_REFUSED_NAME = re.compile(rf"\.({REFUSED_ENDINGS}|ts)$", re.IGNORECASE)
_WEB = re.compile(r"https?://\S+", re.IGNORECASE)
_WEB_PICTURE = re.compile(  # Chinese follows a name without a space
    rf"https?://\S*?{_NAMED_PICTURE}(?:[?#]\S*|(?=[{re.escape(CLOSING)}]*(?:\s|$)|[^\x00-\x7f]))", re.IGNORECASE
)
_WORD = re.compile(r"\S+")
_QUOTES = "\"'"
_SPACES = " \t"
_BETWEEN = f"{_SPACES}\n{OPENING}{CLOSING}"
"""What may stand between pictures that were dropped together."""
_SENTENCE_ENDS = (*".!?:;…\n", "。", "！", "？", "：")
_MOST_NUMBERS = 3  # that are listed one by one
_NOT_FETCHED = "not fetched: pictures come from this machine."

_Pieces: TypeAlias = tuple[str | tuple[int, ...], ...]


def has_picture_name(text: str) -> bool:
    """Return whether a text ends like the file name of a picture or a clip, in a supported format or not."""
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
        pieces: the question: texts, and between them the indexes of the pictures that stand there.
        pictures: paths of the pictures in order.
        hints: one line for each text that looks like a picture and is none.
        addresses: addresses of pictures on the web; they stay text, and each has a hint.
    """

    pieces: _Pieces
    pictures: tuple[Path, ...] = ()
    hints: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The question where no other picture is there; empty if the line names pictures only."""
        return self.question(range(1, len(self.pictures) + 1), len(self.pictures))

    def question(self, numbers: Sequence[int], total: int, clips: Collection[int] = (), total_clips: int = 0) -> str:
        """Return the question.

        Args:
            numbers: the number, from 1, of each picture in its conversation; that of a clip counts clips.
            total: number of the pictures that the conversation has with them, without clips.
            clips: indexes of the pictures that are clips.
            total_clips: number of the clips that the conversation has with them.
        """

        # A file's name would be as good English, but IMG_2033.jpg means nothing to a model: the demo model answers that
        # it cannot tell. Several pictures have their numbers in the prompt.
        def called(piece: tuple[int, ...]) -> str:
            kinds = (("picture", total, False), ("video", total_clips, True))
            named = (
                _called([numbers[index] for index in piece if (index in clips) == is_clip], noun, count)
                for noun, count, is_clip in kinds
            )
            return " and ".join(filter(None, named))

        return "".join(piece if isinstance(piece, str) else called(piece) for piece in self.pieces).strip()

    def refuse_addresses(self) -> None:
        """Refuse a line with the address of a picture.

        Raises:
            PictureError: it has one.
        """
        for address in self.addresses:
            raise PictureError(f"{safe_name(address)} is {_NOT_FETCHED}", "Download it first.")


def _called(numbers: Sequence[int], noun: str, total: int) -> str:
    """Return the words for pictures of a conversation: "the picture", "picture 2", "pictures 2, 3"; "" for none."""
    if not numbers:
        return ""
    if total == 1:
        return f"the {noun}"
    unique = sorted(set(numbers))
    if len(unique) > _MOST_NUMBERS and unique[-1] - unique[0] == len(unique) - 1:
        return f"{noun}s {unique[0]} to {unique[-1]}"
    return f"{noun}{'s' * (len(unique) > 1)} {', '.join(map(str, unique))}"


@dataclass(frozen=True)
class FileLookup:
    """Functions that look paths up.

    Attributes:
        kind: returns what a path names.
        matches: returns the paths that match a pattern, in order.
    """

    kind: Callable[[Path], PathKind]
    matches: Callable[[str], list[Path]]


@dataclass(frozen=True)
class _Place:
    """Pictures that stand at a place of a line, by their paths."""

    begin: int
    end: int
    paths: list[Path]


def parse_line(line: str, files: FileLookup | None = None, *, missing_is_text: bool = False) -> TypedLine:
    """Split a line into question and pictures.

    Args:
        line: as it was typed.
        files: looks paths up; those of this machine if None.
        missing_is_text: whether the name of a missing picture stays text, with a hint.
    """
    files = files or DISK
    places, hints, addresses = list[_Place](), list[str](), list[str]()
    at = 0
    while word := _WORD.search(line, at):
        found = _picture_in(line, word.start(), word.end(), files)
        web = None if found else _WEB_PICTURE.search(line, word.start(), word.end())
        if web:
            addresses.append(web[0].rstrip(CLOSING))
            at = word.end()
            continue
        if found is None:
            hint, missing, begin, at = _hint(line, word.start(), word.end(), files)
            if missing is None or missing_is_text:
                hints += [hint] if hint and hint not in hints else []
                continue
            found = begin, at, [missing]
        begin, at, paths = found
        places.append(_Place(begin, at, paths))
        while at < len(line) and line[at] in CLOSING:  # another may follow a comma
            at += 1
    addresses = list(dict.fromkeys(addresses))
    hints += [f"{address} is {_NOT_FETCHED} Download it first." for address in addresses]
    groups = _groups(line, places)
    if all(_is_beside_question(line, group[0].begin, group[-1].end) for group in groups):
        pieces: _Pieces = (_without(line, groups),)
        pictures = tuple(path for place in places for path in place.paths)
    else:
        pieces, pictures = _with_places(line, places)
    return TypedLine(pieces, pictures, tuple(hints), tuple(addresses))


def _groups(line: str, places: Sequence[_Place]) -> list[list[_Place]]:
    """Return places that follow each other directly, together."""
    groups: list[list[_Place]] = []
    for place in places:
        if groups and not line[groups[-1][-1].end : place.begin].strip(_BETWEEN):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _is_beside_question(line: str, begin: int, end: int) -> bool:
    """Return whether pictures stand before or after a whole question, or on a line of their own."""
    before, after = line[:begin].rstrip(OPENING).rstrip(_SPACES), line[end:].lstrip(CLOSING).lstrip(_SPACES)
    if not before:
        return True
    if after:
        return before.endswith("\n") and after.startswith("\n")
    return before.endswith(_SENTENCE_ENDS)


def _without(line: str, groups: Sequence[Sequence[_Place]]) -> str:
    """Return a line without the pictures that stand beside its question, nor the brackets and commas around them."""
    prompt, done = "", 0
    for group in groups:
        prompt = _joined(prompt, line[done : group[0].begin].rstrip(OPENING))
        done = len(line) - len(line[group[-1].end :].lstrip(CLOSING))
    return _joined(prompt, line[done:]).strip()


def _with_places(line: str, places: Sequence[_Place]) -> tuple[_Pieces, tuple[Path, ...]]:
    """Return the pieces of a line whose sentence names pictures, and these; one that it names twice is one picture."""
    pictures: list[Path] = []
    pieces: list[str | tuple[int, ...]] = []
    done = 0
    for place in places:
        pictures += [path for path in place.paths if path not in pictures]
        pieces += [line[done : place.begin], tuple(pictures.index(path) for path in place.paths)]
        done = place.end
    return (*pieces, line[done:]), tuple(pictures)


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
    left, right = prompt.rstrip(_SPACES), text.lstrip(_SPACES)
    is_apart = not left or not right or left.endswith("\n") or right.startswith("\n")
    return left + right if is_apart else f"{left} {right}"


def _hint(line: str, start: int, end: int, files: FileLookup) -> tuple[str | None, Path | None, int, int]:
    """Return a hint about a word that looks like a picture and is none, its missing path, and its begin and end."""
    web = _WEB.match(line, start)
    if web:
        return None, None, start, web.end()
    while start < end - 1 and line[start] in OPENING:
        start += 1
    name, end = _named_with_spaces(line, start, files) or _named(line, start, end)
    path = expanded(name) if has_picture_name(name) else None
    kind = PathKind.OTHER if path is None else files.kind(path)
    if kind is PathKind.FOLDER:
        return f"{name} is a folder, and nothing of it was attached", None, start, end
    if path is None or kind is not PathKind.NOTHING:
        return None, None, start, end
    return f"no such file: {name}", path, start, end


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
            head = file.read(_HEAD_BYTES)
        if not is_meant_as_clip(head, path.name):
            identify(head, path.name)
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

    found = sorted(glob(expanduser(pattern)), key=by_number)  # noqa: PTH111, PTH207
    # Who names a folder means what can be read in it: a playlist beside clips would refuse them all.
    return [Path(path) for path in found if not _REFUSED_NAME.search(path)]


DISK = FileLookup(path_kind, _matches)
"""The files of this machine."""
