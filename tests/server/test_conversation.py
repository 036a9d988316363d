"""Turns put in order: results of tools by their calls, and answers with calls as the model writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import SentCall, TextPart, Turn
from internvl_gguf.server.content import sent_call
from internvl_gguf.server.conversation import conversation
from internvl_gguf.server.turns import answer_key
from internvl_gguf.session.tool_prompt import with_calls
from internvl_gguf.structured.tool_stream import parse_calls

QUESTION = Turn("user", (TextPart("x"),))
KEYS = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
CALLS = st.lists(st.tuples(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), ARGUMENTS), min_size=1, max_size=3)


@given(st.integers(1, 6).flatmap(lambda count: st.permutations(range(count))))
def test_results_come_in_the_order_of_the_calls(order: list[int]) -> None:
    calls = tuple(SentCall(f"call_{index}", "look", {}) for index in range(len(order)))
    results = [Turn("tool", (TextPart(str(index)),), answers=f"call_{index}") for index in order]
    turns = conversation([QUESTION, Turn("assistant", (), calls), *results], "messages")
    assert [turn.text for turn in turns[2:]] == [str(index) for index in range(len(order))]


def test_results_without_ids_are_those_of_the_calls_in_turn() -> None:
    calls = (SentCall("", "a", {}), SentCall("", "b", {}), SentCall("", "a", {}))
    results = [Turn("tool", (TextPart(text),), answers=name) for text, name in (("1", "a"), ("2", ""), ("3", "a"))]
    turns = conversation([QUESTION, Turn("assistant", (), calls), *results], "messages")
    assert [turn.text for turn in turns[2:]] == ["1", "2", "3"]


def test_neighbours_of_one_role_are_one_turn_with_all_calls() -> None:
    one, two = SentCall("1", "a", {}), SentCall("2", "b", {})
    results = [Turn("tool", (), answers="1"), Turn("tool", (), answers="2")]
    said = Turn("assistant", (TextPart("I look."),))
    turns = conversation(
        [QUESTION, said, Turn("assistant", (), (one,)), Turn("assistant", (), (two,)), *results], "input"
    )
    assert turns == (QUESTION, Turn("assistant", (TextPart("I look."),), (one, two)), *results)


@given(CALLS, st.text("abc \n", max_size=5))
def test_calls_are_written_as_the_model_writes_them(calls: list[tuple[str, dict[str, Any]]], text: str) -> None:
    before, found = parse_calls(with_calls(text, calls))
    assert before == text
    assert [(call.name, call.arguments) for call in found] == calls


@given(CALLS, st.integers(0, 4))
def test_an_answer_is_found_however_its_arguments_are_written(
    calls: list[tuple[str, dict[str, Any]]], indent: int
) -> None:
    again = [
        (name, json.loads(json.dumps(dict(reversed(values.items())), indent=indent, ensure_ascii=indent > 1)))
        for name, values in calls
    ]
    assert answer_key(b"", " text\n", again) == answer_key(b"", "text", calls)


def test_javascript_makes_no_difference_between_whole_numbers() -> None:
    one, two = {"a": [1.0, -0.0, 1e3]}, {"a": [1, 0, 1000]}
    assert answer_key(b"", "", [("f", one)]) == answer_key(b"", "", [("f", two)])
    assert answer_key(b"", "", [("f", {"a": 1.5})]) != answer_key(b"", "", [("f", {"a": 1})])


@pytest.mark.parametrize("arguments", ["{", "[]", "5", '{"a": NaN}', '{"a": "\\ud800"}', "[" * 100_000, None, 5, []])
def test_arguments_that_are_no_object_are_refused(arguments: object) -> None:
    with pytest.raises(RefusedRequestError) as caught:
        sent_call("id", "f", arguments, "messages[0].arguments")
    assert caught.value.param == "messages[0].arguments"


@pytest.mark.parametrize("arguments", ["", "{}", {}])
def test_no_arguments_are_none(arguments: object) -> None:
    assert sent_call(None, "f", arguments, "x.arguments") == SentCall("", "f", {})
