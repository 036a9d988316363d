"""POST /v1/chat/completions: OpenAI's chat, and llama-server's count of a prompt's tokens beside it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf._version import __version__
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.server.answer_events import CallDelta, Delta, Finished, ThoughtDelta, TokenText
from internvl_gguf.server.answering import AnswerEvent, Begun, Progress
from internvl_gguf.server.boxes_field import boxes_field
from internvl_gguf.server.chat_request import (
    AnswerDefaults,
    Body,
    ChatRequest,
    Part,
    SentCall,
    TextPart,
    Turn,
)
from internvl_gguf.server.client_words import notices_field
from internvl_gguf.server.clips import clips_field
from internvl_gguf.server.content import (
    as_list,
    as_object,
    as_text,
    clip_part,
    parts_of,
    picture_part,
    refuse_other_wishes,
    refused,
    role_of,
    sent_call,
    unknown_part,
    with_clip_wishes,
)
from internvl_gguf.server.conversation import conversation
from internvl_gguf.server.field_values import (
    check_fields,
    clip_wishes_of,
    pictures_of,
    sampling_of,
    switch,
    whole,
    wrong,
)
from internvl_gguf.server.fields import CHAT_FIELDS, MOST_CHOICES, MOST_TOP_LOGPROBS
from internvl_gguf.server.form_fields import form_of, refuse_begun, response_format
from internvl_gguf.server.responding import Frame
from internvl_gguf.server.selection_field import selection_field, written_tokens
from internvl_gguf.server.thinking_fields import thinking_of
from internvl_gguf.server.tool_fields import chat_choice_name, chat_tool, openai_wishes
from internvl_gguf.server.turns import PreparedConversation
from internvl_gguf.server.written_calls import WrittenCall, WrittenCalls
from internvl_gguf.types import FinishReason, Reply

FINISH_REASONS: Final[dict[FinishReason, str]] = {"stop": "stop", "length": "length", "aborted": "stop"}
DONE: Final = Frame("[DONE]")


@dataclass(frozen=True)
class StreamWishes:
    """How an answer is wanted.

    Attributes:
        streams: as a stream.
        includes_usage: with the usage at the end of the stream.
        tells_progress: with events for progress.
    """

    streams: bool
    includes_usage: bool
    tells_progress: bool


def parse(body: Body, defaults: AnswerDefaults) -> tuple[ChatRequest, StreamWishes]:
    """Return what a body asks for.

    Raises:
        RefusedRequestError: it cannot be used.
    """
    used = check_fields(body, CHAT_FIELDS)
    messages = as_list(used.get("messages"), "messages")
    turns = [_turn(message, f"messages[{index}]") for index, message in enumerate(messages)]
    thinking, n = thinking_of(used), whole(used, "n", 1, MOST_CHOICES, 1)
    request = ChatRequest(
        model=as_text(used["model"], "model") if "model" in used else None,
        turns=conversation(with_clip_wishes(turns, clip_wishes_of(used), "media_io_kwargs.video"), "messages"),
        sampling=thinking.applied(sampling_of(used, defaults, n)),
        pictures=pictures_of(used, defaults),
        n=n,
        top_logprobs=_top_logprobs(used),
        keeps_tags=not switch(used, "skip_special_tokens", default=True),
        wishes=openai_wishes(used, form_of(used, response_format(used)), chat_tool, chat_choice_name),
        must_think=thinking.is_firm,
    )
    refuse_begun(request, thinking)
    _check_beginning(used, request.turns)
    options = as_object(used.get("stream_options", {}), "stream_options")
    wishes = StreamWishes(
        streams=switch(used, "stream"),
        includes_usage=switch(options, "include_usage"),
        tells_progress=switch(used, "return_progress"),
    )
    return request, wishes


def _turn(value: object, param: str) -> Turn:
    message = as_object(value, param)
    role = role_of(message, param)
    if message.get("audio"):
        raise refused(f"{param}.audio", "is given, and the model hears nothing", "Leave it out.")
    content = message.get("content")
    if content is None and role != "assistant":
        raise refused(f"{param}.content", "is missing", "Give a text or a list of parts.")
    calls = _calls(message, param)
    if calls and role != "assistant":
        raise refused(f"{param}.role", "is not the assistant's, and there are calls of tools", "Give the assistant's.")
    answers = message.get("tool_call_id", message.get("name")) if role == "tool" else None
    answers = "" if answers is None else as_text(answers, f"{param}.tool_call_id")
    return Turn(role, parts_of(content, f"{param}.content", _part), calls, answers, _thought(message, param))


def _thought(message: Body, param: str) -> str:
    """Return the thought that a client sends back, in the words of llama.cpp and DeepSeek, or of vLLM."""
    for name in ("reasoning_content", "reasoning"):
        if message.get(name) is not None:
            return as_text(message[name], f"{param}.{name}")
    return ""


def _calls(message: Body, param: str) -> tuple[SentCall, ...]:
    """Return the calls of tools in a message, and the one of `function_call`, their old form."""
    given = message.get("tool_calls")
    calls = [
        (as_object(each, f"{param}.tool_calls[{index}]"), f"{param}.tool_calls[{index}].function")
        for index, each in enumerate([] if given is None else as_list(given, f"{param}.tool_calls"))
    ]
    found = [_call(call.get("id"), call.get("function"), place) for call, place in calls]
    if message.get("function_call") is not None:
        found.append(_call(None, message["function_call"], f"{param}.function_call"))
    return tuple(found)


def _call(call_id: object, function: object, param: str) -> SentCall:
    given = as_object(function, param)
    return sent_call(call_id, given.get("name"), given.get("arguments", ""), f"{param}.arguments")


def _part(part: dict[str, Any], param: str) -> Part:
    kind = part.get("type")
    if kind in ("text", "refusal"):
        return TextPart(as_text(part.get(kind), f"{param}.{kind}"))
    if kind == "image_url":
        image = part.get("image_url")
        if isinstance(image, str):  # as some clients write it
            return picture_part(image, part.get("detail"), f"{param}.image_url")
        found = as_object(image, f"{param}.image_url")
        return picture_part(found.get("url"), found.get("detail"), f"{param}.image_url")
    if kind == "video_url":
        clip = part.get("video_url")
        refuse_other_wishes(part, param)
        if isinstance(clip, str):
            return clip_part(clip, part, f"{param}.video_url")
        found = as_object(clip, f"{param}.video_url")
        refuse_other_wishes(found, f"{param}.video_url", is_all=True)
        return clip_part(found.get("url"), {**part, **found}, f"{param}.video_url")
    if kind == "video":
        refuse_other_wishes(part, param)
        return clip_part(part.get("video"), part, f"{param}.video")
    raise unknown_part(part, param, "text, image_url, video_url or video")


def _check_beginning(used: Body, turns: Sequence[Turn]) -> None:
    """Refuse the wish that an answer begins otherwise than the last message has it."""
    goes_on = turns[-1].role == "assistant"
    for name, due in (("continue_final_message", goes_on), ("add_generation_prompt", not goes_on)):
        if switch(used, name, default=due) != due:
            whose = "the assistant's" if goes_on else "the user's"
            raise wrong(
                name, f"is {str(not due).lower()}, and the last message is {whose}", f"Give {str(due).lower()}."
            )


def _top_logprobs(used: Body) -> int | None:
    top = whole(used, "top_logprobs", 0, MOST_TOP_LOGPROBS, 0)
    if not switch(used, "logprobs"):
        if top:
            raise wrong("top_logprobs", "needs logprobs", 'Set "logprobs": true.')
        return None
    return top


def usage(replies: Sequence[Reply]) -> dict[str, Any]:
    """Return the usage of the answers to one request: its prompt counts once."""
    first = replies[0].usage
    completion = written_tokens(replies)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": first.prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": first.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": sum(reply.usage.thinking_tokens for reply in replies)},
        "images": first.images,
        "tiles": first.tiles,
        "tiles_encoded": sum(reply.usage.tiles_encoded for reply in replies),
    }


def timings(replies: Sequence[Reply]) -> dict[str, float]:
    """Return the timings of the first answer to a request, in seconds."""
    return replies[0].timings.to_dict()


def token_json(token: TokenText) -> dict[str, Any]:
    """Return a token with its logprob as OpenAI writes it."""
    return {
        "token": token.piece.decode("utf-8", "replace"),
        "logprob": token.logprob,
        "bytes": list(token.piece),
        "top_logprobs": [
            {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
            for piece, logprob in token.top
        ],
    }


class ChatAnswer:
    """The answers to one request, as chunks of a stream or as one completion.

    Args:
        model: the id of the model.
        request: the request.
        wishes: how the answer is wanted.
    """

    def __init__(self, model: str, request: ChatRequest, wishes: StreamWishes) -> None:
        self._wishes = wishes
        self._base: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"internvl-gguf-{__version__}",
        }
        self._n = request.n
        self._has_logprobs = request.top_logprobs is not None
        self._begun: set[int] = set()
        self._tokens: dict[int, list[TokenText]] = {}
        self._calls: dict[int, WrittenCalls] = {choice: WrittenCalls() for choice in range(request.n)}
        self._replies: dict[int, Finished] = {}

    def frames(self, event: AnswerEvent) -> list[Frame]:
        """Return the frames of an event in a stream."""
        if isinstance(event, Progress):
            progress = {"phase": event.phase, "done": event.done, "total": event.total}
            return [self._chunk([], progress=progress)]
        if isinstance(event, Begun):
            return []
        content = None if isinstance(event, CallDelta | ThoughtDelta) else ""
        beginning = self._choice(event.choice, {"role": "assistant", "content": content})
        first = [] if event.choice in self._begun else [beginning]
        self._begun.add(event.choice)
        if isinstance(event, CallDelta):
            return [*first, self._choice(event.choice, {"tool_calls": [_call_piece(event)]})]
        if isinstance(event, ThoughtDelta):
            return [*first, self._choice(event.choice, {"reasoning_content": event.text})]
        if isinstance(event, Delta):
            return [*first, self._choice(event.choice, {"content": event.text}, event.tokens)]
        self._replies[event.choice] = event
        frames = [*first]
        is_last = len(self._replies) == self._n
        replies = [self._replies[choice].reply for choice in sorted(self._replies)]
        told = replies[0]
        about = {**notices_field(told.notices), **clips_field(told.clips), **selection_field(told)}
        more = {"timings": timings(replies), **about} if is_last else {}
        last = {"index": event.choice, "delta": {}, "logprobs": None, "finish_reason": _reason(event.reply)}
        frames.append(self._chunk([{**last, **boxes_field(event.reply)}], **more))
        if is_last:
            if self._wishes.includes_usage:
                frames.append(self._chunk([], usage=usage(replies)))
            frames.append(DONE)
        return frames

    def add(self, event: AnswerEvent) -> None:
        """Take an event of an answer that is not streamed."""
        if isinstance(event, Delta):
            self._tokens.setdefault(event.choice, []).extend(event.tokens)
        elif isinstance(event, CallDelta):
            self._calls[event.choice].add(event.call)
        elif isinstance(event, Finished):
            self._replies[event.choice] = event

    def completion(self) -> dict[str, Any]:
        """Return the whole answer."""
        ordered = [self._replies[choice] for choice in sorted(self._replies)]
        replies = [each.reply for each in ordered]
        choices: list[dict[str, Any]] = [
            {
                "index": each.choice,
                "message": self._message(each),
                "logprobs": self._logprobs(self._tokens.get(each.choice, [])),
                "finish_reason": _reason(each.reply),
                **boxes_field(each.reply),
            }
            for each in ordered
        ]
        return {
            **self._base,
            "object": "chat.completion",
            "choices": choices,
            "usage": usage(replies),
            "timings": timings(replies),
            **notices_field(replies[0].notices),
            **clips_field(replies[0].clips),
            **selection_field(replies[0]),
        }

    def _message(self, answer: Finished) -> dict[str, Any]:
        calls = self._calls[answer.choice].whole(answer.reply)
        content = answer.reply.text if answer.reply.text or not calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        if answer.reply.thinking:
            message["reasoning_content"] = answer.reply.thinking
        return {**message, "tool_calls": list(map(_call_json, calls))} if calls else message

    def _logprobs(self, tokens: Sequence[TokenText]) -> dict[str, Any] | None:
        return {"content": list(map(token_json, tokens)), "refusal": None} if self._has_logprobs else None

    def _choice(self, choice: int, delta: dict[str, Any], tokens: Sequence[TokenText] = ()) -> Frame:
        logprobs = self._logprobs(tokens) if tokens else None
        return self._chunk([{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": None}])

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> Frame:
        nothing = {"usage": None} if self._wishes.includes_usage else {}
        return Frame({**self._base, "object": "chat.completion.chunk", "choices": choices, **nothing, **more})


def _reason(reply: Reply) -> str:
    ended_itself = reply.finish_reason == "stop"
    return "tool_calls" if reply.tool_calls and ended_itself else FINISH_REASONS[reply.finish_reason]


def _call_json(call: WrittenCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_piece(event: CallDelta) -> dict[str, Any]:
    """Return a piece of a call in a stream: its name and id are in the first of them."""
    call = event.call
    if not call.id:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, **_call_json(WrittenCall(call.id, call.name, call.arguments))}


def counted(prepared: PreparedConversation, n_ctx: int, tokens_per_tile: int, kind: str) -> dict[str, Any]:
    """Return what a prompt takes: its tokens, and the tiles of each of its pictures.

    Args:
        prepared: the prompt.
        n_ctx: positions of the context.
        tokens_per_tile: visual tokens of a tile.
        kind: the name of the interface's object.
    """
    pictures = [
        {
            "width": picture.source_size[0],
            "height": picture.source_size[1],
            "grid": list(picture.grid),
            "thumbnail": picture.has_thumbnail,
            "tiles": len(picture.tiles),
            "tokens": len(picture.tiles) * tokens_per_tile,
        }
        for picture in prepared.pictures
    ]
    return {
        "object": kind,
        "input_tokens": total_length(prepared.question.spans),
        "context_length": n_ctx,
        "images": pictures,
        **notices_field(prepared.question.notices),
    }
