"""Text and several calls in one answer, as each interface tells them: the model of the tests seldom answers so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from internvl_gguf.config import PictureOptions, SamplingParams
from internvl_gguf.server.answer_pump import CallDelta, Delta, Finished
from internvl_gguf.server.answering import AnswerEvent
from internvl_gguf.server.chat_request import AnswerWishes, ChatRequest, TextPart, ToolWish, Turn
from internvl_gguf.server.message_answer import MessageAnswer
from internvl_gguf.server.openai_chat import ChatAnswer, StreamWishes
from internvl_gguf.server.response_answer import ResponseAnswer
from internvl_gguf.session.call_reader import CallReader
from internvl_gguf.types import Message, Reply, Timings, Usage

TEXT = "I look twice."
CALLS = [("find", {"colour": "red"}), ("count", {"of": ["a", "}"], "deep": {"x": 1}})]
WRITTEN = TEXT + "".join(
    f'\n<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(values)}}}\n</tool_call>' for name, values in CALLS
)
REQUEST = ChatRequest(
    None,
    (Turn("user", (TextPart("x"),)),),
    SamplingParams(),
    PictureOptions(),
    wishes=AnswerWishes(
        tools=(ToolWish("find", "", None, "tools[0]", ""), ToolWish("count", "", None, "tools[1]", ""))
    ),
)


def events(written: str, size: int) -> list[AnswerEvent]:
    """The events of an answer that is written in pieces of some characters."""
    reader = CallReader()
    pieces = [piece for start in range(0, len(written), size) for piece in reader.feed(written[start : start + size])]
    pieces += reader.finish()
    found: list[AnswerEvent] = [CallDelta(0, each.call) if each.call else Delta(0, each.text) for each in pieces]
    text = "".join(piece.text for piece in pieces)
    reason = "stop" if written == WRITTEN else "length"
    usage, timings = Usage(1, 0, 1, 0, 0, 0), Timings(0, 0, 0, 0, 0, 0)
    reply = Reply(text, reason, usage, timings, tool_calls=tuple(reader.calls))  # type: ignore[arg-type]
    return [*found, Finished(0, reply, Message("assistant", written), None)]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chat_completions(size: int) -> None:
    streams = StreamWishes(streams=True, includes_usage=False, tells_progress=False)
    answer = ChatAnswer("m", REQUEST, streams)
    whole = ChatAnswer("m", REQUEST, streams)
    deltas: list[dict[str, Any]] = []
    for event in events(WRITTEN, size):
        whole.add(event)
        deltas += [
            frame.data["choices"][0]["delta"] for frame in answer.frames(event) if not isinstance(frame.data, str)
        ]
    message = whole.completion()["choices"][0]["message"]
    assert message["content"] == TEXT == "".join(delta.get("content") or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert [call["index"] for call in calls] == sorted(call["index"] for call in calls)
    for index, (name, values) in enumerate(CALLS):
        first, *rest = [call for call in calls if call["index"] == index]
        assert first["function"] == {"name": name, "arguments": ""}
        written = "".join(call["function"]["arguments"] for call in rest)
        assert message["tool_calls"][index]["function"] == {"name": name, "arguments": written}
        assert written == json.dumps(values)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_responses(size: int) -> None:
    answer = ResponseAnswer("m", REQUEST, {})
    told = [frame.data for event in events(WRITTEN, size) for frame in answer.frames(event)]
    frames: list[dict[str, Any]] = [dict(each) for each in told if not isinstance(each, str)]
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
    items = {frame["output_index"]: frame["item"] for frame in frames if frame["type"] == "response.output_item.done"}
    assert [items[index] for index in range(3)] == frames[-1]["response"]["output"]
    assert [item["type"] for item in items.values()] == ["message", "function_call", "function_call"]
    assert items[0]["content"][0]["text"] == TEXT
    for index, (name, values) in enumerate(CALLS, 1):
        inside = [frame for frame in frames if frame.get("item_id") == items[index]["id"]]
        assert {frame["output_index"] for frame in inside} == {index}
        deltas = [frame["delta"] for frame in inside if frame["type"] == "response.function_call_arguments.delta"]
        assert "".join(deltas) == items[index]["arguments"] == json.dumps(values)
        assert items[index]["name"] == name
    order = [
        (frame["type"], frame["output_index"]) for frame in frames if frame["type"].startswith("response.output_item")
    ]
    assert order == [(f"response.output_item.{what}", index) for index in range(3) for what in ("added", "done")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_messages(size: int) -> None:
    answer, whole = MessageAnswer("m"), MessageAnswer("m")
    frames: list[dict[str, Any]] = []
    for event in events(WRITTEN, size):
        whole.add(event)
        frames += [dict(frame.data) for frame in answer.frames(event) if not isinstance(frame.data, str)]
    text, *uses = whole.message()["content"]
    assert text["text"] == TEXT
    assert [(use["name"], use["input"]) for use in uses] == CALLS
    order = [(frame["type"], frame["index"]) for frame in frames if frame["type"].startswith("content_block_st")]
    assert order == [(f"content_block_{what}", index) for index in range(3) for what in ("start", "stop")]
    for index, (_, values) in enumerate(CALLS, 1):
        deltas = [
            frame["delta"]["partial_json"]
            for frame in frames
            if frame["type"] == "content_block_delta" and frame["index"] == index
        ]
        assert json.loads("".join(deltas)) == values


@pytest.mark.parametrize("length", range(len(TEXT) + 2, len(WRITTEN), 9))
def test_what_is_cut_off_is_no_call(length: int) -> None:
    cut = events(WRITTEN[:length], 5)
    finished = cut[-1]
    assert isinstance(finished, Finished)
    n_calls = WRITTEN[:length].count("</tool_call>")
    chat = ChatAnswer("m", REQUEST, StreamWishes(streams=False, includes_usage=False, tells_progress=False))
    response, message, streamed = ResponseAnswer("m", REQUEST, {}), MessageAnswer("m"), ResponseAnswer("m", REQUEST, {})
    frames = [frame.data for event in cut for frame in streamed.frames(event)]
    for event in cut:
        for answer in (chat, response, message):
            answer.add(event)
    choice = chat.completion()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == finished.reply.text
    assert len(choice["message"].get("tool_calls", [])) == n_calls
    assert [item["type"] for item in response.response()["output"]] == ["message", *["function_call"] * n_calls]
    assert [block["type"] for block in message.message()["content"]] == ["text", *["tool_use"] * n_calls]
    assert message.message()["stop_reason"] == "max_tokens"
    last = frames[-1]
    assert not isinstance(last, str)
    assert [item["type"] for item in last["response"]["output"]] == ["message", *["function_call"] * n_calls]
