"""Find pictures that a question names by their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from internvl_gguf.chat.typed_line import DISK, FileLookup, PathKind, parse_line
from internvl_gguf.cli.output import say
from internvl_gguf.cli.stdin import is_stdin
from internvl_gguf.errors import PictureError
from internvl_gguf.images.load import describe_source, take_source
from internvl_gguf.types import Picture

OFF: Final = "--no-prompt-pictures"


@dataclass(frozen=True)
class FoundPictures:
    """A question and the pictures that it names.

    Attributes:
        question: the question.
        paths: of the pictures that are not given otherwise.
        hints: one line for each text that looks like a picture and is none.
    """

    question: str
    paths: tuple[Path, ...] = ()
    hints: tuple[str, ...] = ()


def find_pictures(prompt: str, given: Sequence[str]) -> FoundPictures:
    """Return the pictures whose paths are in a question, as the chat reads a line.

    Args:
        prompt: the question.
        given: pictures that come with it anyway, the first ones; a question may call them by their names.
    """
    known = {number: Path(image) for number, image in enumerate(given, 1) if not is_stdin(image)}

    def kind(path: Path) -> PathKind:
        return PathKind.PICTURE if _number_of(path, known) else DISK.kind(path)

    typed = parse_line(prompt, FileLookup(kind, DISK.matches))
    paths = [path for path in typed.pictures if not _number_of(path, known)]
    new = iter(range(len(given) + 1, len(given) + len(paths) + 1))
    numbers = [_number_of(path, known) or next(new) for path in typed.pictures]
    return FoundPictures(typed.question(numbers, len(given) + len(paths)), tuple(paths), typed.hints)


def _number_of(path: Path, known: Mapping[int, Path]) -> int:
    """Return the number of the given picture that a path means: the file, or the name where no file has it; else 0."""
    found = DISK.kind(path)
    if found is PathKind.PICTURE:
        return next((number for number, each in known.items() if each.exists() and path.samefile(each)), 0)
    if found is PathKind.NOTHING:
        return next((number for number, each in known.items() if str(path) == each.name), 0)
    return 0


def take_found(found: FoundPictures, question: str) -> list[Picture]:
    """Read the pictures found in a question, and tell the user of each in a line.

    Args:
        found: the pictures.
        question: as it was typed: errors name a picture as the question does.

    Raises:
        PictureError: one that cannot be read.
    """
    for hint in found.hints:
        say(f"({hint})")
    return [_taken(path, question) for path in found.paths]


def _taken(path: Path, question: str) -> Picture:
    typed = f"./{path}" if f"./{path}" in question else str(path)
    try:
        picture = take_source(path)
    except PictureError as error:
        hint = f"{error.hint} With {OFF} the question is asked as it stands."
        raise PictureError(error.message.replace(str(path), typed, 1), hint) from None
    say(f"Attached {describe_source(path)}, which the question names ({OFF} leaves it text).")
    return replace(picture, name=str(path))
