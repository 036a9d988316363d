"""Anthropic's messages: blocks, events, and errors in its own shape."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.support.served import DESCRIPTION, Served, streamed

MESSAGES = "/v1/messages"


def question(picture: bytes) -> list[dict[str, Any]]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture).decode()}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is in the picture?"}]
    return [{"role": "user", "content": parts}]


def ask(server: Served, messages: Any, **fields: Any) -> dict[str, Any]:
    response = server.post(MESSAGES, {"model": "demo", "max_tokens": 60, "messages": messages, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_question_about_a_picture(demo: Served, example: bytes) -> None:
    answer = ask(demo, question(example))
    assert answer["content"] == [{"type": "text", "text": DESCRIPTION, "citations": None}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    usage = answer["usage"]
    again = ask(demo, question(example))["usage"]
    assert again["input_tokens"] + again["cache_read_input_tokens"] == (
        usage["input_tokens"] + usage["cache_read_input_tokens"]
    )
    assert again["tiles_encoded"] == 0


def test_the_order_of_events(demo: Served, example: bytes) -> None:
    found = streamed(demo, MESSAGES, {"model": "demo", "max_tokens": 60, "messages": question(example)})
    assert all(name == data["type"] for name, data in found)
    kinds = [name for name, _ in found]
    deltas = [data["delta"]["text"] for name, data in found if name == "content_block_delta"]
    begin, end = (
        ["message_start", "content_block_start", "ping"],
        ["content_block_stop", "message_delta", "message_stop"],
    )
    assert kinds == [*begin, *["content_block_delta"] * len(deltas), *end]
    assert "".join(deltas) == DESCRIPTION
    start, ending = found[0][1]["message"], found[-2][1]
    assert start["content"] == []
    assert (
        start["usage"]["input_tokens"] == ending["usage"]["input_tokens"] + ending["usage"]["cache_read_input_tokens"]
    )
    assert ending["delta"]["stop_reason"] == "end_turn"


def test_a_stop_sequence_is_named(demo: Served, example: bytes) -> None:
    answer = ask(demo, question(example), stop_sequences=["green", "blue"])
    assert answer["stop_reason"] == "stop_sequence"
    assert answer["stop_sequence"] == "blue"
    assert answer["content"][0]["text"] == "A red circle at the top left, a "


def test_an_answer_that_is_cut_says_so(demo: Served) -> None:
    assert ask(demo, [{"role": "user", "content": "What is red?"}], max_tokens=1)["stop_reason"] == "max_tokens"


def test_a_prefilled_answer_is_gone_on_with(demo: Served, example: bytes) -> None:
    begun = {"role": "assistant", "content": "A red circle at the top left, a blue"}
    answer = ask(demo, [*question(example), begun])
    assert answer["content"][0]["text"] == DESCRIPTION.removeprefix("A red circle at the top left, a blue")


def test_tokens_are_counted(demo: Served, example: bytes) -> None:
    body = {"model": "demo", "messages": question(example), "system": "Be brief."}
    counted = demo.post(f"{MESSAGES}/count_tokens", body).json()
    usage = ask(demo, question(example), system=[{"type": "text", "text": "Be brief."}])["usage"]
    assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
        {"messages": [{"role": "user", "content": "x"}], "thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "web_search_20250305", "name": "f"}]},
        {"messages": [{"role": "user", "content": "x"}], "stop_sequences": [1]},
    ],
)
def test_errors_have_anthropics_shape(demo: Served, body: dict[str, Any]) -> None:
    response = demo.post(MESSAGES, body)
    assert response.status_code == 400
    answer = response.json()
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"]
    assert demo.post(MESSAGES, {"model": "other", **body}).status_code in (400, 404)
