"""POST /v1/responses: OpenAI's Responses without a memory. Each request brings its whole conversation."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from internvl_gguf.server.answer_pump import Delta, Finished, TokenText
from internvl_gguf.server.answering import AnswerEvent, Begun, Progress
from internvl_gguf.server.api_errors import Failure
from internvl_gguf.server.boxes_field import boxes_field
from internvl_gguf.server.chat_request import AnswerDefaults, Body, ChatRequest, Part, TextPart, Turn
from internvl_gguf.server.content import (
    as_list,
    as_object,
    as_text,
    conversation,
    parts_of,
    picture_part,
    refused,
    role_of,
    unknown_part,
)
from internvl_gguf.server.fields import (
    MOST_TOP_LOGPROBS,
    RESPONSES_FIELDS,
    check_fields,
    pictures_of,
    sampling_of,
    switch,
    whole,
    wrong,
)
from internvl_gguf.server.openai_chat import StreamWishes, timings, token_json
from internvl_gguf.server.responding import Frame
from internvl_gguf.types import Reply

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
    request = ChatRequest(
        model=as_text(used["model"], "model") if "model" in used else None,
        turns=conversation(turns, "input"),
        sampling=sampling_of(used, defaults),
        pictures=pictures_of(used, defaults),
        top_logprobs=_top_logprobs(used),
    )
    wishes = StreamWishes(
        streams=switch(used, "stream"), includes_usage=True, tells_progress=switch(used, "return_progress")
    )
    return request, wishes


def _turn(value: object, param: str) -> Turn:
    item = as_object(value, param)
    kind = item.get("type", "message")
    if kind != "message":
        raise refused(
            f"{param}.type",
            "is not supported",
            "Give messages: neither tools nor a memory are there yet.",
            "unsupported_value",
        )
    return Turn(role_of(item, param), parts_of(item.get("content"), f"{param}.content", _part))


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
    raise unknown_part(part, param, "input_text, output_text or input_image")


def _top_logprobs(used: Body) -> int | None:
    wanted = as_list(used.get("include", []), "include")
    for each in wanted:
        if each != _LOGPROBS:
            raise wrong("include", "has a part that is not supported", f"Use {_LOGPROBS}.")
    top = whole(used, "top_logprobs", 0, MOST_TOP_LOGPROBS, 0)
    return top if wanted or top else None


class ResponseAnswer:
    """The answer to one request, as events of a stream or as one response.

    Args:
        model: the id of the model.
        request: the request.
        body: its body, of which a response repeats a part.
    """

    def __init__(self, model: str, request: ChatRequest, body: Body) -> None:
        self._id = f"resp_{secrets.token_hex(16)}"
        self._item = f"msg_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._model = model
        self._request = request
        self._body = body
        self._number = 0
        self._text = ""
        self._tokens: list[TokenText] = []
        self._finished: Finished | None = None
        self._has_begun = False

    def frames(self, event: AnswerEvent) -> list[Frame]:
        """Return the frames of an event in a stream."""
        if isinstance(event, Begun):
            return []
        frames = self._begin() if not self._has_begun else []
        if isinstance(event, Progress):
            progress = {"phase": event.phase, "done": event.done, "total": event.total}
            return [*frames, self._event("response.progress", progress=progress)]
        self.add(event)
        place = {"item_id": self._item, "output_index": 0, "content_index": 0}
        if isinstance(event, Delta):
            logprobs = list(map(token_json, event.tokens))
            return [*frames, self._event("response.output_text.delta", **place, delta=event.text, logprobs=logprobs)]
        whole_part = self._part()
        ended = "response.completed" if self._reason(event.reply) is None else "response.incomplete"
        return [
            *frames,
            self._event("response.output_text.done", **place, text=self._text, logprobs=whole_part["logprobs"]),
            self._event("response.content_part.done", **place, part=whole_part),
            self._event("response.output_item.done", output_index=0, item=self._message(event.reply)),
            self._event(ended, response=self.response()),
        ]

    def add(self, event: AnswerEvent) -> None:
        """Take an event of the answer."""
        if isinstance(event, Delta):
            self._text += event.text
            self._tokens += event.tokens
        elif isinstance(event, Finished):
            self._finished = event

    def response(self) -> dict[str, Any]:
        """Return the response as it is at this moment."""
        reply = self._finished.reply if self._finished else None
        reason = self._reason(reply) if reply else None
        status = "in_progress" if reply is None else "completed" if reason is None else "incomplete"
        sampling = self._request.sampling
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if reply and reason is None else None,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": self._body.get("instructions"),
            "max_output_tokens": self._body.get("max_output_tokens"),
            "max_tool_calls": None,
            "model": self._model,
            "output": [self._message(reply)] if reply else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "prompt_cache_key": self._body.get("prompt_cache_key"),
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": self._body.get("safety_identifier"),
            "service_tier": "default",
            "store": False,
            "temperature": sampling.temperature,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": self._request.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": "disabled",
            "usage": _usage(reply) if reply else None,
            "user": self._body.get("user"),
            "metadata": self._body.get("metadata") or {},
            **({"timings": timings([reply])} if reply else {}),
            **boxes_field(reply),
            **({"notices": list(reply.notices)} if reply and reply.notices else {}),
        }

    def _begin(self) -> list[Frame]:
        self._has_begun = True
        message = {"id": self._item, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        return [
            self._event("response.created", response=self.response()),
            self._event("response.in_progress", response=self.response()),
            self._event("response.output_item.added", output_index=0, item=message),
            self._event(
                "response.content_part.added", item_id=self._item, output_index=0, content_index=0, part=_text_part("")
            ),
        ]

    def _event(self, kind: str, **fields: Any) -> Frame:
        number, self._number = self._number, self._number + 1
        return Frame({"type": kind, "sequence_number": number, **fields}, kind)

    def _part(self) -> dict[str, Any]:
        tokens = self._tokens if self._request.top_logprobs is not None else ()
        return _text_part(self._text, tokens)

    def _message(self, reply: Reply) -> dict[str, Any]:
        status = "completed" if self._reason(reply) is None else "incomplete"
        return {"id": self._item, "type": "message", "status": status, "role": "assistant", "content": [self._part()]}

    def _reason(self, reply: Reply) -> str | None:
        return "max_output_tokens" if reply.finish_reason == "length" else None


def error_body(failure: Failure) -> dict[str, Any]:
    """Return an error as an event of a stream tells it; before the stream, as OpenAI's other interfaces do."""
    inner = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return {"type": "error", **inner, "error": inner}


def _text_part(text: str, tokens: Sequence[TokenText] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(map(token_json, tokens))}


def _usage(reply: Reply) -> dict[str, Any]:
    found = reply.usage
    return {
        "input_tokens": found.prompt_tokens,
        "input_tokens_details": {"cached_tokens": found.cached_tokens},
        "output_tokens": found.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": found.prompt_tokens + found.completion_tokens,
        "images": found.images,
        "tiles": found.tiles,
        "tiles_encoded": found.tiles_encoded,
    }
