"""What the history knows of conversations, as plain values."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from internvl_gguf.types import Picture, PictureLayout, Role

LONGEST_TITLE: Final = 120
_LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"  # none that is taken for another
_ID_LENGTH: Final = 6


@dataclass(frozen=True)
class Cut:
    """How a picture was cut, so that it can be cut like that again.

    Attributes:
        grid: (columns, rows), the thumbnail not counted.
        has_thumbnail: whether a tile with the whole picture follows.
        source_size: (width, height) of the picture in pixels.
    """

    grid: tuple[int, int]
    has_thumbnail: bool
    source_size: tuple[int, int]

    @property
    def tiles(self) -> int:
        """Tiles, the thumbnail included."""
        return self.grid[0] * self.grid[1] + self.has_thumbnail


@dataclass(frozen=True)
class HistoryPicture:
    """A picture of a kept message; its bytes lie in the history's folder of pictures.

    Attributes:
        digest: BLAKE2b-128 of the bytes of its file, in hexadecimal; its name in that folder.
        name: how messages call it.
        path: where its file was, absolute; None where it came from no file.
        limits: max_tiles, min_tiles and thumbnail as they were asked for, None where they were not.
        cut: how it was cut; None for a question that was never answered.
    """

    digest: str
    name: str
    path: str | None = None
    limits: tuple[int | None, int | None, bool | None] = (None, None, None)
    cut: Cut | None = None


@dataclass(frozen=True)
class Entry:
    """A question or an answer of a conversation.

    Attributes:
        role: "user" or "assistant".
        text: the question, or the answer as far as it came.
        created: when it was asked, or when the answer was there; seconds since 1970, UTC.
        pictures: of a question, in order.
        layout: how they stand in the prompt.
        tokens: of an answer, the ids that were sampled; None where they are not the whole of it.
        model: of an answer, the model that gave it.
        statistics: of an answer, its finish_reason, usage, timings and notices (`cli.output.reply_as_json`'s names).
    """

    role: Role
    text: str
    created: float
    pictures: tuple[HistoryPicture, ...] = ()
    layout: PictureLayout = "separate"
    tokens: tuple[int, ...] | None = None
    model: str | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Heading:
    """What stands over a conversation.

    Attributes:
        id: short and typeable.
        title: its first question, one line of printable characters.
        model: the model it was held with last.
        system: text of the system message; "" for none, None for the official one.
        created, updated: when it began and when it last went on; seconds since 1970, UTC.
    """

    id: str
    title: str
    model: str
    system: str | None
    created: float
    updated: float


@dataclass(frozen=True)
class Asked:
    """A question taken back, ready to be asked again or edited first.

    Attributes:
        text: the question.
        pictures: its pictures as `images` takes them: the bytes of their files, with name and limits.
        layout: how they stood in the prompt.
    """

    text: str
    pictures: tuple[Picture, ...] = ()
    layout: PictureLayout = "separate"


@dataclass(frozen=True)
class Summary:
    """A conversation in a list.

    Attributes:
        id: short and typeable.
        title: its first question, one line of printable characters.
        model: the model it was held with last.
        created, updated: when it began and when it last went on; seconds since 1970, UTC.
        questions: how many were asked.
        pictures: how many were shown.
        excerpt: where a search found its words; empty where nothing was searched for.
    """

    id: str
    title: str
    model: str
    created: float
    updated: float
    questions: int
    pictures: int
    excerpt: str = ""


def new_id() -> str:
    """A short name that is easily typed: one of a billion."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))


def title_of(entries: Sequence[Entry]) -> str:
    """What a conversation is called: its first question, or the pictures of that, on one line."""
    if not entries:
        return ""
    text = entries[0].text if entries[0].text.strip() else ", ".join(picture.name for picture in entries[0].pictures)
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())
    return line if len(line) <= LONGEST_TITLE else f"{line[: LONGEST_TITLE - 1]}…"
