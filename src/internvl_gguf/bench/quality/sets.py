"""Read the sets that quality and accuracy are measured on: texts, and pictures with questions.

Some sets come with the package. Pictures come with a file of one JSON object a line, or as a folder, which may hold
such a file (`questions.jsonl`); without one, the question is to describe each picture of the folder.

    {"image": "receipt.png", "prompt": "What is the total?", "answer": "12.40"}

`image` or `images` are paths relative to the file's folder. `answer` or `answers` are the expected answers. For
accuracy any of them is right; for quality the first is scored, or, without one, the reference's own answer.
`max_tokens` limits the answer, `max_tiles` the tiles of a picture, `tolerance` the error of a number (see `matching`).
Lines that cannot be used are reported and left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeGuard

from internvl_gguf.bench.quality.matching import TOLERANCE
from internvl_gguf.errors import InternVLError, InvalidRequestError, PictureError
from internvl_gguf.images.load import check_source, load_image
from internvl_gguf.utils.text_data import as_utf8, decode_text

LANGUAGE: Final = 4096
"""Smallest vocabulary of a model for real questions, in tokens; the demo model has 768."""
OFF: Final = "off"
"""In place of the path of a set: leave that measurement out."""


_DATA: Final = Path(__file__).parents[1] / "data"
_TEXT: Final = _DATA / "text.txt"
_PICTURES: Final = _DATA / "pictures" / "questions.jsonl"
_TASK: Final = _DATA / "exam" / "questions.jsonl"
_QUESTIONS: Final = "questions.jsonl"
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".pbm")
_DESCRIBE: Final = "Describe the picture."
_EXAMPLE: Final = 'Write one object a line, as {"image": "photo.png", "prompt": "What is it?", "answer": "A cat."}.'
_FIELDS: Final = ("id", "image", "images", "prompt", "answer", "answers", "max_tokens", "max_tiles", "tolerance")


@dataclass(frozen=True)
class TextSet:
    """A text to score.

    Attributes:
        name: its name in messages.
        text: without the newline at its end.
    """

    name: str
    text: str


@dataclass(frozen=True)
class PictureItem:
    """A question about pictures.

    Attributes:
        line: line of the file, from 1; in a folder without such a file, the picture's place.
        images: the pictures' files.
        prompt: the question.
        answers: the right answers; empty if not known.
        max_tokens, max_tiles: limits of this question, if any.
        tolerance: largest error of a number that counts as right, as a fraction.
    """

    line: int
    images: tuple[Path, ...]
    prompt: str
    answers: tuple[str, ...] = ()
    max_tokens: int | None = None
    max_tiles: int | None = None
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class PictureSet:
    """Questions about pictures.

    Attributes:
        name: its name in messages.
        items: questions that can be asked, as far as is known without decoding a picture.
        problems: lines that cannot be used, each with its reason.
        unit: "line" or "picture", for messages.
    """

    name: str
    items: tuple[PictureItem, ...]
    problems: tuple[str, ...] = ()
    unit: str = "line"

    def place(self, item: PictureItem) -> str:
        """Return the name of an item in messages: "questions.jsonl, line 3"."""
        return f"{self.name}, {self.unit} {item.line}"

    @cached_property
    def digest(self) -> str:
        """Digest of the questions and of the content of their picture files.

        Raises:
            PictureError: a picture is gone.
        """
        digest = hashlib.blake2b(digest_size=16)
        pictures: dict[Path, str] = {}
        for item in self.items:
            for path in item.images:
                if path not in pictures:
                    pictures[path] = _file_digest(path)
            facts = [[pictures[path] for path in item.images], item.prompt, item.answers[:1], item.max_tokens]
            digest.update(json.dumps([*facts, item.max_tiles]).encode())
        return digest.hexdigest()


def read_text(path: str | None) -> TextSet:
    """Read the user's text, or the one that comes with the package.

    Raises:
        InvalidRequestError: it cannot be read, is empty or is not UTF-8.
    """
    data = _read(Path(path) if path else _TEXT)
    text = decode_text(data, str(path)).removesuffix("\n")  # as llama-perplexity takes a file
    if not text:
        raise InvalidRequestError(f"{path} is empty.", "Give a text of some thousand words.")
    return TextSet(Path(path).name if path else "the bench text", text)


def read_pictures(path: str | None, n_vocab: int = LANGUAGE) -> PictureSet:
    """Read a folder of pictures, a file of questions, or a set that comes with the package.

    Args:
        path: of the folder or file; None for a set that suits the model: documents, charts, signs and scenes, or, for a
            vocabulary smaller than `LANGUAGE`, pictures like those the demo model was trained on.
        n_vocab: tokens of the model's vocabulary.

    Raises:
        InvalidRequestError: there is no such file or folder, or nothing in it can be used.
    """
    if not path:
        if n_vocab >= LANGUAGE:
            return _read_questions(_PICTURES, "the bench pictures")
        return PictureSet("half the demo exam", read_task(None).items[::2])
    place = Path(path)
    if place.is_dir():
        own = place / _QUESTIONS
        return _read_questions(own, f"{place.name}/{_QUESTIONS}") if own.exists() else _read_folder(place)
    return _read_questions(place, place.name)


def read_task(path: str | None) -> PictureSet:
    """Read questions with accepted answers: a file of them, or the demo model's held-out ones.

    Raises:
        InvalidRequestError: there is no such file, or nothing in it can be used.
    """
    place = Path(path) if path else _TASK
    found = _read_questions(place, place.stem if path else "demo exam")
    open_ended = [f"{found.place(item)}: It has no answer." for item in found.items if not item.answers]
    items = tuple(item for item in found.items if item.answers)
    if not items:
        raise InvalidRequestError(f"{place} has no line with an answer.", _EXAMPLE)
    return PictureSet(found.name, items, (*found.problems, *open_ended))


def check_sets(
    text: str | None = None, pictures: str | None = None, tasks: Sequence[str | None] = (), n_ctx: int = 1
) -> list[str]:
    """Check all sets for quality and accuracy before anything is measured.

    Args:
        text, pictures: see `quality.QualityJob`.
        tasks: files of questions; None for the one that comes with the package.
        n_ctx: tokens of a chunk of text.

    Returns:
        One line for each item that cannot be used and will be left out.

    Raises:
        InvalidRequestError: a set that cannot be used at all.
    """
    if text != OFF:
        found = read_text(text)
        n_bytes = len(found.text.encode())
        if n_bytes < n_ctx:  # a token has a byte at least; the tokens are counted by `quality`
            raise InvalidRequestError(
                f"{found.name} has {n_bytes:,} bytes, too few for one chunk of {n_ctx:,} tokens.",
                "Give a longer text, or use smaller chunks.",
            )
    sets = [] if pictures == OFF else [read_pictures(pictures)]
    sets += [read_task(task) for task in tasks]
    return [line for each in sets for line in (*each.problems, *_undecodable(each))]


def _undecodable(pictures: PictureSet) -> list[str]:
    seen: dict[Path, str] = {}
    for item in pictures.items:
        for path in item.images:
            if path not in seen:
                try:
                    load_image(path)
                    seen[path] = ""
                except PictureError as error:
                    seen[path] = error.message
    if all(any(seen[path] for path in item.images) for item in pictures.items):
        first = next(reason for reason in seen.values() if reason)
        raise InvalidRequestError(f"No picture of {pictures.name} can be read: {first}", "Check the pictures.")
    return [f"{pictures.place(item)}: {seen[path]}" for item in pictures.items for path in item.images if seen[path]]


def _read_folder(folder: Path) -> PictureSet:
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError as error:
        raise InvalidRequestError(f"{folder} cannot be read: {error.strerror}.", "Check the folder.") from error
    pictures = [path for path in found if not path.name.startswith(".")]
    if not pictures:
        raise InvalidRequestError(
            f"There is no picture in {folder}.", f"Give a folder with pictures, or with a {_QUESTIONS}."
        )
    items = (PictureItem(number, (path,), _DESCRIBE) for number, path in enumerate(pictures, 1))
    return PictureSet(folder.name, tuple(items), unit="picture")


def _read_questions(path: Path, name: str) -> PictureSet:
    items: list[PictureItem] = []
    problems: list[str] = []
    hint = _EXAMPLE
    for number, data in enumerate(as_utf8(_read(path), str(path)).splitlines(), 1):
        if not data.strip():
            continue
        try:
            items.append(_item(number, data, path.parent))
        except InternVLError as error:
            hint = hint if problems else error.hint
            problems.append(f"{name}, line {number}: {error.message}")
    if not items:
        raise InvalidRequestError(problems[0] if problems else f"{path} is empty.", hint)
    return PictureSet(name, tuple(items), tuple(problems))


def _item(number: int, data: bytes, folder: Path) -> PictureItem:
    """Parse the question of a line.

    Raises:
        InvalidRequestError: the line is no question.
        PictureError: there is no such picture.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"It is not JSON: {error}.", _EXAMPLE) from error
    if not isinstance(fields, dict):
        raise InvalidRequestError("It is no JSON object.", _EXAMPLE)
    unknown = sorted(fields.keys() - set(_FIELDS))
    if unknown:
        raise InvalidRequestError(
            f"There is no field {unknown[0]!r} of a question.", f"The fields are {', '.join(_FIELDS)}."
        )
    images = tuple(folder / name for name in _texts(fields, "image", "images"))
    prompt = fields.get("prompt")
    if not images or not _is_text(prompt):
        raise InvalidRequestError("It needs a picture and a prompt.", _EXAMPLE)
    for path in images:
        check_source(path)
    return PictureItem(
        number,
        images,
        prompt,
        tuple(_texts(fields, "answer", "answers")),
        _count(fields, "max_tokens"),
        _count(fields, "max_tiles"),
        _fraction(fields, "tolerance"),
    )


def _texts(fields: dict[str, Any], one: str, several: str) -> Iterable[str]:
    """Return the texts of a field that may be named in the singular or the plural."""
    if one in fields and several in fields:
        raise InvalidRequestError(f"It has both {one} and {several}.", "Give one of them.")
    value = [fields[one]] if one in fields else fields.get(several, [])
    if not isinstance(value, list) or not all(map(_is_text, value)):
        raise InvalidRequestError(f"{one if one in fields else several} is {json.dumps(value)[:80]}.", "Give text.")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Return whether a value is text, not empty and without lone surrogates, which JSON can hold."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= character <= "\udfff" for character in value)


def _count(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InvalidRequestError(f"{name} is {json.dumps(value)[:80]}.", "Give a whole number above 0.")
    return value


def _fraction(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name, TOLERANCE)
    if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
        raise InvalidRequestError(f"{name} is {json.dumps(value)[:80]}.", "Give a fraction, such as 0.05.")
    return float(value)


def _read(path: Path) -> bytes:
    try:
        if path.is_fifo():
            raise InvalidRequestError(f"{path} is a pipe, which can be read only once.", "Write it to a file first.")
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise PictureError(f"Cannot use {path}: {error.strerror}.", "Check the path.") from error
