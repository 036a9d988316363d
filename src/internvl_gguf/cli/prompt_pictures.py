"""Find pictures that a question names by their paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from internvl_gguf.chat.typed_line import DISK, FileLookup, PathKind, TypedLine, parse_line
from internvl_gguf.cli.output import say
from internvl_gguf.cli.stdin import is_stdin
from internvl_gguf.errors import PictureError
from internvl_gguf.images.load import describe_source, take_source
from internvl_gguf.types import Picture

OFF: Final = "--no-prompt-pictures"


def find_pictures(prompt: str, given: Sequence[str]) -> TypedLine:
    """Return the pictures whose paths are in a question, as the chat reads a line; paths of `given` ones stay text.

    Args:
        prompt: the question.
        given: pictures that come with it anyway.
    """
    known = [Path(image) for image in given if not is_stdin(image) and Path(image).exists()]

    def kind(path: Path) -> PathKind:
        found = DISK.kind(path)
        is_given = found is PathKind.PICTURE and any(path.samefile(each) for each in known)
        return PathKind.OTHER if is_given else found

    return parse_line(prompt, FileLookup(kind, DISK.matches))


def take_found(found: TypedLine, question: str) -> list[Picture]:
    """Read the pictures found in a question, and tell the user of each in a line.

    Args:
        found: the pictures.
        question: as it was typed: errors name a picture as the question does.

    Raises:
        PictureError: one that cannot be read.
    """
    for hint in found.hints:
        say(f"({hint})")
    return [_taken(path, question) for path in found.pictures]


def _taken(path: Path, question: str) -> Picture:
    typed = f"./{path}" if f"./{path}" in question else str(path)
    try:
        picture = take_source(path)
    except PictureError as error:
        hint = f"{error.hint} With {OFF} the question is asked as it stands."
        raise PictureError(error.message.replace(str(path), typed, 1), hint) from None
    say(f"Attached {describe_source(path)}, which the question names ({OFF} leaves it text).")
    return replace(picture, name=str(path))
