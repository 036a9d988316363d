"""Several answers of which the best is given: in the three interfaces, in streams, and with `n`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.chain_model import write_chain_model
from tests.support.served import Served, assert_refused, served, streamed, user

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
WILD: dict[str, Any] = {"temperature": 1.8, "top_p": 1, "seed": 3}
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [user("What is red?")]},
    RESPONSES: {"input": "What is red?"},
    MESSAGES: {"messages": [user("What is red?")], "max_tokens": 40},
}


def text_of(path: str, document: dict[str, Any]) -> str:
    if path == CHAT:
        return str(document["choices"][0]["message"]["content"])
    content = document["output"][0]["content"] if path == RESPONSES else document["content"]
    return str(content[0]["text"])


@pytest.mark.parametrize("path", ASKED)
def test_each_interface_gives_the_best_and_says_how_it_was_chosen(demo: Served, path: str) -> None:
    fields = {**ASKED[path], "best_of": 4, "judge": "certainty", **WILD}
    response = demo.post(path, fields)
    assert response.status_code == 200, response.text
    document = response.json()
    selection = document["selection"]
    assert len(selection["candidates"]) == 4
    assert text_of(path, document) == selection["candidates"][selection["best"]]["text"]
    assert selection["reason"].startswith("certainty ")
    assert [each["seed"] for each in selection["candidates"]] == [3, 4, 5, 6]
    usage = document["usage"]
    written = usage["completion_tokens"] if path == CHAT else usage["output_tokens"]
    assert written == sum(each["tokens"] for each in selection["candidates"])


def test_one_answer_has_no_selection(demo: Served) -> None:
    assert "selection" not in demo.chat("What is red?")
    assert "selection" not in demo.chat("What is red?", best_of=1)


@pytest.mark.parametrize("path", ASKED)
def test_a_stream_sends_the_best_at_its_end(demo: Served, path: str) -> None:
    body = {**ASKED[path], "best_of": 3, "judge": "certainty", **WILD, "return_progress": True}
    found = [data for _, data in streamed(demo, path, body) if isinstance(data, dict)]
    progress = [each["progress"] for each in found if "progress" in each]
    answering = [(each["done"], each["total"]) for each in progress if each["phase"] == "answering"]
    assert answering == sorted(answering)
    assert {total for _, total in answering} == {3}
    last = found[-1]["response"] if path == RESPONSES else next(each for each in found if "selection" in each)
    chosen = last["selection"]["candidates"][last["selection"]["best"]]["text"]
    pieces: list[str] = []
    for each in found:
        delta = each["choices"][0]["delta"] if each.get("choices") else each.get("delta", {})
        pieces.append(delta if isinstance(delta, str) else delta.get("content") or delta.get("text") or "")
    assert "".join(pieces) == chosen


def test_n_are_the_best_of_them_the_best_first(demo: Served, example: bytes) -> None:
    fields = {"best_of": 5, "n": 2, "judge": "certainty", **WILD}
    answer = demo.chat([user("What is in the picture?", example)], **fields)
    candidates = answer["selection"]["candidates"]
    first, second = (choice["message"]["content"] for choice in answer["choices"])
    assert first == candidates[answer["selection"]["best"]]["text"]
    others = [each for place, each in enumerate(candidates) if place != answer["selection"]["best"]]
    assert second == max(others, key=lambda each: each["score"])["text"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == sum(each["tokens"] for each in candidates)


def test_logprobs_are_those_of_the_chosen_answer(demo: Served) -> None:
    (choice,) = demo.chat("What is red?", best_of=3, judge="certainty", logprobs=True, **WILD)["choices"]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]


def test_values_of_a_schema_are_voted_on(demo: Served, example: bytes) -> None:
    schema = {"type": "object", "properties": {"shapes": {"type": "integer"}}, "required": ["shapes"]}
    answer = demo.chat([user("How many shapes are there?", example)], best_of=3, json_schema=schema)
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"shapes": 2}
    assert answer["selection"]["candidates"][0]["agreeing"] >= 2


def test_calls_of_the_chosen_answer_are_calls(demo: Served, example: bytes) -> None:
    parameters = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    tool = {"type": "function", "function": {"name": "price_of", "parameters": parameters}}
    body = {"tools": [tool], "tool_choice": "required", "best_of": 3}
    (choice,) = demo.chat([user("What is the price of the circle?", example)], **body)["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "price_of"
    assert json.loads(call["function"]["arguments"]).keys() == {"name"}
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 0}, "best_of"),
        ({"best_of": 1000}, "best_of"),
        ({"best_of": "many"}, "best_of"),
        ({"best_of": 2, "temperature": 0}, "best_of"),
        ({"best_of": 2, "top_k": 1}, "best_of"),
        ({"best_of": 2, "judge": "jury"}, "judge"),
        ({"judge": "vote"}, "judge"),
    ],
)
@pytest.mark.parametrize("path", ASKED)
def test_what_cannot_be_is_refused_by_its_name(demo: Served, path: str, fields: dict[str, Any], param: str) -> None:
    response = demo.post(path, {**ASKED[path], **fields})
    assert response.status_code == 400
    assert param in response.json()["error"]["message"]


def test_more_answers_than_are_written_are_refused(demo: Served) -> None:
    assert_refused(demo, CHAT, {**ASKED[CHAT], "n": 3, "best_of": 2}, "n")


def test_answers_that_are_all_given_read_their_prompt_once(demo: Served) -> None:
    """Together they take the place of one, so that none waits for another."""
    fields = {"n": 4, **WILD}
    together = [each["message"]["content"] for each in demo.chat("What is blue?", **fields)["choices"]]
    alone = [demo.chat("What is blue?", **{**WILD, "seed": seed})["choices"][0] for seed in (3, 4, 5, 6)]
    assert together == [each["message"]["content"] for each in alone]


def test_the_owner_may_ask_for_several_by_default(tmp_path_factory: pytest.TempPathFactory) -> None:
    files = write_chain_model(tmp_path_factory.mktemp("chain"), ("Blue", "."))
    model = ["--mmproj", str(files.mmproj), "-c", "512", "-t", "1", "--best-of", "3", "--judge", "certainty"]
    with served([str(files.text)], *model) as server:
        assert len(server.chat("What?")["selection"]["candidates"]) == 3
        assert "selection" not in server.chat("What?", temperature=0)
        assert "selection" not in server.chat("What?", best_of=1)
        assert len(server.chat("What?", n=4, temperature=1)["choices"]) == 4
