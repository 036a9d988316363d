"""Thoughts in the three interfaces: asked for, streamed apart from answers, sent back, refused where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chain_model import THINKING, write_chain_model
from tests.support.served import Served, served, streamed

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
THOUGHT, ANSWER = "Hm, red? No.", "Blue."
QUESTION = [{"role": "user", "content": "What color?"}]
GREEDY = {"temperature": 0}
ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": QUESTION, "reasoning_effort": "high", **GREEDY},
    RESPONSES: {"input": "What color?", "reasoning": {"effort": "high"}, **GREEDY},
    MESSAGES: {"messages": QUESTION, "max_tokens": 64, "thinking": {"type": "enabled", "budget_tokens": 32}, **GREEDY},
}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a model that thinks a known thought."""
    folder = tmp_path_factory.mktemp("thinker")
    write_chain_model(folder, ("<think>", "\t", THOUGHT, "\r", "</think>", " ", *ANSWER.partition(".")[:2]), **THINKING)
    with served([str(folder)]) as server:
        yield server


def answered(server: Served, path: str, **fields: Any) -> dict[str, Any]:
    response = server.post(path, {**ASKS[path], **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_chat_completions_have_the_thought_beside_the_content(thinker: Served) -> None:
    found = answered(thinker, CHAT)
    message = found["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (ANSWER, THOUGHT)
    assert found["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}


def test_chat_streams_tell_both_apart(thinker: Served) -> None:
    deltas = [
        choice["delta"]
        for _, data in streamed(thinker, CHAT, {**ASKS[CHAT], "logprobs": True})
        if data != "[DONE]"
        for choice in data["choices"]
    ]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas).strip() == THOUGHT
    assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER
    assert deltas[0] == {"role": "assistant", "content": None}


def test_logprobs_are_those_of_the_content(thinker: Served) -> None:
    logprobs = answered(thinker, CHAT, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert "".join(each["token"] for each in logprobs) == ANSWER


def test_responses_have_an_item_of_their_own_for_it(thinker: Served) -> None:
    found = answered(thinker, RESPONSES)
    thought, message = found["output"]
    assert (thought["type"], thought["content"][0]["text"].strip()) == ("reasoning", THOUGHT)
    assert message["content"][0]["text"] == ANSWER
    assert found["usage"]["output_tokens_details"]["reasoning_tokens"] == 6
    assert found["reasoning"]["effort"] == "high"


def test_a_response_streams_the_thought_first(thinker: Served) -> None:
    events = [data for _, data in streamed(thinker, RESPONSES, ASKS[RESPONSES]) if data]
    kinds = [(event["type"], event.get("output_index")) for event in events]
    order = list(dict.fromkeys(kinds))
    assert order == [
        ("response.created", None),
        ("response.in_progress", None),
        ("response.output_item.added", 0),
        ("response.content_part.added", 0),
        ("response.reasoning_text.delta", 0),
        ("response.reasoning_text.done", 0),
        ("response.content_part.done", 0),
        ("response.output_item.done", 0),
        ("response.output_item.added", 1),
        ("response.content_part.added", 1),
        ("response.output_text.delta", 1),
        ("response.output_text.done", 1),
        ("response.content_part.done", 1),
        ("response.output_item.done", 1),
        ("response.completed", None),
    ]
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert items == events[-1]["response"]["output"]


def test_messages_have_a_block_for_it(thinker: Served) -> None:
    thought, text = answered(thinker, MESSAGES)["content"]
    assert thought == {"type": "thinking", "thinking": THOUGHT, "signature": ""}
    assert text["text"] == ANSWER
    deltas = [
        data["delta"] for name, data in streamed(thinker, MESSAGES, ASKS[MESSAGES]) if name == "content_block_delta"
    ]
    assert "".join(delta.get("thinking", "") for delta in deltas).strip() == THOUGHT
    assert "".join(delta.get("text", "") for delta in deltas) == ANSWER


def test_a_stop_sequence_is_looked_for_in_the_answer_alone(thinker: Served) -> None:
    found = answered(thinker, MESSAGES, stop_sequences=["red", "lue"])
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "lue")
    assert [block.get("thinking", block.get("text")) for block in found["content"]] == [THOUGHT, "B"]


def test_a_conversation_that_is_sent_back_is_not_read_again(thinker: Served) -> None:
    """With the thought or without it: the server knows what the model had written."""
    first = answered(thinker, CHAT, messages=[{"role": "user", "content": "What color is the sea?"}])
    message = first["choices"][0]["message"]
    known = first["usage"]["total_tokens"]
    for sent in (message, {"role": "assistant", "content": message["content"]}):
        turns = [{"role": "user", "content": "What color is the sea?"}, sent, *QUESTION]
        usage = answered(thinker, CHAT, messages=turns)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] >= known


@pytest.mark.parametrize(
    ("path", "turn"),
    [
        (CHAT, {"role": "assistant", "content": "Green.", "reasoning_content": "Hm."}),
        (CHAT, {"role": "assistant", "content": "Green.", "reasoning": "Hm."}),
        (
            MESSAGES,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                    {"type": "text", "text": "Green."},
                ],
            },
        ),
    ],
)
def test_a_thought_of_another_model_is_part_of_the_prompt(thinker: Served, path: str, turn: dict[str, Any]) -> None:
    plain = {"role": "assistant", "content": "Green."}
    lengths = []
    for sent in (turn, plain):
        usage = answered(thinker, path, messages=[*QUESTION, sent, *QUESTION])["usage"]
        lengths.append(sum(usage.get(name, 0) for name in ("prompt_tokens", "input_tokens", "cache_read_input_tokens")))
    # <think>, a line end, three letters, a line end, </think>, a line end
    assert lengths[0] - lengths[1] == 8


