"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's interface."""

from __future__ import annotations

import secrets
from typing import Any, Final

from internvl_gguf.server.answer_pump import Delta, Finished
from internvl_gguf.server.answering import AnswerEvent, Begun, Progress
from internvl_gguf.server.boxes_field import boxes_field
from internvl_gguf.server.chat_request import AnswerDefaults, Body, ChatRequest, Part, PicturePart, TextPart, Turn
from internvl_gguf.server.content import (
    as_list,
    as_object,
    as_text,
    conversation,
    parts_of,
    refused,
    role_of,
    unknown_part,
)
from internvl_gguf.server.fields import MESSAGES_FIELDS, check_fields, pictures_of, sampling_of, switch
from internvl_gguf.server.openai_chat import StreamWishes, timings
from internvl_gguf.server.responding import Frame
from internvl_gguf.types import FinishReason, Reply

_REASONS: Final[dict[FinishReason, str]] = {"stop": "end_turn", "length": "max_tokens", "aborted": "end_turn"}


def parse(body: Body, defaults: AnswerDefaults) -> tuple[ChatRequest, StreamWishes]:
    """Return what a body asks for.

    Raises:
        RefusedRequestError: it cannot be used.
    """
    used = check_fields(body, MESSAGES_FIELDS)
    messages = as_list(used.get("messages"), "messages")
    turns = [_turn(message, f"messages[{index}]") for index, message in enumerate(messages)]
    if "system" in used:
        turns.insert(0, Turn("system", parts_of(used["system"], "system", _part)))
    request = ChatRequest(
        model=as_text(used["model"], "model") if "model" in used else None,
        turns=conversation(turns, "messages"),
        sampling=sampling_of(used, defaults),
        pictures=pictures_of(used, defaults),
    )
    wishes = StreamWishes(
        streams=switch(used, "stream"), includes_usage=True, tells_progress=switch(used, "return_progress")
    )
    return request, wishes


def _turn(value: object, param: str) -> Turn:
    message = as_object(value, param)
    role = role_of(message, param)
    content = message.get("content")
    if content is None:
        raise refused(f"{param}.content", "is missing", "Give a text or a list of blocks.")
    return Turn(role, parts_of(content, f"{param}.content", _part))


def _part(part: dict[str, Any], param: str) -> Part:
    kind = part.get("type")
    if kind == "text":
        return TextPart(as_text(part.get("text"), f"{param}.text"))
    if kind == "image":
        return _picture(as_object(part.get("source"), f"{param}.source"), f"{param}.source")
    raise unknown_part(part, param, "text or image")


def _picture(source: dict[str, Any], param: str) -> PicturePart:
    kind = source.get("type")
    if kind == "base64":
        data = as_text(source.get("data"), f"{param}.data")
        media = as_text(source.get("media_type"), f"{param}.media_type")
        return PicturePart(f"data:{media};base64,{data}")
    if kind == "url":
        return PicturePart(as_text(source.get("url"), f"{param}.url"))
    raise unknown_part(source, param, "base64 or url")


class MessageAnswer:
    """The answer to one request, as events of a stream or as one message.

    Args:
        model: the id of the model.
    """

    def __init__(self, model: str) -> None:
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model
        self._finished: Finished | None = None
        self._has_begun = False
        self._prompt_tokens = 0

    def frames(self, event: AnswerEvent) -> list[Frame]:
        """Return the frames of an event in a stream."""
        if isinstance(event, Progress):
            progress = {"phase": event.phase, "done": event.done, "total": event.total}
            return [Frame({"type": "progress", "progress": progress}, "progress")]
        if isinstance(event, Begun):
            self._prompt_tokens = event.prompt_tokens
            return []
        frames = self._begin() if not self._has_begun else []
        if isinstance(event, Delta):
            delta = {"type": "text_delta", "text": event.text}
            return [*frames, _event("content_block_delta", index=0, delta=delta)] if event.text else frames
        self._finished = event
        ending = {"stop_reason": self._reason(event), "stop_sequence": event.stop}
        more: dict[str, Any] = {"timings": timings([event.reply]), **boxes_field(event.reply)}
        if event.reply.notices:
            more["notices"] = list(event.reply.notices)
        return [
            *frames,
            _event("content_block_stop", index=0),
            _event("message_delta", delta=ending, usage=_usage(event.reply), **more),
            _event("message_stop"),
        ]

    def add(self, event: AnswerEvent) -> None:
        """Take an event of an answer that is not streamed."""
        if isinstance(event, Finished):
            self._finished = event

    def message(self) -> dict[str, Any]:
        """Return the whole answer."""
        event = self._finished
        if event is None:
            raise RuntimeError("the answer has not ended")
        return {
            **self._envelope(),
            "content": [{"type": "text", "text": event.reply.text, "citations": None}],
            "stop_reason": self._reason(event),
            "stop_sequence": event.stop,
            "stop_details": None,
            "usage": _usage(event.reply),
            "timings": timings([event.reply]),
            **boxes_field(event.reply),
            **({"notices": list(event.reply.notices)} if event.reply.notices else {}),
        }

    def _begin(self) -> list[Frame]:
        self._has_begun = True
        usage = _usage_json(self._prompt_tokens, 0, 0)  # how much of it is known is told at the end
        ending = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        message = {**self._envelope(), "content": [], **ending, "usage": usage}
        return [
            _event("message_start", message=message),
            _event("content_block_start", index=0, content_block={"type": "text", "text": "", "citations": None}),
            _event("ping"),
        ]

    def _envelope(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "container": None}

    def _reason(self, event: Finished) -> str:
        return "stop_sequence" if event.stop is not None else _REASONS[event.reply.finish_reason]


def _event(kind: str, **fields: Any) -> Frame:
    return Frame({"type": kind, **fields}, kind)


def _usage(reply: Reply) -> dict[str, Any]:
    """Return the usage as Anthropic counts it: tokens read from the cache are not among the input tokens."""
    found = reply.usage
    return {
        **_usage_json(found.prompt_tokens - found.cached_tokens, found.cached_tokens, found.completion_tokens),
        "images": found.images,
        "tiles": found.tiles,
        "tiles_encoded": found.tiles_encoded,
    }


def _usage_json(new: int, cached: int, output: int) -> dict[str, Any]:
    return {
        "input_tokens": new,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "cache_creation": None,
        "output_tokens": output,
        "output_tokens_details": None,
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }
