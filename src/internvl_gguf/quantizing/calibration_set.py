"""Read calibration data: texts, and questions about pictures with their answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Question
from internvl_gguf.utils.text_data import decode_text

PICTURE_SUFFIXES: Final = frozenset(
    (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
DESCRIBE: Final = "Please describe the image in detail."
"""The model card's question, for pictures that come without one."""

_KINDS: Final[dict[str, tuple[type, str]]] = {
    "prompt": (str, "text"),
    "images": (list, "a list of paths"),
    "answer": (str, "text"),
    "system": (str, "text"),
}
_TILING: Final = ("max_tiles", "min_tiles", "thumbnail", "layout")
_EXAMPLE: Final = 'Write one object a line, as {"prompt": "What is it?", "images": ["a.jpg"], "answer": "A cat."}.'


@dataclass(frozen=True)
class CalibrationText:
    """A text that is read in chunks, without a template.

    Attributes:
        label: name in messages.
        text: the whole text.
    """

    label: str
    text: str


@dataclass(frozen=True)
class CalibrationQuestion:
    """A question with or without pictures, read as a conversation.

    Attributes:
        label: name in messages.
        question: the question.
        answer: the answer to read after it; "" ends the conversation with the question.
    """

    label: str
    question: Question
    answer: str = ""


CalibrationItem = CalibrationText | CalibrationQuestion


def read_items(sources: Sequence[Path]) -> list[CalibrationItem]:
    """Return all calibration items in order. Pictures are named, not opened.

    Args:
        sources: text files; pictures; folders, for all pictures in them; `.jsonl` files with one question a line, as
            `internvl ask --batch` takes them, and an `answer`.

    Raises:
        InvalidRequestError: a source that is missing, empty or of a wrong format.
    """
    return [item for source in sources for item in _items(source)]


def _items(source: Path) -> Iterable[CalibrationItem]:
    if source.is_dir():
        pictures = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        if not pictures:
            raise InvalidRequestError(f"There are no pictures in the folder {source}.", "Name one that has some.")
        return [_picture(path) for path in pictures]
    if source.suffix.lower() in PICTURE_SUFFIXES:
        return [_picture(source)]
    if source.is_fifo():
        raise InvalidRequestError(f"{source} is a pipe, which can be read only once.", "Write it to a file first.")
    try:
        text = decode_text(source.read_bytes(), str(source))
    except OSError as error:
        raise InvalidRequestError(f"{source} cannot be read: {error.strerror}.", "Check the path.") from None
    except InvalidRequestError as error:
        raise InvalidRequestError(error.message, "Give text, pictures, a folder or a .jsonl file.") from None
    if not text.strip():
        raise InvalidRequestError(f"{source} is empty.", "Give a text of some hundred words at least.")
    if source.suffix.lower() == ".jsonl":
        return list(_lines(source, text))
    return [CalibrationText(str(source), text)]


def _picture(path: Path) -> CalibrationQuestion:
    return CalibrationQuestion(str(path), Question(DESCRIBE, (path,)))


def _lines(source: Path, text: str) -> Iterator[CalibrationQuestion]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            label = f"{source}, line {number}"
            yield _question(label, source.parent, _fields(label, line))


def _fields(label: str, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{label} is not JSON: {error}.", _EXAMPLE) from None
    if not isinstance(values, dict):
        raise InvalidRequestError(f"{label} is no JSON object.", _EXAMPLE)
    for name, (kind, wanted) in _KINDS.items():
        value = values.get(name)
        is_right = value is None or isinstance(value, kind)
        if is_right and isinstance(value, list):
            is_right = all(isinstance(each, str) for each in value)
        if not is_right:
            raise InvalidRequestError(f"{label}: {name} is {json.dumps(value)[:80]}, not {wanted}.", _EXAMPLE)
    if not values.get("prompt"):
        raise InvalidRequestError(f"{label} has no prompt.", _EXAMPLE)
    return values


def _question(label: str, folder: Path, values: dict[str, Any]) -> CalibrationQuestion:
    """Return a line's question; pictures are looked for in the current folder, then beside the file."""
    images = [
        Path(image) if Path(image).exists() or image.startswith("data:") else folder / image
        for image in values.get("images") or ()
    ]
    options: dict[str, Any] = {name: values[name] for name in _TILING if name in values}
    question = Question(values["prompt"], tuple(images), options, values.get("system"))
    return CalibrationQuestion(label, question, values.get("answer") or "")