def test_a_reasoning_item_that_is_sent_back_is_taken(thinker: Served) -> None:
    output = answered(thinker, RESPONSES)["output"]
    turns = [*QUESTION, *output, *QUESTION]
    assert answered(thinker, RESPONSES, input=turns)["output"][-1]["content"][0]["text"] == ANSWER


@pytest.mark.parametrize(
    ("path", "fields", "thinks"),
    [
        (CHAT, {"reasoning_effort": "none"}, False),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": False}}, False),
        (CHAT, {"thinking_budget": 16}, True),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": True}}, True),
        (RESPONSES, {"reasoning": {"effort": "none"}}, False),
        (MESSAGES, {"thinking": {"type": "disabled"}}, False),
        (MESSAGES, {"thinking": {"type": "adaptive"}}, True),
    ],
)
def test_the_wish_is_in_the_prompt(thinker: Served, path: str, fields: dict[str, Any], thinks: bool) -> None:
    """The published text asks for thinking, and an empty thought keeps from it."""
    counting = {
        CHAT: f"{CHAT}/input_tokens",
        RESPONSES: f"{RESPONSES}/input_tokens",
        MESSAGES: f"{MESSAGES}/count_tokens",
    }
    bare = {name: value for name, value in ASKS[path].items() if name in ("messages", "input")}
    lengths = [thinker.post(counting[path], {**bare, **each}).json()["input_tokens"] for each in ({}, fields)]
    assert lengths[1] - lengths[0] > 300 if thinks else lengths[1] - lengths[0] == 4


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"reasoning_effort": "extreme"}, "reasoning_effort"),
        (CHAT, {"chat_template_kwargs": {"tools_in_user_message": True}}, "chat_template_kwargs"),
        (CHAT, {"thinking_budget": 0}, "thinking_budget"),
        (CHAT, {"keep_thinking": "yes"}, "keep_thinking"),
        (RESPONSES, {"reasoning": "high"}, "reasoning"),
        (MESSAGES, {"thinking": {"type": "sometimes"}}, "thinking.type"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        (
            CHAT,
            {"thinking_budget": 9, "messages": [*QUESTION, {"role": "assistant", "content": "Bl"}]},
            "thinking_budget",
        ),
    ],
)
def test_wishes_that_cannot_be_read_are_refused(thinker: Served, path: str, fields: dict[str, Any], param: str) -> None:
    response = thinker.post(path, {**ASKS[path], **fields})
    assert response.status_code == 400
    assert param in response.text


@pytest.mark.parametrize(
    ("path", "name", "field"),
    [
        (CHAT, "thinking", 'reasoning_effort: "high"'),
        (CHAT, "enable_thinking", 'reasoning_effort: "high"'),
        (RESPONSES, "thinking", 'reasoning: {"effort": "high"}'),
        (MESSAGES, "reasoning_effort", 'thinking: {"type": "enabled"}'),
    ],
)
def test_another_runtimes_word_for_thinking_is_told_ours(thinker: Served, path: str, name: str, field: str) -> None:
    """The hint was "Did you mean keep_thinking?"."""
    bare = {key: value for key, value in ASKS[path].items() if key in ("messages", "input", "max_tokens")}
    response = thinker.post(path, {**bare, name: True})
    assert response.status_code == 400
    assert f"Use {field} lets the model think" in response.text.replace('\\"', '"')


def test_which_models_can_think_is_listed(thinker: Served, demo: Served) -> None:
    assert [each.get("/v1/models").json()["data"][0]["can_think"] for each in (thinker, demo)] == [True, False]


def test_what_all_requests_wish_is_told_of_the_models_that_cannot(tmp_path: Path) -> None:
    """`serve --think` said nothing, and nothing was thought."""
    write_chain_model(tmp_path, ("<think>", THOUGHT, "</think>", " ", *ANSWER.partition(".")[:2]), **THINKING)
    with served([str(tmp_path), "demo"], "--think") as server:
        assert any(line.startswith("demo cannot think: what is asked of it is answered") for line in server.lines)
        question = {"messages": QUESTION, **GREEDY, "max_tokens": 64}
        thought, plain = (server.post(CHAT, {**question, "model": name}).json() for name in ("chain", "demo"))
        assert thought["choices"][0]["message"]["reasoning_content"] == THOUGHT
        assert "reasoning_content" not in plain["choices"][0]["message"]


def test_a_request_may_take_back_what_all_requests_wish(tmp_path: Path) -> None:
    write_chain_model(tmp_path, (*ANSWER.partition(".")[:2],), **THINKING)
    with served([str(tmp_path)], "--no-think") as server:
        assert server.post(CHAT, {"messages": QUESTION, "thinking_budget": 4, **GREEDY}).status_code == 200
    with served([str(tmp_path)], "--thinking-budget", "4") as server:
        assert server.post(CHAT, {"messages": QUESTION, "reasoning_effort": "none", **GREEDY}).status_code == 200


def test_a_model_that_cannot_think_says_so_where_it_must(demo: Served) -> None:
    """An effort, which many clients always send, changes nothing there."""
    for fields in ({"reasoning_effort": "high"}, {"reasoning_effort": "none"}):
        assert demo.chat("What is red?", max_tokens=4, **fields)["choices"][0]["message"]["content"]
    response = demo.post(CHAT, {"messages": QUESTION, "chat_template_kwargs": {"enable_thinking": True}})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("demo cannot think")
    assert "Leave out what asks for a thought" in response.text
    response = demo.post(MESSAGES, {**ASKS[MESSAGES], "model": "demo"})
    assert response.status_code == 400
    assert "cannot think" in response.json()["error"]["message"]
