"""OpenAI's Responses, without a memory: the order of events, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.served import DESCRIPTION, Served, data_uri, streamed

RESPONSES = "/v1/responses"


def question(picture: bytes) -> list[dict[str, Any]]:
    parts = [
        {"type": "input_image", "image_url": data_uri(picture)},
        {"type": "input_text", "text": "What is in the picture?"},
    ]
    return [{"role": "user", "content": parts}]


def test_a_question_about_a_picture(demo: Served, example: bytes) -> None:
    response = demo.post(RESPONSES, {"model": "demo", "input": question(example)}).json()
    (message,) = response["output"]
    assert message["content"][0]["text"] == DESCRIPTION
    assert response["status"] == message["status"] == "completed"
    assert response["usage"]["tiles"] == 10
    assert response["store"] is False


def test_the_order_of_events(demo: Served, example: bytes) -> None:
    found = streamed(demo, RESPONSES, {"model": "demo", "input": question(example)})
    assert all(name == data["type"] for name, data in found)
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    kinds = [name for name, _ in found]
    deltas = [data["delta"] for name, data in found if name == "response.output_text.delta"]
    begin = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    end = ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]
    assert kinds == [*begin, *["response.output_text.delta"] * len(deltas), *end]
    assert "".join(deltas) == DESCRIPTION
    last = found[-1][1]["response"]
    assert last["output"][0]["content"][0]["text"] == DESCRIPTION
    assert last["id"].startswith("resp_")
    assert last["output"][0]["id"].startswith("msg_")
    assert {data["item_id"] for _, data in found if "item_id" in data} == {last["output"][0]["id"]}


def test_an_answer_that_is_cut_is_incomplete(demo: Served) -> None:
    response = demo.post(RESPONSES, {"input": "What is red?", "max_output_tokens": 1}).json()
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    *_, (name, _) = streamed(demo, RESPONSES, {"input": "What is red?", "max_output_tokens": 1})
    assert name == "response.incomplete"


def test_a_conversation_is_sent_whole(demo: Served, example: bytes) -> None:
    said = demo.post(RESPONSES, {"input": question(example)}).json()["output"]
    again = [*question(example), *said, {"role": "user", "content": "Which colour is it?"}]
    response = demo.post(RESPONSES, {"input": again}).json()
    assert response["usage"]["tiles_encoded"] == 0
    assert response["usage"]["input_tokens_details"]["cached_tokens"] > 390


def test_instructions_are_the_system_message(demo: Served) -> None:
    one = demo.post(f"{RESPONSES}/input_tokens", {"input": "x", "instructions": "Be brief."}).json()
    two = demo.post(f"{RESPONSES}/input_tokens", {"input": "x", "instructions": "Be brief and kind."}).json()
    assert one["input_tokens"] < two["input_tokens"]


def test_logprobs_are_included_if_asked_for(demo: Served) -> None:
    body = {"input": "What is red?", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    (part,) = demo.post(RESPONSES, body).json()["output"][0]["content"]
    assert "".join(token["token"] for token in part["logprobs"]) == part["text"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]},
         "input[0].content[0].file_id"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "background": True}, "background"),
        ({"input": "x", "truncation": "auto"}, "truncation"),
        ({"input": "x", "text": {"verbosity": "high"}}, "text.verbosity"),
        ({"input": "x", "include": ["reasoning.encrypted_content"]}, "include"),
        ({"input": "x", "instructions": ["y"]}, "instructions"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_name(demo: Served, body: dict[str, Any], param: str) -> None:
    response = demo.post(RESPONSES, body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
