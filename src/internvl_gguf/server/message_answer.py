"""The answer to a request of /v1/messages, as events of a stream or as one message."""

from __future__ import annotations

import json
import secrets
from typing import Any, Final, Literal

from internvl_gguf.server.answer_events import CallDelta, Delta, Finished, ThoughtDelta
from internvl_gguf.server.answering import AnswerEvent, Begun, Progress
from internvl_gguf.server.boxes_field import boxes_field
from internvl_gguf.server.client_words import notices_field
from internvl_gguf.server.openai_chat import timings
from internvl_gguf.server.responding import Frame
from internvl_gguf.server.selection_field import selection_field, written_tokens
from internvl_gguf.server.written_calls import WrittenCall, WrittenCalls
from internvl_gguf.types import FinishReason, Reply

BlockKind = Literal["thinking", "text", "tool_use"]

_REASONS: Final[dict[FinishReason, str]] = {"stop": "end_turn", "length": "max_tokens", "aborted": "end_turn"}


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
        self._calls = WrittenCalls()
        self._blocks = 0
        self._open: BlockKind | None = None

    def frames(self, event: AnswerEvent) -> list[Frame]:
        """Return the frames of an event in a stream."""
        if isinstance(event, Progress):
            progress = {"phase": event.phase, "done": event.done, "total": event.total}
            return [Frame({"type": "progress", "progress": progress}, "progress")]
        if isinstance(event, Begun):
            self._prompt_tokens = event.prompt_tokens
            return []
        if isinstance(event, ThoughtDelta):
            return self._piece_frames(
                "thinking", _thought_block(""), {"type": "thinking_delta", "thinking": event.text}
            )
        if isinstance(event, Delta):
            piece = {"type": "text_delta", "text": event.text}
            return self._piece_frames("text", _text_block(""), piece) if event.text else []
        if isinstance(event, CallDelta):
            return self._call_frames(event)
        self.add(event)
        frames = [] if self._blocks else self._begin_block("text", _text_block(""))
        ending = {"stop_reason": self._reason(event), "stop_sequence": event.stop}
        reply = event.reply
        about = {**boxes_field(reply), **notices_field(reply.notices), **selection_field(reply)}
        more = {"timings": timings([reply]), **about}
        return [
            *frames,
            *self._end_block(),
            _event("message_delta", delta=ending, usage=_usage(event.reply), **more),
            _event("message_stop"),
        ]

    def add(self, event: AnswerEvent) -> None:
        """Take an event of an answer that is not streamed."""
        if isinstance(event, CallDelta):
            self._calls.add(event.call)
        elif isinstance(event, Finished):
            self._finished = event

    def message(self) -> dict[str, Any]:
        """Return the whole answer."""
        event = self._finished
        if event is None:
            raise RuntimeError("the answer has not ended")
        calls = [_call_block(call, json.loads(call.arguments)) for call in self._calls.whole(event.reply)]
        thought = [_thought_block(event.reply.thinking)] if event.reply.thinking else []
        text = [_text_block(event.reply.text)] if event.reply.text or not (calls or thought) else []
        return {
            **self._envelope(),
            "content": [*thought, *text, *calls],
            "stop_reason": self._reason(event),
            "stop_sequence": event.stop,
            "stop_details": None,
            "usage": _usage(event.reply),
            "timings": timings([event.reply]),
            **boxes_field(event.reply),
            **notices_field(event.reply.notices),
            **selection_field(event.reply),
        }

    def _piece_frames(self, kind: BlockKind, block: dict[str, Any], delta: dict[str, Any]) -> list[Frame]:
        """Return a piece of a block, which begins if it is not open."""
        frames = [] if self._open == kind else self._begin_block(kind, block)
        return [*frames, _event("content_block_delta", index=self._blocks - 1, delta=delta)]

    def _call_frames(self, event: CallDelta) -> list[Frame]:
        call = self._calls.add(event.call)
        frames = self._begin_block("tool_use", _call_block(call, {})) if event.call.id else []
        if not event.call.arguments:
            return frames
        delta = {"type": "input_json_delta", "partial_json": event.call.arguments}
        return [*frames, _event("content_block_delta", index=self._blocks - 1, delta=delta)]

    def _begin_block(self, kind: BlockKind, block: dict[str, Any]) -> list[Frame]:
        """Return the end of the block before and the beginning of the next; of the message, too, if it is the first."""
        before, after = self._end_block(), list[Frame]()
        if not self._has_begun:
            self._has_begun = True
            before, after = [self._message_start()], [_event("ping")]
        self._open = kind
        self._blocks += 1
        return [*before, _event("content_block_start", index=self._blocks - 1, content_block=block), *after]

    def _end_block(self) -> list[Frame]:
        if self._open is None:
            return []
        self._open = None
        return [_event("content_block_stop", index=self._blocks - 1)]

    def _message_start(self) -> Frame:
        usage = _usage_json(self._prompt_tokens, 0, 0)  # how much of it is known is told at the end
        ending = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        return _event("message_start", message={**self._envelope(), "content": [], **ending, "usage": usage})

    def _envelope(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "container": None}

    def _reason(self, event: Finished) -> str:
        if event.stop is not None:
            return "stop_sequence"
        has_called = event.reply.tool_calls and event.reply.finish_reason == "stop"
        return "tool_use" if has_called else _REASONS[event.reply.finish_reason]


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "citations": None}


def _thought_block(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": ""}  # nothing here tells whose thought it is


def _call_block(call: WrittenCall, arguments: dict[str, Any]) -> dict[str, Any]:
    call_id = call.id.replace("call_", "toolu_", 1)  # as Anthropic calls them
    return {"type": "tool_use", "id": call_id, "name": call.name, "input": arguments}


def _event(kind: str, **fields: Any) -> Frame:
    return Frame({"type": kind, **fields}, kind)


def _usage(reply: Reply) -> dict[str, Any]:
    """Return the usage as Anthropic counts it: tokens read from the cache are not among the input tokens."""
    found = reply.usage
    return {
        **_usage_json(found.prompt_tokens - found.cached_tokens, found.cached_tokens, written_tokens([reply])),
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
