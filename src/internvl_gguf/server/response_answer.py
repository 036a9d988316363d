"""The answer to a request of /v1/responses, as events of a stream or as one response."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from internvl_gguf.server.answer_events import CallDelta, Delta, Finished, ThoughtDelta, TokenText
from internvl_gguf.server.answering import AnswerEvent, Begun, Progress
from internvl_gguf.server.api_errors import Failure
from internvl_gguf.server.boxes_field import boxes_field
from internvl_gguf.server.chat_request import Body, ChatRequest
from internvl_gguf.server.client_words import notices_field
from internvl_gguf.server.openai_chat import timings, token_json
from internvl_gguf.server.responding import Frame
from internvl_gguf.server.selection_field import selection_field, written_tokens
from internvl_gguf.server.written_calls import WrittenCalls
from internvl_gguf.types import Reply

_TOOL: Final = {"description": None, "parameters": None, "strict": True}
"""Fields of a tool in a response that its request left out: calls are always bound to the parameters."""


class ResponseAnswer:
    """The answer to one request, as events of a stream or as one response.

    Args:
        model: the id of the model.
        request: the request.
        body: its body, of which a response repeats a part.
    """

    def __init__(self, model: str, request: ChatRequest, body: Body) -> None:
        self._id = f"resp_{secrets.token_hex(16)}"
        self._message_id = f"msg_{secrets.token_hex(16)}"
        self._thought_id = f"rs_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._model = model
        self._request = request
        self._body = body
        self._number = 0
        self._text = ""
        self._thought = ""
        self._is_thought_open = False
        self._tokens: list[TokenText] = []
        self._calls = WrittenCalls()
        self._call_ids: list[str] = []
        self._finished: Finished | None = None
        self._has_begun = False
        self._has_message = False
        self._is_message_open = False

    def frames(self, event: AnswerEvent) -> list[Frame]:
        """Return the frames of an event in a stream."""
        if isinstance(event, Begun):
            return []
        frames = self._begin() if not self._has_begun else []
        if isinstance(event, Progress):
            progress = {"phase": event.phase, "done": event.done, "total": event.total}
            return [*frames, self._event("response.progress", progress=progress)]
        if isinstance(event, ThoughtDelta):
            return [*frames, *self._thought_frames(event)]
        if isinstance(event, Delta):
            if event.text or self._is_message_open or not self._request.wishes.tools:
                return [*frames, *self._text_frames(event)]
            self.add(event)  # tokens of calls, told with logprobs
            return frames
        if isinstance(event, CallDelta):
            return [*frames, *self._call_frames(event)]
        self.add(event)
        if not (self._has_message or self._call_ids or self._thought):
            frames += self._open_message()
        frames += [*self._close_thought(), *self._close_message(), *self._close_call()]
        ended = "response.completed" if _reason(event.reply) is None else "response.incomplete"
        return [*frames, self._event(ended, response=self.response())]

    def add(self, event: AnswerEvent) -> None:
        """Take an event of the answer."""
        if isinstance(event, Delta):
            self._text += event.text
            self._tokens += event.tokens
        elif isinstance(event, ThoughtDelta):
            self._thought += event.text
        elif isinstance(event, CallDelta):
            if event.call.id:
                self._call_ids.append(f"fc_{secrets.token_hex(16)}")
            self._calls.add(event.call)
        elif isinstance(event, Finished):
            self._finished = event

    def response(self) -> dict[str, Any]:
        """Return the response as it is at this moment."""
        reply = self._finished.reply if self._finished else None
        reason = _reason(reply) if reply else None
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
            "output": self._output(reply) if reply else [],
            "parallel_tool_calls": self._request.wishes.parallel_calls,
            "previous_response_id": None,
            "prompt_cache_key": self._body.get("prompt_cache_key"),
            "reasoning": {"effort": None, "summary": None, **(self._body.get("reasoning") or {})},
            "safety_identifier": self._body.get("safety_identifier"),
            "service_tier": "default",
            "store": False,
            "temperature": sampling.effective_temperature,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "text": _text_json(self._body),
            "tool_choice": self._body.get("tool_choice") or "auto",
            "tools": [{**_TOOL, **tool} for tool in self._body.get("tools") or []],
            "top_logprobs": self._request.top_logprobs or 0,
            "top_p": sampling.effective_top_p,
            "truncation": "disabled",
            "usage": _usage(reply) if reply else None,
            "user": self._body.get("user"),
            "metadata": self._body.get("metadata") or {},
            **({"timings": timings([reply])} if reply else {}),
            **boxes_field(reply),
            **notices_field(reply.notices if reply else ()),
            **selection_field(reply),
        }

    def _output(self, reply: Reply) -> list[dict[str, Any]]:
        """Return the items of a finished answer: no message without text beside calls, and no call that was cut off."""
        calls = self._calls.whole(reply)
        thought = [self._thought_item("completed")] if self._thought else []
        message = [] if (self._call_ids or thought) and not self._text else [self._message()]
        return [*thought, *message, *(self._call(index, "completed") for index in range(len(calls)))]

    def _begin(self) -> list[Frame]:
        self._has_begun = True
        return [
            self._event("response.created", response=self.response()),
            self._event("response.in_progress", response=self.response()),
        ]

    @property
    def _thought_place(self) -> dict[str, Any]:
        return {"item_id": self._thought_id, "output_index": 0, "content_index": 0}

    @property
    def _message_place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": int(bool(self._thought)), "content_index": 0}

    def _thought_frames(self, event: ThoughtDelta) -> list[Frame]:
        frames = []
        if not self._is_thought_open:
            self._is_thought_open = True
            frames = [
                self._event("response.output_item.added", output_index=0, item=self._thought_item("in_progress")),
                self._event("response.content_part.added", **self._thought_place, part=_thought_part("")),
            ]
        self.add(event)
        return [*frames, self._event("response.reasoning_text.delta", **self._thought_place, delta=event.text)]

    def _close_thought(self) -> list[Frame]:
        if not self._is_thought_open:
            return []
        self._is_thought_open = False
        place = self._thought_place
        return [
            self._event("response.reasoning_text.done", **place, text=self._thought),
            self._event("response.content_part.done", **place, part=_thought_part(self._thought)),
            self._event("response.output_item.done", output_index=0, item=self._thought_item("completed")),
        ]

    def _thought_item(self, status: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [_thought_part(self._thought)]
        return {"id": self._thought_id, "type": "reasoning", "status": status, "summary": [], "content": content}

    def _text_frames(self, event: Delta) -> list[Frame]:
        frames = [] if self._has_message else self._open_message()
        self.add(event)
        logprobs = list(map(token_json, event.tokens))
        place = self._message_place
        return [*frames, self._event("response.output_text.delta", **place, delta=event.text, logprobs=logprobs)]

    def _open_message(self) -> list[Frame]:
        self._has_message = self._is_message_open = True
        message = {
            "id": self._message_id, "type": "message", "status": "in_progress", "role": "assistant", "content": [],
        }  # fmt: skip
        place = self._message_place
        return [
            *self._close_thought(),
            self._event("response.output_item.added", output_index=place["output_index"], item=message),
            self._event("response.content_part.added", **place, part=_text_part("")),
        ]

    def _close_message(self) -> list[Frame]:
        if not self._is_message_open:
            return []
        self._is_message_open = False
        part = self._part()
        place = self._message_place
        return [
            self._event("response.output_text.done", **place, text=self._text, logprobs=part["logprobs"]),
            self._event("response.content_part.done", **place, part=part),
            self._event("response.output_item.done", output_index=place["output_index"], item=self._message()),
        ]

    def _call_frames(self, event: CallDelta) -> list[Frame]:
        frames: list[Frame] = []
        if event.call.id:
            frames = [*self._close_thought(), *self._close_message(), *self._close_call()]
        self.add(event)
        index = event.call.index
        place = {"item_id": self._call_ids[index], "output_index": self._call_output_index(index)}
        if event.call.id:
            item = self._call(index, "in_progress")
            frames.append(self._event("response.output_item.added", output_index=place["output_index"], item=item))
        if event.call.arguments:
            delta = event.call.arguments
            frames.append(self._event("response.function_call_arguments.delta", **place, delta=delta))
        return frames

    def _call_output_index(self, index: int) -> int:
        return bool(self._thought) + self._has_message + index

    def _close_call(self) -> list[Frame]:
        """Return the end of the last call so far; one that the end of the answer cut off is incomplete."""
        index = len(self._call_ids) - 1
        if index < 0:
            return []
        place = {"item_id": self._call_ids[index], "output_index": self._call_output_index(index)}
        is_whole = self._finished is None or index < len(self._finished.reply.tool_calls)
        item = self._call(index, "completed" if is_whole else "incomplete")
        frames = []
        if is_whole:
            written = {"name": item["name"], "arguments": item["arguments"]}
            frames.append(self._event("response.function_call_arguments.done", **place, **written))
        return [*frames, self._event("response.output_item.done", output_index=place["output_index"], item=item)]

    def _event(self, kind: str, **fields: Any) -> Frame:
        number, self._number = self._number, self._number + 1
        return Frame({"type": kind, "sequence_number": number, **fields}, kind)

    def _part(self) -> dict[str, Any]:
        tokens = self._tokens if self._request.top_logprobs is not None else ()
        return _text_part(self._text, tokens)

    def _message(self) -> dict[str, Any]:
        """Return the message as an item: it is incomplete where the answer was cut in its text."""
        reply = self._finished.reply if self._finished else None
        is_whole = reply is None or _reason(reply) is None or self._call_ids
        return {
            "id": self._message_id,
            "type": "message",
            "status": "completed" if is_whole else "incomplete",
            "role": "assistant",
            "content": [self._part()],
        }

    def _call(self, index: int, status: str) -> dict[str, Any]:
        call = self._calls.begun[index]
        return {
            "id": self._call_ids[index],
            "type": "function_call",
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "arguments": "" if status == "in_progress" else call.arguments,
        }


def _reason(reply: Reply) -> str | None:
    return "max_output_tokens" if reply.finish_reason == "length" else None


def _text_json(body: Body) -> dict[str, Any]:
    """Return what a response repeats of the form that was asked for."""
    text = body.get("text") or {}
    return {**text, "format": text.get("format") or {"type": "text"}}


def error_body(failure: Failure) -> dict[str, Any]:
    """Return an error as an event of a stream tells it; before the stream, as OpenAI's other interfaces do."""
    inner = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return {"type": "error", **inner, "error": inner}


def _text_part(text: str, tokens: Sequence[TokenText] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(map(token_json, tokens))}


def _thought_part(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def _usage(reply: Reply) -> dict[str, Any]:
    found, written = reply.usage, written_tokens([reply])
    return {
        "input_tokens": found.prompt_tokens,
        "input_tokens_details": {"cached_tokens": found.cached_tokens},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": found.thinking_tokens},
        "total_tokens": found.prompt_tokens + written,
        "images": found.images,
        "tiles": found.tiles,
        "tiles_encoded": found.tiles_encoded,
    }
