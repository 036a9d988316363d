"""Answers bound to a form: in all interfaces, whole and streamed, and what is said of forms that cannot be used."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.server.api_errors import RefusedRequestError, failure_of
from internvl_gguf.server.chat_request import AnswerWishes, FormWish
from internvl_gguf.server.checked_wishes import checked
from tests.support.pictures import encoded, noise
from tests.support.served import DESCRIPTION, Served, assert_refused, assistant, served, streamed, user
from tests.support.wishes import SCHEMA, chat_tools, fits

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "seen", "schema": SCHEMA, "strict": True}}
FLAT = {"type": "json_schema", "name": "seen", "schema": SCHEMA}
QUESTION = [{"role": "user", "content": "What is in the picture?"}]

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": QUESTION, "response_format": RESPONSE_FORMAT}),
    "responses": (RESPONSES, {"input": "What is in the picture?", "text": {"format": FLAT}}),
    "messages": (MESSAGES, {"messages": QUESTION, "output_config": {"format": FLAT}}),
    "messages before": (MESSAGES, {"messages": QUESTION, "output_format": {"type": "json_schema", "schema": SCHEMA}}),
}
"""A question with a schema in each interface."""


def text_of(path: str, answer: dict[str, Any]) -> str:
    if path == CHAT:
        return str(answer["choices"][0]["message"]["content"])
    parts = answer["output"][0]["content"] if path == RESPONSES else answer["content"]
    return str(parts[0]["text"])


def streamed_text(path: str, events: list[tuple[str | None, Any]]) -> str:
    if path == CHAT:
        pieces = [data["choices"][0]["delta"].get("content") for _, data in events[:-1] if data["choices"]]
    elif path == RESPONSES:
        pieces = [data["delta"] for name, data in events if name == "response.output_text.delta"]
    else:
        pieces = [data["delta"]["text"] for name, data in events if name == "content_block_delta"]
    return "".join(filter(None, pieces))


@pytest.mark.parametrize("interface", ASKED)
def test_a_schema_holds_whole_and_streamed(demo: Served, interface: str) -> None:
    path, body = ASKED[interface]
    response = demo.post(path, body)
    assert response.status_code == 200, response.text
    text = text_of(path, response.json())
    assert fits(text)
    assert streamed_text(path, streamed(demo, path, body)) == text


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "response_format": ({"response_format": RESPONSE_FORMAT}, "json"),
    "json_object with a schema": ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "json"),
    "json_schema": ({"json_schema": SCHEMA}, "json"),
    "structured_outputs.json": ({"structured_outputs": {"json": SCHEMA}}, "json"),
    "structured_outputs.regex": ({"structured_outputs": {"regex": "[0-9]{3}"}}, "[0-9]{3}"),
    "structured_outputs.choice": ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
    "structured_outputs.grammar": ({"structured_outputs": {"grammar": 'start: "a" | "b"'}}, "a|b"),
    "guided_json": ({"guided_json": SCHEMA}, "json"),
    "guided_json as text": ({"guided_json": json.dumps(SCHEMA)}, "json"),
    "guided_regex": ({"guided_regex": "[xyz]{2}"}, "[xyz]{2}"),
    "guided_choice": ({"guided_choice": ["one", "two"]}, "one|two"),
    "guided_grammar": ({"guided_grammar": 'start: "a" | "b"'}, "a|b"),
    "grammar": ({"grammar": 'root ::= "left" | "right"'}, "left|right"),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_in_the_words_of_other_runtimes(demo: Served, name: str) -> None:
    fields, pattern = FORMS[name]
    choice = demo.chat("What is in the picture?", **fields)["choices"][0]
    assert choice["finish_reason"] == "stop"
    text = choice["message"]["content"]
    assert fits(text) if pattern == "json" else re.fullmatch(pattern, text)


def test_fields_of_other_runtimes_are_taken_by_all_interfaces(demo: Served) -> None:
    response = demo.post(RESPONSES, {"input": "x", "json_schema": SCHEMA}).json()
    assert fits(text_of(RESPONSES, response))
    message = demo.post(MESSAGES, {"messages": QUESTION, "guided_choice": ["yes", "no"]}).json()
    assert text_of(MESSAGES, message) in ("yes", "no")


def test_any_object_is_one(demo: Served) -> None:
    choice = demo.chat("x", response_format={"type": "json_object"}, max_tokens=20)["choices"][0]
    assert choice["message"]["content"].startswith("{")
    assert choice["finish_reason"] == "length" or isinstance(json.loads(choice["message"]["content"]), dict)


def test_text_and_nothing_ask_for_nothing(demo: Served, example: bytes) -> None:
    question = [user("What is in the picture?", example)]
    nothing: list[dict[str, Any]] = [
        {"response_format": {"type": "text"}}, {"structured_outputs": {}}, {"grammar": ""}, {"tools": []},
    ]  # fmt: skip
    for fields in nothing:
        assert demo.chat(question, **fields)["choices"][0]["message"]["content"] == DESCRIPTION


def test_an_answer_that_is_cut_says_so_and_is_given_as_it_is(demo: Served) -> None:
    answer = demo.chat("x", response_format=RESPONSE_FORMAT, max_tokens=3)
    assert "notices" not in answer
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith("{")
    assert not choice["message"]["content"].endswith("}")


def test_every_choice_holds(demo: Served) -> None:
    answer = demo.chat("x", response_format=RESPONSE_FORMAT, n=3, temperature=2.0, seed=5)
    assert all(fits(choice["message"]["content"]) for choice in answer["choices"])


def test_the_prompt_shows_the_form_unless_it_is_not_to(demo: Served) -> None:
    def tokens(**fields: Any) -> int:
        found = demo.post(f"{CHAT}/input_tokens", {"messages": QUESTION, **fields}).json()["input_tokens"]
        assert isinstance(found, int)
        return found

    plain, shown = tokens(), tokens(response_format=RESPONSE_FORMAT)
    assert plain < shown
    assert tokens(response_format=RESPONSE_FORMAT, format_in_prompt=False) == plain
    described = {**RESPONSE_FORMAT, "json_schema": {"schema": SCHEMA, "description": "What the picture shows."}}
    assert tokens(response_format=described) > shown


@pytest.mark.parametrize("in_prompt", [True, False])
def test_a_second_turn_reads_only_what_is_new(demo: Served, in_prompt: bool) -> None:
    """Clients send the question back without what its prompt said of the form."""
    question = [user("What is in the picture?", encoded(noise(81 + in_prompt, 480, 480), "PNG"))]
    fields = {"response_format": RESPONSE_FORMAT, "format_in_prompt": in_prompt}
    one = demo.chat(question, **fields)
    assert one["usage"]["tiles_encoded"] == one["usage"]["tiles"] > 1
    said = one["choices"][0]["message"]["content"]
    more: dict[str, Any]
    for more in (fields, {}):
        two = demo.chat([*question, assistant(said), user("Which colour is it?")], **more)
        assert two["usage"]["tiles_encoded"] == 0
        # Of the answer the last tokens are not known: they had to follow, and nothing was to be said after them.
        assert two["usage"]["prompt_tokens_details"]["cached_tokens"] >= (
            one["usage"]["prompt_tokens"] + one["usage"]["completion_tokens"] - 4
        )


def test_a_picture_is_cut_again_where_the_form_leaves_less_room(cache_folder: Path) -> None:
    """It was cut when the prompt had no form, and found again with all its tiles."""
    question = [user("What is in the picture?", encoded(noise(84, 480, 480), "PNG"))]
    wordy = {**SCHEMA["properties"]["colour"], "description": "The colour of the largest shape. " * 12}
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "colour": wordy}}
    with served(["demo"], "-c", "512", "--max-tokens", "40") as server:
        plain = server.chat(question)
        assert plain["usage"]["tiles"] == 10
        bound = server.chat(question, json_schema=schema)
    assert fits(bound["choices"][0]["message"]["content"])
    assert bound["usage"]["tiles"] < 10
    assert bound["notices"]


def test_one_question_with_two_forms_goes_on_as_each_was_asked(demo: Served) -> None:
    question = [user("What is in the picture?", encoded(noise(83, 480, 480), "PNG"))]
    forms: list[dict[str, Any]] = [{"guided_choice": ["yes", "no"]}, {"guided_choice": ["left", "right", "above"]}]
    asked = [(form, demo.chat(question, **form)) for form in forms]
    for form, one in asked:
        said = one["choices"][0]["message"]["content"]
        body = {"messages": [*question, assistant(said), user("x")], **form, "format_in_prompt": False}
        usage = one["usage"]
        two = demo.post(f"{CHAT}/input_tokens", body).json()["input_tokens"]
        assert 0 < two - usage["prompt_tokens"] - usage["completion_tokens"] < 20


def test_two_clients_at_once_do_not_bind_each_other(demo: Served, example: bytes) -> None:
    question = [user("What is in the picture?", example)]
    bound: list[str] = []

    def ask() -> None:
        answer = demo.chat(question, response_format=RESPONSE_FORMAT)
        bound.append(answer["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    free = [demo.chat(question)["choices"][0]["message"]["content"] for _ in range(3)]
    for thread in threads:
        thread.join()
    assert free == [DESCRIPTION] * 3
    assert len(bound) == 3
    assert all(map(fits, bound))


def test_logprobs_spell_a_bound_answer(demo: Served) -> None:
    choice = demo.chat("x", response_format=RESPONSE_FORMAT, logprobs=True)["choices"][0]
    assert "".join(token["token"] for token in choice["logprobs"]["content"]) == choice["message"]["content"]


def test_a_response_repeats_the_form(demo: Served) -> None:
    response = demo.post(RESPONSES, {"input": "x", "text": {"format": FLAT}}).json()
    assert response["text"]["format"] == FLAT


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


EXPLODES = "start: A\nA: " + " & ".join(f"/(?s:.*){'ab' * count}(?s:.*)/" for count in range(1, 30))
COMBINED = {"allOf": [{"type": "string", "pattern": f"^.*{'ab' * count}.*$"} for count in range(1, 30)]}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "two forms": ({"response_format": RESPONSE_FORMAT, "grammar": 'root ::= "a"'}, "grammar"),
    "two in one": ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice"),
    "an unknown type": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "a text for a format": ({"response_format": "json"}, "response_format"),
    "no schema": ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
                  "response_format.json_schema.schema"),
    "an unknown setting": ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    "a type that is none": ({"json_schema": {"type": "frog"}}, "json_schema"),
    "a remote reference": ({"json_schema": {"$ref": "https://example.org/x.json"}}, "json_schema"),
    "a schema that nothing fits": ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 1}}, "json_schema"),
    "a schema without end": ({"json_schema": {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
                             "json_schema"),
    "a schema that is too deep": ({"json_schema": nested(80)}, "json_schema"),
    "JSON that is none": ({"guided_json": "{"}, "guided_json"),
    "no choices": ({"guided_choice": []}, "guided_choice"),
    "a choice twice": ({"guided_choice": ["a", "a"]}, "guided_choice"),
    "a wrong grammar": ({"grammar": "root ::= ("}, "grammar"),
    "a grammar that explodes": ({"grammar": EXPLODES}, "grammar"),
    "a schema in a grammar that explodes": ({"grammar": f"start: %json {json.dumps(COMBINED)}"}, "grammar"),
    "a wrong expression": ({"guided_regex": "(a"}, "guided_regex"),
    "half an escape": ({"structured_outputs": {"regex": "a\\"}}, "structured_outputs.regex"),
    "a form of an answer that was begun": ({"messages": [*QUESTION, assistant("It")], "json_schema": SCHEMA},
                                           "json_schema"),
    "a grammar beside tools": ({"grammar": 'root ::= "a"', "tools": chat_tools()}, "grammar"),
    "a word for a switch": ({"json_schema": SCHEMA, "format_in_prompt": "no"}, "format_in_prompt"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_used_is_refused_by_name(demo: Served, case: str, stream: bool) -> None:
    fields, param = WRONG[case]
    if "explodes" in case:  # its trial takes longer than a stream waits with its status; what it found is remembered
        assert_refused(demo, CHAT, {"messages": QUESTION, **fields}, param)
    assert_refused(demo, CHAT, {"messages": QUESTION, "stream": stream, **fields}, param)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (RESPONSES, {"input": "x", "text": {"format": {**FLAT, "schema": {"type": "frog"}}}}),
        (MESSAGES, {"messages": QUESTION, "output_format": {"type": "json_schema", "schema": {"type": "frog"}}}),
        (MESSAGES, {"messages": QUESTION, "output_config": {"format": FLAT, "colour": "red"}}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_the_shape_of_the_interface(demo: Served, path: str, fields: dict[str, Any], stream: bool) -> None:
    response = demo.post(path, {"stream": stream, **fields})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert ("param" in error) == (path == RESPONSES)
    assert re.search(r"text\.format\.schema|output_format\.schema|output_config\.colour", error["message"])


@pytest.mark.parametrize(
    ("path", "name", "home"),
    [
        (CHAT, "choices", "structured_outputs.choice"),
        (RESPONSES, "choices", "structured_outputs.choice"),
        (MESSAGES, "regex", "structured_outputs.regex"),
        (CHAT, "schema", "response_format"),
        (CHAT, "text", "response_format"),
        (RESPONSES, "response_format", "text.format"),
        (MESSAGES, "response_format", "output_config.format"),
        (RESPONSES, "max_tokens", "max_output_tokens"),
        (MESSAGES, "max_completion_tokens", "max_tokens"),
        (MESSAGES, "stop", "stop_sequences"),
        (CHAT, "system", "messages"),
        (RESPONSES, "messages", "input"),
    ],
)
def test_a_wish_in_the_words_of_another_interface_is_shown_home(demo: Served, path: str, name: str, home: str) -> None:
    asked = {"input": "x"} if path == RESPONSES else {"messages": QUESTION}
    response = demo.post(path, {**asked, name: ["a", "b"]})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"There is no field {name}. Give it as {home}."


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (
            {"guided_choice": []},
            'guided_choice is empty. Give the texts of which the answer is to be one: ["red", "blue"].',
        ),
        ({"guided_choice": [None]}, "guided_choice has null. Give texts or numbers."),
        ({"guided_regex": ""}, "guided_regex is ''. Give a regular expression: \"\\\\d{4}-\\\\d{2}\"."),
        ({"grammar": "{}"}, "grammar is JSON, not a grammar. Give a JSON schema as json_schema, or"),
    ],
    ids=str,
)
def test_errors_of_forms_are_in_json_not_in_python(demo: Served, form: dict[str, Any], told: str) -> None:
    response = demo.post(CHAT, {"messages": QUESTION, **form})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(told)


def test_others_are_answered_while_a_grammar_is_tried(demo: Served) -> None:
    """llguidance holds Python's lock: tried in the server, this grammar stopped every request."""
    explodes = EXPLODES.replace("ab", "cd")
    refused: list[int] = []
    asking = threading.Thread(
        target=lambda: refused.append(demo.post(CHAT, {"messages": QUESTION, "grammar": explodes}).status_code)
    )
    asking.start()
    while asking.is_alive():
        assert demo.get("/health").status_code == 200
    assert refused == [400]


def test_without_the_library_a_form_is_a_501_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(RefusedRequestError) as caught:
        checked(AnswerWishes(FormWish("schema", SCHEMA, "json_schema")))
    failure = failure_of(caught.value)
    assert failure.status == 501
    assert "llguidance" in failure.message
