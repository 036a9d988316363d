"""POST /v1/responses: OpenAI's Responses without a memory. Each request brings its whole conversation."""

from __future__ import annotations

from typing import Any, Final

from internvl_gguf.server.chat_request import (
    AnswerDefaults,
    Body,
    ChatRequest,
    FormWish,
    Part,
    TextPart,
    Turn,
)
from internvl_gguf.server.content import (
    as_list,
    as_object,
    as_text,
    elsewhere,
    parts_of,
    picture_part,
    refused,
    role_of,
    sent_call,
    unknown_part,
)
from internvl_gguf.server.conversation import conversation
from internvl_gguf.server.field_values import check_fields, pictures_of, sampling_of, switch, whole, wrong
from internvl_gguf.server.fields import MOST_TOP_LOGPROBS, RESPONSES_FIELDS
from internvl_gguf.server.form_fields import flat_format, form_of, refuse_begun
from internvl_gguf.server.openai_chat import StreamWishes
from internvl_gguf.server.thinking_fields import thinking_of
from internvl_gguf.server.tool_fields import openai_wishes, response_choice_name, response_tool

_LOGPROBS: Final = "message.output_text.logprobs"


def parse(body: Body, defaults: AnswerDefaults) -> tuple[ChatRequest, StreamWishes]:
    """Return what a body asks for.

    Raises:
        RefusedRequestError: it cannot be used.
    """
    used = check_fields(body, RESPONSES_FIELDS)
    given = used.get("input")
    turns = []
    if "instructions" in used:
        turns.append(Turn("system", (TextPart(as_text(used["instructions"], "instructions")),)))
    if isinstance(given, str):
        turns.append(Turn("user", (TextPart(given),)))
    else:
        items = as_list(given, "input")
        turns += [_turn(item, f"input[{index}]") for index, item in enumerate(items)]
    thinking = thinking_of(used)
    request = ChatRequest(
        model=as_text(used["model"], "model") if "model" in used else None,
        turns=conversation(turns, "input"),
        sampling=thinking.applied(sampling_of(used, defaults)),
        pictures=pictures_of(used, defaults),
        top_logprobs=_top_logprobs(used),
        wishes=openai_wishes(used, form_of(used, _text_format(used)), response_tool, response_choice_name),
        must_think=thinking.is_firm,
    )
    refuse_begun(request, thinking)
    wishes = StreamWishes(
        streams=switch(used, "stream"), includes_usage=True, tells_progress=switch(used, "return_progress")
    )
    return request, wishes


def _turn(value: object, param: str) -> Turn:
    item = as_object(value, param)
    kind = item.get("type", "message")
    if kind == "function_call":
        call = sent_call(item.get("call_id"), item.get("name"), item.get("arguments"), f"{param}.arguments")
        return Turn("assistant", (), (call,))
    if kind == "function_call_output":
        output = item.get("output")
        if output is None:
            raise refused(f"{param}.output", "is missing", "Give a text or a list of parts.")
        call_id = as_text(item.get("call_id"), f"{param}.call_id")
        return Turn("tool", parts_of(output, f"{param}.output", _part), answers=call_id)
    if kind == "reasoning":
        return Turn("assistant", (), thinking=_thought(item, param))
    if kind != "message":
        raise refused(
            f"{param}.type",
            "is not supported",
            "Give messages, thoughts, and calls of functions with their outputs.",
            "unsupported_value",
        )
    role = role_of(item, param)
    if role == "tool":
        raise refused(f"{param}.role", "is not known", "Give an item of the type function_call_output.")
    return Turn(role, parts_of(item.get("content"), f"{param}.content", _part))


def _thought(item: dict[str, Any], param: str) -> str:
    """Return the thought that a client sends back; a summary of it, where it has no more."""
    for name in ("content", "summary"):
        parts = item.get(name)
        if parts:
            places = [f"{param}.{name}[{index}]" for index in range(len(as_list(parts, f"{param}.{name}")))]
            texts = [as_object(part, place).get("text") for part, place in zip(parts, places, strict=True)]
            return "\n".join(as_text(text, f"{place}.text") for text, place in zip(texts, places, strict=True))
    return ""


def _text_format(used: Body) -> FormWish | None:
    text = as_object(used.get("text", {}), "text")
    if text.get("verbosity") not in (None, "medium"):
        raise refused("text.verbosity", "is not supported", "Say it in the prompt.", "unsupported_parameter")
    given = text.get("format")
    return None if given is None else flat_format(as_object(given, "text.format"), "text.format")


def _part(part: dict[str, Any], param: str) -> Part:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return TextPart(as_text(part.get("text"), f"{param}.text"))
    if kind == "refusal":
        return TextPart(as_text(part.get("refusal"), f"{param}.refusal"))
    if kind == "input_image":
        if part.get("file_id"):
            raise refused(f"{param}.file_id", "is given, and no files are stored", "Give image_url, a data URI.")
        return picture_part(part.get("image_url"), part.get("detail"), f"{param}.image_url")
    raise unknown_part(part, param, f"input_text, output_text or input_image{elsewhere(kind)}")


def _top_logprobs(used: Body) -> int | None:
    wanted = as_list(used.get("include", []), "include")
    for each in wanted:
        if each != _LOGPROBS:
            raise wrong("include", "has a part that is not supported", f"Use {_LOGPROBS}.")
    top = whole(used, "top_logprobs", 0, MOST_TOP_LOGPROBS, 0)
    return top if wanted or top else None
