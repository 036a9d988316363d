"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from internvl_gguf.server.chat_request import (
    AnswerDefaults,
    AnswerWishes,
    Body,
    ChatRequest,
    FormWish,
    Part,
    PicturePart,
    TextPart,
    Turn,
)
from internvl_gguf.server.content import (
    as_list,
    as_object,
    as_text,
    elsewhere,
    parts_of,
    refused,
    role_of,
    sent_call,
    unknown_part,
)
from internvl_gguf.server.conversation import conversation
from internvl_gguf.server.field_values import check_fields, pictures_of, sampling_of, switch
from internvl_gguf.server.fields import MESSAGES_FIELDS
from internvl_gguf.server.form_fields import flat_format, form_of, refuse_begun
from internvl_gguf.server.openai_chat import StreamWishes
from internvl_gguf.server.thinking_fields import thinking_of
from internvl_gguf.server.tool_fields import anthropic_choice, anthropic_tool, tools_of_body
from internvl_gguf.utils.safe_text import safe_name

_THOUGHTS: Final = ("thinking", "redacted_thinking")


def parse(body: Body, defaults: AnswerDefaults) -> tuple[ChatRequest, StreamWishes]:
    """Return what a body asks for.

    Raises:
        RefusedRequestError: it cannot be used.
    """
    used = check_fields(body, MESSAGES_FIELDS)
    messages = as_list(used.get("messages"), "messages")
    turns = [turn for index, message in enumerate(messages) for turn in _turns(message, f"messages[{index}]")]
    if "system" in used:
        turns.insert(0, Turn("system", parts_of(used["system"], "system", _part)))
    thinking = thinking_of(used)
    request = ChatRequest(
        model=as_text(used["model"], "model") if "model" in used else None,
        turns=conversation(turns, "messages"),
        sampling=thinking.applied(sampling_of(used, defaults)),
        pictures=pictures_of(used, defaults),
        wishes=_wishes(used),
        must_think=thinking.is_firm,
    )
    refuse_begun(request, thinking)
    wishes = StreamWishes(
        streams=switch(used, "stream"), includes_usage=True, tells_progress=switch(used, "return_progress")
    )
    return request, wishes


def _wishes(used: Body) -> AnswerWishes:
    tools = tools_of_body(used, anthropic_tool)
    choice, may_be_several = anthropic_choice(used, tools)
    return AnswerWishes(
        form=form_of(used, *_formats(used)),
        form_in_prompt=switch(used, "format_in_prompt", default=True),
        tools=tools,
        tool_choice=choice,
        parallel_calls=may_be_several,
    )


def _formats(used: Body) -> Iterator[FormWish | None]:
    config = as_object(used.get("output_config", {}), "output_config")
    for name in config:
        if name not in ("format", "effort"):
            shown = f"output_config.{safe_name(name)}"
            raise refused(shown, "is not supported", "Leave it out.", "unsupported_parameter")
    for given, param in ((config.get("format"), "output_config.format"), (used.get("output_format"), "output_format")):
        if given is not None:
            yield flat_format(as_object(given, param), param)


def _turns(value: object, param: str) -> list[Turn]:
    """Return the turns of a message: results of tools, which come first in a message of the user, are each one."""
    message = as_object(value, param)
    role = role_of(message, param)
    if role == "tool":
        raise refused(f"{param}.role", "is not known", "Give a block of the type tool_result in a message of the user.")
    content = message.get("content")
    if content is None:
        raise refused(f"{param}.content", "is missing", "Give a text or a list of blocks.")
    blocks = content if isinstance(content, list) else []
    places = {index: f"{param}.content[{index}]" for index in range(len(blocks))}
    uses = {index: each for index, each in enumerate(blocks) if _kind(each) == "tool_use"}
    results = {index: each for index, each in enumerate(blocks) if _kind(each) == "tool_result"}
    thoughts = {index: each for index, each in enumerate(blocks) if _kind(each) in _THOUGHTS}
    for found, owner in ((uses, "assistant"), (thoughts, "assistant"), (results, "user")):
        if found and role != owner:
            place = places[next(iter(found))]
            raise refused(
                f"{place}.type", f"is {_kind(next(iter(found.values())))}", f"Give it in a message of the {owner}."
            )
    if results and max(results) >= len(results):
        raise refused(f"{param}.content", "has other blocks before a tool_result", "Give the results of tools first.")
    turns = [_result(block, places[index]) for index, block in results.items()]
    calls = tuple(
        sent_call(use.get("id"), use.get("name"), as_object(use.get("input"), f"{place}.input"), f"{place}.input")
        for place, use in ((places[index], use) for index, use in uses.items())
    )
    thinking = "\n".join(
        as_text(each.get("thinking", ""), f"{places[index]}.thinking") for index, each in thoughts.items()
    )
    rest = [(block, places[index]) for index, block in enumerate(blocks) if index not in uses | thoughts | results]
    if isinstance(content, list):
        parts = tuple(_part(as_object(block, place), place) for block, place in rest)
    else:
        parts = parts_of(content, f"{param}.content", _part)
    return [*turns, Turn(role, parts, calls, thinking=thinking)] if parts or calls or thinking or not turns else turns


def _kind(block: object) -> object:
    return block.get("type") if isinstance(block, dict) else None


def _result(block: dict[str, Any], param: str) -> Turn:
    """Return what a tool returned; an error is told to the model in a word."""
    parts = parts_of(block.get("content"), f"{param}.content", _part)
    is_error = block.get("is_error")
    if is_error is not None and not isinstance(is_error, bool):
        raise refused(f"{param}.is_error", "is neither true nor false", "Give true or false.")
    if is_error:
        parts = (TextPart("Error:"), *parts)
    return Turn("tool", parts, answers=as_text(block.get("tool_use_id"), f"{param}.tool_use_id"))


def _part(part: dict[str, Any], param: str) -> Part:
    kind = part.get("type")
    if kind == "text":
        return TextPart(as_text(part.get("text"), f"{param}.text"))
    if kind == "image":
        return _picture(as_object(part.get("source"), f"{param}.source"), f"{param}.source")
    raise unknown_part(part, param, f"text, image, tool_use or tool_result{elsewhere(kind)}")


def _picture(source: dict[str, Any], param: str) -> PicturePart:
    kind = source.get("type")
    if kind == "base64":
        data = as_text(source.get("data"), f"{param}.data")
        media = as_text(source.get("media_type"), f"{param}.media_type")
        return PicturePart(f"data:{media};base64,{data}")
    if kind == "url":
        return PicturePart(as_text(source.get("url"), f"{param}.url"))
    raise unknown_part(source, param, "base64 or url")
