"""The official prompt template: turns messages into an ordered list of control tokens, text and visual tokens.

Source: OpenGVLab/InternVL `conversation.py`, template `internvl2_5`, and `chat` of the InternVL3 model card. The
prompt is a list, not a string to be parsed again: text that users typed can never turn into a control token.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Message, MessagePicture, PictureLayout
from internvl_gguf.utils import arguments

OFFICIAL_SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
IMAGE_PLACE = "<image>"

START, END, IMAGE_START, IMAGE_END = "<|im_start|>", "<|im_end|>", "<img>", "</img>"
THOUGHT_START, THOUGHT_END = "<think>", "</think>"
_FOLLOWS: Final[Mapping[str, Collection[str]]] = {
    "system": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant"),
}  # fmt: skip

CONTROL_TOKENS = (START, END, IMAGE_START, IMAGE_END)


@dataclass(frozen=True)
class ControlToken:
    """A control token of the template, by its name in the vocabulary."""

    name: str


@dataclass(frozen=True)
class PlainText:
    """Text that is tokenised without control tokens."""

    text: str


@dataclass(frozen=True)
class AnswerTokens:
    """The tokens of an answer exactly as the model sampled them."""

    tokens: tuple[int, ...]


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens inside one <img>…</img>: all tiles of these pictures."""

    pictures: tuple[MessagePicture, ...]


PromptPiece = ControlToken | PlainText | AnswerTokens | VisualTokens


def with_system(messages: Sequence[Message], system: str) -> list[Message]:
    """Return a conversation with its system message replaced; "" removes it."""
    rest = [message for message in messages if message.role != "system"]
    return [Message("system", system), *rest] if system else rest


def without_last_question(messages: Sequence[Message]) -> tuple[list[Message], Message | None]:
    """Return a conversation without its last question and answer, and that question; None if none was asked."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user":
            return list(messages[:index]), messages[index]
    return list(messages), None


def check_turns(messages: Iterable[Message]) -> list[Message]:
    """Check that messages are a conversation that a question may follow, and return them as a list.

    Raises:
        InvalidRequestError: they are not at most one system message, then questions and answers in turn; what tools
            returned may stand between two answers.
    """
    found = list(arguments.items("messages", messages, "Give a list of Messages, as `Session.messages` is one."))
    for message in found:
        _check_message(message)
    turns = found[1:] if found and found[0].role == "system" else found
    before = "system"
    for index, message in enumerate(turns):
        if message.role not in _FOLLOWS[before]:
            raise InvalidRequestError(
                f"Message {index + 1} of the conversation is of the role {message.role}.",
                "After a system message, if any, questions (user) and answers (assistant) come in turn; results of "
                "tools (tool) stand between two answers.",
            )
        before = message.role
        check_places(message.text, len(message.pictures), message.layout)
    if before in ("user", "tool"):
        raise InvalidRequestError("The last question of the conversation has no answer.", "Leave it out, and ask it.")
    return found


def _check_message(message: object) -> None:
    if not isinstance(message, Message):
        raise arguments.wrong("A message", message, "Give Messages, as those of `Session.messages`.")
    arguments.text("The text of a message", message.text)
    arguments.text("The thinking of a message", message.thinking)
    tokens = message.tokens
    if tokens is not None and not (isinstance(tokens, tuple) and all(isinstance(token, int) for token in tokens)):
        raise arguments.wrong("tokens", tokens, "Give the ids of an answer as a tuple, or None.")
    if not isinstance(message.pictures, tuple) or not all(isinstance(p, MessagePicture) for p in message.pictures):
        raise arguments.wrong("pictures", message.pictures, "Give pictures as messages hold them, in a tuple.")


def render(messages: Sequence[Message], *, answer: bool = True, thoughts: bool = True) -> list[PromptPiece]:
    """Return the whole prompt of a conversation, neighbouring texts joined so that they tokenise as one string.

    Args:
        messages: system message first (if any), then user and assistant in turn.
        answer: whether the prompt ends by opening the assistant's next message.
        thoughts: whether the vocabulary has the tokens of thoughts; without them answers stand alone.
    """
    pieces: list[PromptPiece] = []
    numbered = 0
    for message in messages:
        pieces += [ControlToken(START), PlainText(f"{message.role}\n")]
        if message.tokens is not None:
            pieces.append(AnswerTokens(message.tokens))
        elif message.thinking and thoughts:
            pieces += [ControlToken(THOUGHT_START), PlainText(message.thinking), ControlToken(THOUGHT_END)]
            pieces.append(PlainText(f"\n{message.text}"))
        else:
            pieces += user_pieces(message, numbered)
        numbered += sum(not picture.label for picture in message.pictures)
        pieces += [ControlToken(END), PlainText("\n")]
    if answer:
        pieces += [ControlToken(START), PlainText("assistant\n")]
    return list(join_text(pieces))


def check_places(text: str, pictures: int, layout: PictureLayout) -> None:
    """Refuse a text whose `<image>` places do not fit the pictures given.

    Raises:
        InvalidRequestError: there are places and pictures, but not as many of one as of the other.
    """
    places = text.count(IMAGE_PLACE)
    expected = 1 if layout == "combined" else pictures
    if pictures and places not in (0, expected):
        raise InvalidRequestError(
            f"The prompt has {places} {IMAGE_PLACE} places for {expected} pictures.",
            f"Write {IMAGE_PLACE} once for each picture, or leave it out to have the pictures first.",
        )


def user_pieces(message: Message, numbered: int) -> Iterator[PromptPiece]:
    """Yield a message's text with its pictures in their places.

    Text without places gets those of the model card before it. A later message with several pictures counts on from the
    `numbered` pictures before it, so that "Image-1" means one picture in a conversation. Pictures with a label, such as
    frames of a clip, are not counted.
    """
    if not message.pictures:
        yield PlainText(message.text)
        return
    groups = [message.pictures] if message.layout == "combined" else [(picture,) for picture in message.pictures]
    text = message.text
    if IMAGE_PLACE not in text:
        labels = [group[0].label for group in groups]
        text = official_places(labels, message.layout, numbered) + text
    first, *rest = text.split(IMAGE_PLACE)
    yield PlainText(first)
    for group, following in zip(groups, rest, strict=True):
        yield ControlToken(IMAGE_START)
        yield VisualTokens(tuple(group))
        yield ControlToken(IMAGE_END)
        yield PlainText(following)


def official_places(labels: Sequence[str], layout: PictureLayout, numbered: int) -> str:
    """Return the places of pictures that have these labels, each in a line of its own.

    Args:
        labels: text before each; "" for what the layout says.
        layout: layout of the question.
        numbered: pictures without a label before it in the conversation.
    """
    name, before = ("Frame", 0) if layout == "frames" else ("Image-", numbered)
    if len(labels) == 1 and layout != "frames":
        return f"{labels[0]}{IMAGE_PLACE}\n"
    numbers = itertools.count(before + 1)
    return "".join(f"{label or f'{name}{next(numbers)}: '}{IMAGE_PLACE}\n" for label in labels)


def join_text(pieces: Sequence[PromptPiece]) -> Iterator[PromptPiece]:
    """Yield pieces with neighbouring texts joined, so that they tokenise as one string."""
    pending = ""
    for piece in pieces:
        if isinstance(piece, PlainText):
            pending += piece.text
            continue
        if pending:
            yield PlainText(pending)
            pending = ""
        yield piece
    if pending:
        yield PlainText(pending)
