"""The values of the history: headings, entries and pictures of conversations, and summaries for lists."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from internvl_gguf.types import Picture, PictureLayout, Role

LONGEST_TITLE: Final = 120
_LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"  # no two look alike
_ID_LENGTH: Final = 6


@dataclass(frozen=True)
class PictureCut:
    """The grid by which a picture was cut, so that it can be cut the same way again.

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
        """Number of tiles, the thumbnail included."""
        return self.grid[0] * self.grid[1] + self.has_thumbnail


@dataclass(frozen=True)
class HistoryPicture:
    """A picture of a stored message; its bytes are in the history's folder of pictures.

    Attributes:
        digest: BLAKE2b-128 of the bytes of its file, in hexadecimal; its file name in that folder.
        name: its name in messages.
        path: absolute path of the original file; None if it came from no file.
        limits: max_tiles, min_tiles and thumbnail as requested; None for each that was not.
        cut: the grid it was cut by; None for a question that was never answered. Of a frame that is kept as its tile it
            has the size that the frame had.
        label: text before it in the prompt, which a frame of a clip has; "" for what the layout says.
    """

    digest: str
    name: str
    path: str | None = None
    limits: tuple[int | None, int | None, bool | None] = (None, None, None)
    cut: PictureCut | None = None
    label: str = ""

    def of(self, data: bytes) -> Picture:
        """Return the picture as `images` takes it, with the bytes of its file."""
        size = self.cut.source_size if self.cut and self.label else None
        return Picture(data, *self.limits, name=self.name, label=self.label, source_size=size)


@dataclass(frozen=True)
class Entry:
    """A question or an answer of a conversation.

    Attributes:
        role: "user" or "assistant".
        text: the question, or the answer as far as it came.
        created: time of the question, or of the end of the answer; seconds since 1970, UTC.
        pictures: pictures of a question, in order.
        layout: how they are laid out in the prompt.
        tokens: for an answer, the sampled ids; None if they are not exactly the answer.
        model: for an answer, the model that gave it.
        thinking: for an answer, its thought, as `Message` has it.
        statistics: for an answer, its finish_reason, usage, timings and notices (as `Reply.to_dict` has them).
    """

    role: Role
    text: str
    created: float
    pictures: tuple[HistoryPicture, ...] = ()
    layout: PictureLayout = "separate"
    tokens: tuple[int, ...] | None = None
    model: str | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    thinking: str = ""


@dataclass(frozen=True)
class Heading:
    """The heading of a conversation.

    Attributes:
        id: short id that is easy to type.
        title: its first question, one line of printable characters.
        model: the model it was last held with.
        system: text of the system message; "" for none, None for the official one.
        created, updated: times of its beginning and of its last change; seconds since 1970, UTC.
    """

    id: str
    title: str
    model: str
    system: str | None
    created: float
    updated: float


@dataclass(frozen=True)
class HistoryQuestion:
    """A question from the history, ready to be edited or asked again.

    Attributes:
        text: the question.
        pictures: its pictures as `images` takes them: the bytes of their files, with name and limits.
        layout: how they were laid out in the prompt.
    """

    text: str
    pictures: tuple[Picture, ...] = ()
    layout: PictureLayout = "separate"


@dataclass(frozen=True)
class Summary:
    """One line of a list of conversations.

    Attributes:
        id: short id that is easy to type.
        title: its first question, one line of printable characters.
        model: the model it was last held with.
        created, updated: times of its beginning and of its last change; seconds since 1970, UTC.
        questions: number of questions.
        pictures: number of pictures.
        excerpt: text around the first match of a search; "" without a search.
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
    """Return a random id that is short and easy to type: one of a billion."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))


def title_of(entries: Sequence[Entry]) -> str:
    """Return the title of a conversation: its first question, or the pictures of that, on one line."""
    if not entries:
        return ""
    text = entries[0].text if entries[0].text.strip() else ", ".join(picture.name for picture in entries[0].pictures)
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())
    return line if len(line) <= LONGEST_TITLE else f"{line[: LONGEST_TITLE - 1]}…"
