"""Find pictures and clips that a question names by their paths."""

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
from internvl_gguf.types import Picture, Video
from internvl_gguf.video.clip_wishes import ClipWishes, is_clip_source

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


def find_pictures(prompt: str, given: Sequence[str], videos: Sequence[str] = ()) -> FoundPictures:
    """Return the pictures whose paths are in a question, as the chat reads a line; clips are among them.

    Args:
        prompt: the question.
        given: pictures that come with it anyway, the first ones; a question may call them by their names.
        videos: clips that come with it anyway, after these.
    """
    names = [*given, *videos]
    known = {place: Path(name) for place, name in enumerate(names, 1) if not is_stdin(name)}

    def kind(path: Path) -> PathKind:
        return PathKind.PICTURE if _place_of(path, known) else DISK.kind(path)

    typed = parse_line(prompt, FileLookup(kind, DISK.matches))
    places = [_place_of(path, known) for path in typed.pictures]
    paths = [path for path, place in zip(typed.pictures, places, strict=True) if not place]
    are_clips = [is_clip_source(name) for name in (*given, *map(str, paths))]
    are_clips[len(given) : len(given)] = [True] * len(videos)
    numbers = _counted(are_clips)
    new = iter(range(len(names), len(names) + len(paths)))
    indexes = [place - 1 if place else next(new) for place in places]
    question = typed.question(
        [numbers[index] for index in indexes],
        are_clips.count(False),
        {number for number, index in enumerate(indexes) if are_clips[index]},
        are_clips.count(True),
    )
    return FoundPictures(question, tuple(paths), typed.hints)


def _counted(are_clips: Sequence[bool]) -> list[int]:
    """Return the number of each picture among the pictures, and of each clip among the clips, from 1."""
    return [are_clips[: index + 1].count(is_clip) for index, is_clip in enumerate(are_clips)]


def _place_of(path: Path, known: Mapping[int, Path]) -> int:
    """Return the place of the given picture that a path means: the file, or the name where no file has it; else 0."""
    found = DISK.kind(path)
    if found is PathKind.PICTURE:
        return next((number for number, each in known.items() if each.exists() and path.samefile(each)), 0)
    if found is PathKind.NOTHING:
        return next((number for number, each in known.items() if str(path) == each.name), 0)
    return 0


def take_found(found: FoundPictures, question: str, wishes: ClipWishes) -> list[Picture | Video]:
    """Read the pictures found in a question, and tell the user of each in a line.

    Args:
        found: the pictures.
        question: as it was typed: errors name a picture as the question does.
        wishes: which frames of clips are shown.

    Raises:
        PictureError: one that cannot be read.
    """
    for hint in found.hints:
        say(f"({hint})")
    return [_taken(path, question, wishes) for path in found.paths]


def _taken(path: Path, question: str, wishes: ClipWishes) -> Picture | Video:
    typed = f"./{path}" if f"./{path}" in question else str(path)
    try:
        picture = wishes.video(path) if is_clip_source(str(path)) else take_source(path)
    except PictureError as error:
        hint = f"{error.hint} With {OFF} the question is asked as it stands."
        raise PictureError(error.message.replace(str(path), typed, 1), hint) from None
    say(f"Attached {describe_source(path)}, which the question names ({OFF} leaves it text).")
    return replace(picture, name=str(path))
