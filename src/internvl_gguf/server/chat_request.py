"""A request for an answer, whichever interface it came by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from internvl_gguf.config import PictureOptions, SamplingParams

Detail = Literal["auto", "low", "high"]


@dataclass(frozen=True)
class TextPart:
    """Text of a turn."""

    text: str


@dataclass(frozen=True)
class PicturePart:
    """A picture of a turn.

    Attributes:
        source: a data URI, base64, `file://` URI or address, as the client gave it; the bytes of the file once they are
            here.
        detail: OpenAI's wish for its tiles: "low" is one, "high" is the model's own limit, "auto" the request's.
    """

    source: str | bytes = field(repr=False)
    detail: Detail = "auto"


Part = TextPart | PicturePart


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: who said it.
        parts: its texts and pictures, in order.
    """

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """Its texts, joined."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def pictures(self) -> list[PicturePart]:
        """Its pictures."""
        return [part for part in self.parts if isinstance(part, PicturePart)]


@dataclass(frozen=True)
class ChatRequest:
    """A request for one or more answers to a conversation.

    Attributes:
        model: the model asked for; None for the first that the server has.
        turns: the conversation. If an assistant's turn is the last, the answer goes on with it.
        sampling: how the tokens of the answer are chosen.
        pictures: how pictures are cut and laid out.
        n: number of answers.
        top_logprobs: how many likeliest tokens are told beside each token; None tells no logprobs.
        keeps_tags: whether the text of the answer has the tags of boxes.
    """

    model: str | None
    turns: tuple[Turn, ...]
    sampling: SamplingParams
    pictures: PictureOptions
    n: int = 1
    top_logprobs: int | None = None
    keeps_tags: bool = False


@dataclass(frozen=True)
class AnswerDefaults:
    """Values for fields that a request leaves out, as the server's owner chose them.

    Attributes:
        system: the system message; None for the official one, "" for none.
        sampling: how the tokens of the answer are chosen.
        pictures: how pictures are cut and laid out.
    """

    system: str | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    pictures: PictureOptions = field(default_factory=PictureOptions)


Body = Mapping[str, Any]
"""The JSON object of a request."""
