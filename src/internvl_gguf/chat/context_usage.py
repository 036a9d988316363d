"""The positions of the context that each part of a conversation takes, and conversations without dropped parts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.session.prompt_spans import prompt_spans
from internvl_gguf.session.prompt_template import IMAGE_PLACE

if TYPE_CHECKING:
    from internvl_gguf.session.model_runtime import ModelRuntime
    from internvl_gguf.types import Message


@dataclass(frozen=True)
class ConversationPart:
    """A part of a conversation that can be dropped: a question with its answer, or one picture of a question.

    Attributes:
        turn: number of the question, from 0.
        picture: number of the picture in it, from 0; None for the whole turn.
        tokens: of a question, the positions that dropping it frees; of a picture, its visual tokens. A picture's place
            in the text is a part of its question. None where only a server knows.
        text: the question, or the picture's name.
        pictures: number of pictures dropped with it.
    """

    turn: int
    picture: int | None
    tokens: int | None
    text: str
    pictures: int


def context_tokens(runtime: ModelRuntime, messages: Sequence[Message]) -> int:
    """Return the number of positions of a conversation, the opening of the next answer included."""
    return total_length(prompt_spans(runtime, messages))


def droppable_parts(runtime: ModelRuntime, messages: Sequence[Message]) -> list[ConversationPart]:
    """Return the parts that can be dropped, the oldest first: each turn, followed by each of its pictures."""
    whole = context_tokens(runtime, messages)
    found = []
    for turn, question in enumerate(questions(messages)):
        tokens = whole - context_tokens(runtime, without_parts(messages, [ConversationPart(turn, None, 0, "", 0)]))
        found.append(ConversationPart(turn, None, tokens, question.text, len(question.pictures)))
        for number, picture in enumerate(question.pictures):
            visual_tokens = len(picture.tiles) * runtime.vision.tokens_per_tile
            found.append(ConversationPart(turn, number, visual_tokens, picture.name, 1))
    return found


def questions(messages: Sequence[Message]) -> list[Message]:
    """Return the questions of a conversation in order."""
    return [message for message in messages if message.role == "user"]


def without_parts(messages: Sequence[Message], dropped: Collection[ConversationPart]) -> list[Message]:
    """Return a conversation without some of its parts; a question keeps its text when its pictures are dropped."""
    turns = {part.turn for part in dropped if part.picture is None}
    kept: list[Message] = []
    turn = -1
    for message in messages:
        turn += message.role == "user"
        if message.role != "system" and turn in turns:
            continue
        gone = {part.picture for part in dropped if part.turn == turn and part.picture is not None}
        kept.append(_without_pictures(message, gone) if gone and message.role == "user" else message)
    return kept


def _without_pictures(message: Message, gone: Collection[int]) -> Message:
    pictures = tuple(picture for number, picture in enumerate(message.pictures) if number not in gone)
    text = message.text
    if IMAGE_PLACE in text and (message.layout != "combined" or not pictures):
        first, *rest = text.split(IMAGE_PLACE)
        places = ["" if number in gone else IMAGE_PLACE for number in range(len(message.pictures))]
        if message.layout == "combined":
            places = [""]
        text = first + "".join(place + following for place, following in zip(places, rest, strict=True))
    return replace(message, pictures=pictures, text=text)
