"""Requests as a server gets them: messages and options in the form of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from internvl_gguf.chat.remote.sent_picture import SentPicture
from internvl_gguf.config import SamplingParams
from internvl_gguf.session.prompt_template import IMAGE_PLACE, official_places
from internvl_gguf.types import Message

_ELSEWHERE: Final = {"penalty_last_n": "repeat_last_n"}
"""Names of fields that other servers than ours call otherwise, as llama-server does."""


def request_messages(messages: Sequence[Message], *, is_ours: bool) -> list[dict[str, Any]]:
    """Return a conversation in the form of a request.

    Args:
        is_ours: whether the server is `internvl serve`, which knows the places of pictures in a text.
    """
    found, numbered = [], 0
    for message in messages:
        content = _content(_placed(message, numbered), is_ours=is_ours)
        thought = {"reasoning_content": message.thinking} if message.thinking and is_ours else {}
        found.append({"role": message.role, "content": content, **thought})
        numbered += sum(not picture.label for picture in message.pictures)
    return found


def _placed(message: Message, numbered: int) -> Message:
    """Return a message whose text has the places and labels of frames, which a server does not know otherwise."""
    labels = [picture.label for picture in message.pictures]
    if not any(labels) or IMAGE_PLACE in message.text:
        return message
    return replace(message, text=official_places(labels, message.layout, numbered) + message.text)


def request_fields(options: Mapping[str, Any], *, is_ours: bool) -> dict[str, Any]:
    """Return the options of a question as fields of a request.

    Args:
        options: as `config.AskOptions`; of `sampling` the fields that are not at their defaults.
        is_ours: whether the server is `internvl serve`.
    """
    given = {name: value for name, value in options.items() if name != "frame_times"}  # the labels have them
    sampling = given.pop("sampling", None)
    if isinstance(sampling, SamplingParams):
        changed = {name: value for name, value in vars(sampling).items() if value != getattr(SamplingParams, name)}
        given = {**changed, **given}
    thinking = given.pop("thinking", None)
    if thinking is not None:
        given["chat_template_kwargs"] = {"enable_thinking": thinking}  # as llama-server and vLLM have it, too
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    return fields if is_ours else {_ELSEWHERE.get(name, name): value for name, value in fields.items()}


def _content(message: Message, *, is_ours: bool) -> str | list[dict[str, Any]]:
    """Return the text of a message, or its parts if it has pictures: each in its place, else all before the text."""
    pictures = [picture for picture in message.pictures if isinstance(picture, SentPicture)]
    if not pictures:
        return message.text
    groups = [pictures] if message.layout == "combined" else [[picture] for picture in pictures]
    first, *rest = message.text.split(IMAGE_PLACE)
    if is_ours or len(rest) != len(groups):  # without places
        groups, first, rest = [pictures], "", [message.text]
    parts = [_text(first)]
    for group, following in zip(groups, rest, strict=True):
        parts += [_shown(picture, is_ours=is_ours) for picture in group]
        parts.append(_text(following))
    return [part for part in parts if part.get("text") != ""]


def _shown(picture: SentPicture, *, is_ours: bool) -> dict[str, Any]:
    detail = {"detail": "low"} if is_ours and picture.is_one_tile else {}
    return {"type": "image_url", "image_url": {"url": picture.uri, **detail}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
