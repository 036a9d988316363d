"""Tools: calls and their results in all interfaces, whole and streamed, and what a conversation with them costs."""

from __future__ import annotations

import base64
import json
import re
import threading
from typing import Any

import pytest

from tests.support.pictures import encoded, noise
from tests.support.served import Served, assert_refused, data_uri, streamed, user
from tests.support.wishes import SCHEMA, TOOLS, anthropic_tools, chat_tools, fits, fits_tool, response_tools

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
QUESTION = [{"role": "user", "content": "Which shapes are red?"}]
ANY = {"type": "any", "disable_parallel_tool_use": True}
ONE = {"tool_choice": "required", "parallel_tool_calls": False}
END = 20
"""Tokens of the end of a call, which has to follow: it is not read before something comes after it."""
CALL = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "x"}


def chat(server: Served, messages: Any = QUESTION, **fields: Any) -> dict[str, Any]:
    return server.chat(messages, **{"tools": chat_tools(), **ONE, **fields})


def called(answer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The message and the only call of a completion."""
    message = answer["choices"][0]["message"]
    (call,) = message["tool_calls"]
    return message, call


def test_a_call_in_chat_completions(demo: Served) -> None:
    answer = chat(demo)
    message, call = called(answer)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert message["content"] is None
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"]["name"] in TOOLS
    assert fits_tool(json.loads(call["function"]["arguments"]))


def test_a_call_streamed_in_chat_completions(demo: Served) -> None:
    _, whole = called(chat(demo))
    events = streamed(demo, CHAT, {"messages": QUESTION, "tools": chat_tools(), **ONE})
    first, begins, *rest, last = [data["choices"][0] for _, data in events[:-1]]
    assert first["delta"] == {"role": "assistant", "content": None}
    (begun,) = begins["delta"]["tool_calls"]
    assert begun["index"] == 0
    assert begun["type"] == "function"
    assert begun["function"] == {"name": whole["function"]["name"], "arguments": ""}
    pieces = [each["delta"]["tool_calls"][0] for each in rest]
    assert all(set(piece) == {"index", "function"} and set(piece["function"]) == {"arguments"} for piece in pieces)
    assert "".join(piece["function"]["arguments"] for piece in pieces) == whole["function"]["arguments"]
    assert last["delta"] == {}
    assert last["finish_reason"] == "tool_calls"


def test_a_call_in_responses(demo: Served) -> None:
    body = {"input": "Which shapes are red?", "tools": response_tools(), **ONE}
    response = demo.post(RESPONSES, body).json()
    (item,) = response["output"]
    assert (item["type"], item["status"], response["status"]) == ("function_call", "completed", "completed")
    assert item["id"].startswith("fc_")
    assert item["call_id"].startswith("call_")
    assert fits_tool(json.loads(item["arguments"]))
    assert response["tools"] == [{**tool, "strict": True} for tool in response_tools()]
    assert response["tool_choice"] == "required"
    assert response["parallel_tool_calls"] is False
    events = streamed(demo, RESPONSES, body)
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    names = [name for name, _ in events]
    deltas = [data["delta"] for name, data in events if name == "response.function_call_arguments.delta"]
    begin = ["response.created", "response.in_progress", "response.output_item.added"]
    end = ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    assert names == [*begin, *["response.function_call_arguments.delta"] * len(deltas), *end]
    assert "".join(deltas) == events[-3][1]["arguments"] == item["arguments"]
    assert events[2][1]["item"]["arguments"] == ""
    assert all(data["output_index"] == 0 for name, data in events[2:-1])
    assert events[-1][1]["response"]["output"] == [events[-2][1]["item"]]


def test_a_call_in_messages(demo: Served) -> None:
    body = {"messages": QUESTION, "tools": anthropic_tools(), "tool_choice": ANY, "max_tokens": 200}
    message = demo.post(MESSAGES, body).json()
    (block,) = message["content"]
    assert (block["type"], message["stop_reason"]) == ("tool_use", "tool_use")
    assert block["id"].startswith("toolu_")
    assert fits_tool(block["input"])
    events = streamed(demo, MESSAGES, body)
    names = [name for name, _ in events]
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    begin = ["message_start", "content_block_start", "ping"]
    end = ["content_block_stop", "message_delta", "message_stop"]
    assert names == [*begin, *["content_block_delta"] * len(deltas), *end]
    assert events[1][1]["content_block"] == {**block, "id": events[1][1]["content_block"]["id"], "input": {}}
    assert json.loads("".join(delta["partial_json"] for delta in deltas)) == block["input"]
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_that_is_named_is_called_once(demo: Served, name: str) -> None:
    choice = {"type": "function", "function": {"name": name}}
    assert called(chat(demo, tool_choice=choice, parallel_tool_calls=True))[1]["function"]["name"] == name
    flat = {"input": "x", "tools": response_tools(), "tool_choice": {"type": "function", "name": name}}
    assert [item["name"] for item in demo.post(RESPONSES, flat).json()["output"]] == [name]
    body = {"messages": QUESTION, "tools": anthropic_tools(), "tool_choice": {"type": "tool", "name": name}}
    assert [block["name"] for block in demo.post(MESSAGES, body).json()["content"]] == [name]


def test_tools_that_are_not_allowed_are_not_called(demo: Served) -> None:
    tools = [{"type": "function", "function": {"name": "find"}}]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    assert called(chat(demo, tool_choice=allowed))[1]["function"]["name"] == "find"
    flat = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "find"}]}
    body = {"input": "x", "tools": response_tools(), "tool_choice": flat, "parallel_tool_calls": False}
    assert demo.post(RESPONSES, body).json()["output"][0]["name"] == "find"


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tool_choice": "none", "json_schema": SCHEMA}])
def test_no_tool_is_called_where_none_is_wanted(demo: Served, fields: dict[str, Any]) -> None:
    choice = chat(demo, max_tokens=60, **fields)["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert "<tool_call>" not in choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    assert "json_schema" not in fields or fits(choice["message"]["content"])


def test_an_answer_without_calls_may_have_a_form(demo: Served) -> None:
    message = chat(demo, tool_choice="auto", json_schema=SCHEMA)["choices"][0]["message"]
    assert all(fits_tool(json.loads(call["function"]["arguments"])) for call in message.get("tool_calls", []))
    assert "tool_calls" in message or fits(message["content"])


def test_a_call_that_is_cut_off_is_none(demo: Served) -> None:
    answer = chat(demo, max_tokens=60)
    whole = answer["usage"]["completion_tokens"]
    cut = chat(demo, max_tokens=whole - 12)["choices"][0]
    assert cut["finish_reason"] == "length"
    assert cut["message"]["content"] == ""
    assert "tool_calls" not in cut["message"]
    body = {"input": "Which shapes are red?", "tools": response_tools(), **ONE, "max_output_tokens": whole - 12}
    response = demo.post(RESPONSES, body).json()
    assert (response["status"], response["output"]) == ("incomplete", [])
    events = streamed(demo, RESPONSES, body)
    assert events[-2][1]["item"]["status"] == "incomplete"
    assert events[-1][0] == "response.incomplete"
    assert events[-1][1]["response"]["output"] == []
    message = {"messages": QUESTION, "tools": anthropic_tools(), "tool_choice": ANY, "max_tokens": whole - 12}
    assert demo.post(MESSAGES, message).json()["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_every_choice_has_calls_of_its_own(demo: Served, stream: bool) -> None:
    body = {"messages": QUESTION, "tools": chat_tools(), **ONE, "n": 3, "temperature": 3.0, "seed": 7}
    arguments = {0: "", 1: "", 2: ""}
    ids = set()
    if stream:
        for _, data in streamed(demo, CHAT, body)[:-1]:
            for choice in data["choices"]:
                for call in choice["delta"].get("tool_calls", []):
                    arguments[choice["index"]] += call["function"]["arguments"]
                    ids |= {call["id"]} if "id" in call else set()
    else:
        for choice in demo.post(CHAT, body).json()["choices"]:
            (call,) = choice["message"]["tool_calls"]
            arguments[choice["index"]] = call["function"]["arguments"]
            ids.add(call["id"])
    assert all(fits_tool(json.loads(each)) for each in arguments.values())
    assert len(ids) == 3


def test_a_conversation_with_calls_reads_only_what_is_new(demo: Served) -> None:
    """The client sends the arguments in white space and order of its own; the tool returns a picture."""
    question = user("What is in the picture?", encoded(noise(91, 480, 480), "PNG"))
    one = chat(demo, [question])
    assert one["usage"]["tiles_encoded"] == 10
    _, call = called(one)
    values = json.loads(call["function"]["arguments"])
    again = json.dumps(dict(reversed(values.items())), indent=2)
    sent = {
        "role": "assistant", "content": "",
        "tool_calls": [{**call, "function": {**call["function"], "arguments": again}}],
    }  # fmt: skip
    part = {"type": "image_url", "image_url": {"url": data_uri(encoded(noise(92, 480, 480), "PNG")), "detail": "low"}}
    result = {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "Look:"}, part]}
    two = chat(demo, [question, sent, result])
    assert two["usage"]["tiles"] == 11
    assert two["usage"]["tiles_encoded"] == 1
    assert cached(two) >= total(one) - END
    second, its_call = called(two)
    more = {"role": "tool", "tool_call_id": its_call["id"], "content": "3"}
    three = chat(demo, [question, sent, result, second, more], tool_choice="none", max_tokens=10)
    assert three["usage"]["tiles_encoded"] == 0
    assert cached(three) >= total(two) - END


def cached(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def total(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["total_tokens"])


def test_a_form_is_in_the_prompt_of_what_follows_the_results(demo: Served) -> None:
    """An answer after results is bound to a form that its question has to tell of."""
    call = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages = [
        *QUESTION,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    body = {"messages": messages, "tools": chat_tools(), "json_schema": SCHEMA, "tool_choice": "none"}
    counted = demo.post(f"{CHAT}/input_tokens", body).json()["input_tokens"]
    without = demo.post(f"{CHAT}/input_tokens", {**body, "format_in_prompt": False}).json()["input_tokens"]
    assert counted > without
    assert fits(demo.post(CHAT, body).json()["choices"][0]["message"]["content"])


def test_results_go_on_in_responses(demo: Served) -> None:
    asked: list[Any] = [{"role": "user", "content": "Which shapes are red?"}]
    fields = {"tools": response_tools(), **ONE}
    one = demo.post(RESPONSES, {"input": asked, **fields}).json()
    (item,) = one["output"]
    picture = {"type": "input_image", "image_url": data_uri(encoded(noise(93, 448, 448), "PNG"))}
    output = {"type": "function_call_output", "call_id": item["call_id"],
              "output": [{"type": "input_text", "text": "Look:"}, picture]}  # fmt: skip
    two = demo.post(RESPONSES, {"input": [*asked, item, output], **fields, "tool_choice": "none",
                                "max_output_tokens": 20})  # fmt: skip
    assert two.status_code == 200, two.text
    usage = two.json()["usage"]
    assert usage["images"] == 1
    assert usage["input_tokens_details"]["cached_tokens"] >= one["usage"]["total_tokens"] - END


def test_results_go_on_in_messages(demo: Served) -> None:
    fields = {"tools": anthropic_tools(), "max_tokens": 100}
    one = demo.post(MESSAGES, {"messages": QUESTION, **fields, "tool_choice": ANY}).json()
    (block,) = one["content"]
    data = base64.b64encode(encoded(noise(94, 448, 448), "PNG")).decode()
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    result = {
        "type": "tool_result",
        "tool_use_id": block["id"],
        "content": [{"type": "text", "text": "Look:"}, picture],
    }
    content = [result, {"type": "text", "text": "Go on."}]
    messages = [*QUESTION, {"role": "assistant", "content": one["content"]}, {"role": "user", "content": content}]
    two = demo.post(MESSAGES, {"messages": messages, **fields, "tool_choice": {"type": "none"}})
    assert two.status_code == 200, two.text
    usage = two.json()["usage"]
    assert usage["images"] == 1
    used = one["usage"]["input_tokens"] + one["usage"]["cache_read_input_tokens"] + one["usage"]["output_tokens"]
    assert usage["cache_read_input_tokens"] >= used - END
    told = {"messages": messages, "tools": anthropic_tools()}
    failed = [{**result, "is_error": True}, content[1]]
    with_error = {**told, "messages": [*messages[:-1], {"role": "user", "content": failed}]}
    counts = [demo.post(f"{MESSAGES}/count_tokens", each).json()["input_tokens"] for each in (told, with_error)]
    assert counts[0] == usage["input_tokens"] + usage["cache_read_input_tokens"] < counts[1]


def test_two_clients_at_once_call_their_own_tools(demo: Served) -> None:
    names: dict[str, str] = {}

    def ask(name: str) -> None:
        tools = [tool for tool in chat_tools() if tool["function"]["name"] == name]
        names[name] = called(chat(demo, tools=tools))[1]["function"]["name"]

    threads = [threading.Thread(target=ask, args=(name,)) for name in TOOLS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {name: name for name in TOOLS}


def test_calls_are_counted(demo: Served) -> None:
    before = demo.gauges["internvl_tool_calls_total"]
    chat(demo)
    assert demo.gauges["internvl_tool_calls_total"] == before + 1


def test_logprobs_of_calls_stand_beside_them(demo: Served) -> None:
    choice = chat(demo, logprobs=True)["choices"][0]
    spelt = "".join(token["token"] for token in choice["logprobs"]["content"])
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] in spelt


@pytest.mark.parametrize(
    "messages",
    [
        [*QUESTION, CALLED, RESULT],
        [*QUESTION, CALLED, {"role": "tool", "content": "x"}],
        [*QUESTION, {**CALLED, "content": "I look."}, RESULT, user("Go on.")],
        [*QUESTION, {"role": "assistant", "function_call": {"name": "find", "arguments": ""}},
         {"role": "function", "name": "find", "content": "x"}],
        [*QUESTION, {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "b"}]},
         {**RESULT, "tool_call_id": "b"}, RESULT],
        [*QUESTION, CALLED, RESULT, {"role": "assistant", "content": "It is"}],
    ],
    ids=["a result", "a result without id", "a question after it", "the old form", "in another order", "a beginning"],
)  # fmt: skip
def test_conversations_with_results_are_gone_on_with(demo: Served, messages: Any) -> None:
    assert demo.chat(messages, tools=chat_tools(), max_tokens=4)["choices"]
    assert demo.chat(messages, max_tokens=4)["choices"]  # some clients leave the tools out at last


def tool(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **more}}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a result without a call": ({"messages": [*QUESTION, RESULT]}, "messages"),
    "a result of another call": ({"messages": [*QUESTION, CALLED, {**RESULT, "tool_call_id": "b"}]}, "messages"),
    "two results of a call": ({"messages": [*QUESTION, CALLED, RESULT, RESULT]}, "messages"),
    "a call without a result": ({"messages": [*QUESTION, CALLED, user("x")]}, "messages"),
    "a call at the end": ({"messages": [*QUESTION, CALLED]}, "messages"),
    "a call of the user": ({"messages": [{**CALLED, "role": "user", "content": "x"}]}, "messages[0].role"),
    "arguments that are no JSON": (
        {"messages": [*QUESTION, {**CALLED, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}]},
        "messages[1].tool_calls[0].function.arguments",
    ),
    "arguments that are no object": (
        {"messages": [*QUESTION, {**CALLED, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "5"}}]}]},
        "messages[1].tool_calls[0].function.arguments",
    ),
    "a tool of another type": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "a tool without a function": ({"tools": [{"type": "function"}]}, "tools[0].function"),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    "a name with a blank": ({"tools": [tool(name="a b")]}, "tools[0].function.name"),
    "a name with a line end": ({"tools": [tool(), tool(name="a\nb")]}, "tools[1].function.name"),
    "parameters of another type": ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters"),
    "parameters that nothing fits": (
        {"tools": [tool(), tool(name="g", parameters={"properties": {"a": False}, "required": ["a"]})]},
        "tools[1].function.parameters",
    ),
    "two tools of one name": ({"tools": [tool(), tool()]}, "tools"),
    "too many tools": ({"tools": [tool(name=f"f{index}") for index in range(129)]}, "tools"),
    "a tool that is not there": (
        {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice",
    ),
    "a call of no tool": ({"tool_choice": "required"}, "tool_choice"),
    "an unknown choice": ({"tools": [tool()], "tool_choice": "perhaps"}, "tool_choice"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_used_is_refused_by_name(demo: Served, case: str, stream: bool) -> None:
    fields, param = WRONG[case]
    assert_refused(demo, CHAT, {"messages": QUESTION, "stream": stream, **fields}, param)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/responses", {"input": "x", "tools": [{"type": "function", "name": "a\nb"}]}, "tools[0].name"),
        ("/v1/messages", {"messages": QUESTION, "tools": [{"name": "a\nb", "input_schema": {}}]}, "tools[0].name"),
    ],
    ids=["responses", "messages"],
)
def test_a_wrong_name_of_a_tool_is_told_as_that(demo: Served, path: str, fields: dict[str, Any], param: str) -> None:
    response = demo.post(path, fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.get("param", param) == param
    assert error["message"].startswith(f"{param}: A tool has the name 'a\\nb'.")


USE = {"type": "tool_use", "id": "a", "name": "find", "input": {}}
USED = {"role": "assistant", "content": [USE]}
TOLD = {"type": "tool_result", "tool_use_id": "a", "content": "x"}
TEXT = {"type": "text", "text": "x"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            {"messages": [*QUESTION, USED, {"role": "user", "content": [TEXT, TOLD]}]},
            r"messages\[2\]\.content has other",
        ),
        ({"messages": [*QUESTION, USED, {"role": "user", "content": [TEXT]}]}, "no result of the call a"),
        ({"messages": [*QUESTION, USED]}, "no result of the call a"),
        ({"messages": [{"role": "user", "content": [USE]}]}, r"messages\[0\]\.content\[0\]\.type is tool_use"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": [TOLD]}]}, "type is tool_result"),
        ({"messages": [*QUESTION, {"role": "assistant", "content": [{**USE, "input": "x"}]}]}, "input is no object"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [{"name": "f", "input_schema": {"type": "frog"}}]}, r"tools\[0\]\.input_schema"),
        ({"tools": anthropic_tools(), "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name names g"),
        ({"tools": anthropic_tools(), "tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}}, "disable"),
        ({"tool_choice": {"type": "any"}}, "tool_choice asks"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_anthropics_shape(demo: Served, body: dict[str, Any], says: str, stream: bool) -> None:
    response = demo.post(MESSAGES, {"messages": QUESTION, "max_tokens": 9, "stream": stream, **body})
    assert response.status_code == 400
    found = response.json()
    assert found["type"] == "error"
    assert re.search(says, found["error"]["message"]), found


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "x"}, *QUESTION]}, "input"),
        ({"input": [*QUESTION, {"type": "function_call_output", "output": "x"}]}, "input[1].call_id"),
        ({"input": [*QUESTION, {"type": "function_call_output", "call_id": "a"}]}, "input[1].output"),
        ({"input": [*QUESTION, {"type": "function_call", "call_id": "a", "name": "f"}]}, "input[1].arguments"),
        ({"input": [*QUESTION, {"role": "tool", "content": "x"}]}, "input[1].role"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "tools": response_tools(), "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
    ],
)
def test_errors_in_responses_name_the_item(demo: Served, body: dict[str, Any], param: str) -> None:
    response = demo.post(RESPONSES, body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("layout", ["separate", "combined", "frames"])
def test_pictures_of_results_have_places_whatever_the_layout_is(demo: Served, layout: str) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": data_uri(encoded(noise(seed, 60, 60), "PNG")), "detail": "low"}}
        for seed in (96, 97)
    ]
    messages = [
        *QUESTION,
        {**CALLED, "tool_calls": [CALL, {**CALL, "id": "b"}]},
        {**RESULT, "tool_call_id": "b", "content": [parts[0], {"type": "text", "text": "and"}, parts[1]]},
        {**RESULT, "content": parts},
    ]
    answer = demo.chat(messages, layout=layout, max_tokens=4)
    assert (answer["usage"]["images"], answer["usage"]["tiles"]) == (4, 4)
