"""What of an answer is compared: values of forms, options, calls, boxes, and final answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.boxes.grammar import box_format
from internvl_gguf.judging import JudgedQuestion, answer_key
from internvl_gguf.structured import format_of
from internvl_gguf.types import Box, Reply, ToolCall
from tests.judging.answers import FREE, box, reply

OPTIONS = "What is on the table?\nA. a cat\nB. the dog\nC. 3.0\nAnswer with the option's letter."


class Person(pydantic.BaseModel):
    name: str
    age: float


@dataclass
class Point:
    x: int
    y: int


class Colour(Enum):
    RED = "r"


def are_equal(question: JudgedQuestion, one: Reply, other: Reply) -> bool:
    first, second = answer_key(question, one), answer_key(question, other)
    assert first is not None
    assert second is not None
    assert first.is_same(second) == second.is_same(first)
    return first.is_same(second)


def schema_question(schema: Any = True) -> JudgedQuestion:
    return JudgedQuestion("Read it.", format=format_of(schema=schema))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"a": 1, "b": [2.0, True]}, {"b": [2, True], "a": 1.0}, True),
        ({"sum": 0.1 + 0.2}, {"sum": 0.3}, True),
        ({"sum": 0.31}, {"sum": 0.3}, False),
        ({"n": 1}, {"n": True}, False),
        ({"n": 0}, {"n": None}, False),
        ([1, 2], [2, 1], False),
        ({"name": "ACME  Inc"}, {"name": "Acme Inc"}, True),
        ({"id": "007"}, {"id": "7"}, False),
        ({"n": 12345678901234567890}, {"n": 12345678901234567891}, False),
        (float("nan"), float("nan"), True),
        (Person(name="Ann", age=3), Person(name="ann", age=3.0), True),
        (Point(1, 2), Point(1, 2), True),
        (Point(1, 2), Point(2, 1), False),
    ],
)
def test_values_of_a_schema_are_compared_as_values(one: Any, other: Any, is_same: bool) -> None:
    assert are_equal(schema_question(), reply("{}", parsed=one), reply("[]", parsed=other)) is is_same


def test_null_is_a_value_and_a_missing_value_is_none() -> None:
    question = schema_question({"type": ["null", "integer"]})
    assert are_equal(question, reply("null"), reply(" null\n"))
    assert answer_key(question, reply('{"a": ', reason="length")) is None


def test_a_value_that_json_cannot_hold_is_compared_by_its_text() -> None:
    question, value = schema_question(), object()
    assert are_equal(question, reply('{"a": 1}', parsed=value), reply('{"A":  1}'.replace("  ", " "), parsed=object()))
    assert not are_equal(question, reply('{"a": 1}', parsed=value), reply('{"a": 2}', parsed=value))


def test_choices_are_exact() -> None:
    question = JudgedQuestion("Which?", format=format_of(choices=["a", "A", "10", 10.5]))
    assert not are_equal(question, reply("a", parsed="a"), reply("A", parsed="A"))
    assert are_equal(question, reply("a", parsed="a"), reply(" a", parsed="a"))
    coloured = JudgedQuestion("Which?", format=format_of(choices=Colour))
    assert are_equal(coloured, reply("r", parsed=Colour.RED), reply("r", parsed=Colour.RED))


def test_a_grammar_leaves_the_whole_text_to_compare() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    question = JudgedQuestion("Write it.", format=format_of(regex=".*"))
    assert are_equal(question, reply(long, parsed=long), reply(long.upper(), parsed=long.upper()))
    assert not are_equal(question, reply("the answer is 3"), reply("Answer: 3"))


def test_calls_are_compared_by_name_and_arguments() -> None:
    def calls(*given: tuple[str, dict[str, Any]]) -> Reply:
        made = (ToolCall(f"call_{place}", name, each, place) for place, (name, each) in enumerate(given))
        return reply("I look it up.", calls=tuple(made))

    find = ("find", {"what": "cat", "n": 1})
    assert are_equal(FREE, calls(find, ("count", {})), calls(("count", {}), ("find", {"n": 1.0, "what": "Cat"})))
    assert not are_equal(FREE, calls(find), calls(find, find))
    assert not are_equal(FREE, calls(find), reply("1"))


@pytest.mark.parametrize(
    "answer",
    ["B", "(B)", "B.", "b) the dog", "**B**", "Answer: \\boxed{\\text{B}}", "dog", "The answer is B. So.", "Option B"],
)
def test_an_option_is_named_by_its_letter_or_its_text(answer: str) -> None:
    assert are_equal(JudgedQuestion(OPTIONS), reply(answer), reply("B: it lies there"))
    assert not are_equal(JudgedQuestion(OPTIONS), reply(answer), reply("C"))


@pytest.mark.parametrize(
    "prompt", ["Which? (A) cat (B) dog (C) 3", "Which?\nA) cat\nB) dog", "哪个？\nA．猫\nB．dog", OPTIONS]
)
def test_options_are_found_as_they_are_written(prompt: str) -> None:
    assert are_equal(JudgedQuestion(prompt), reply("B. dog"), reply("dog"))


def test_a_letter_is_no_option_where_the_question_has_none() -> None:
    assert not are_equal(FREE, reply("B. Smith"), reply("B. Jones"))
    assert are_equal(JudgedQuestion(OPTIONS), reply("A cat"), reply("A"))
    assert not are_equal(JudgedQuestion(OPTIONS), reply("D"), reply("A"))


def test_boxes_are_compared_by_label_picture_and_place() -> None:
    cat, dog = box("cat", 0, 0, 100, 100), box("dog", 500, 500, 900, 900)
    assert are_equal(FREE, reply("..", boxes=(cat, dog)), reply(boxes=(dog, box("Cat", 0, 10, 100, 110))))
    assert not are_equal(FREE, reply(boxes=(cat,)), reply(boxes=(box("cat", 0, 50, 100, 150),)))
    assert not are_equal(FREE, reply(boxes=(cat,)), reply(boxes=(box("cat", 0, 0, 100, 100, image=1),)))
    assert not are_equal(FREE, reply(boxes=(cat,)), reply(boxes=(cat, cat)))
    assert not are_equal(FREE, reply(boxes=(cat, dog)), reply(boxes=(cat, cat)))


def test_boxes_are_matched_one_to_one_where_the_nearest_is_wanted_twice() -> None:
    wide = (box("cat", 0, 0, 100, 100), box("cat", 0, 0, 100, 60))
    near = (box("cat", 0, 0, 100, 80), box("cat", 0, 0, 100, 160))
    assert are_equal(FREE, reply(boxes=wide), reply(boxes=near))
    assert are_equal(FREE, reply(boxes=wide), reply(boxes=near[::-1]))


def test_boxes_without_area_are_equal_only_to_themselves() -> None:
    line = box("line", 5, 5, 5, 90)
    assert are_equal(FREE, reply(boxes=(line,)), reply(boxes=(line,)))
    assert not are_equal(FREE, reply(boxes=(line,)), reply(boxes=(box("line", 5, 5, 5, 91),)))


def test_an_answer_of_the_form_of_boxes_without_any_has_nothing_to_compare() -> None:
    question = JudgedQuestion("Find it.", format=box_format())
    assert answer_key(question, reply("<ref>cat", reason="length")) is None


def test_a_final_answer_counts_more_than_boxes_on_the_way_to_it() -> None:
    seen = (box("cat", 0, 0, 100, 100),)
    assert are_equal(FREE, reply("I see it.\nAnswer: 3", boxes=seen), reply("Answer: 3"))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_any_value_equals_itself(value: Any) -> None:
    key = answer_key(schema_question(), reply("null", parsed=value))
    assert key is not None
    assert key.is_same(key)
    assert hash(key) == hash(answer_key(schema_question(), reply("null", parsed=value)))


boxes = st.builds(
    lambda left, top, width, height: box("x", left, top, left + width, top + height),
    *[st.integers(0, 20)] * 2,
    *[st.integers(0, 20)] * 2,
)


@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=4), st.randoms())
def test_boxes_are_equal_either_way_round_and_in_any_order(one: list[Box], other: list[Box], random: Any) -> None:
    if not one or not other:
        return
    shuffled = random.sample(other, len(other))
    is_same = are_equal(FREE, reply(boxes=tuple(one)), reply(boxes=tuple(other)))
    assert is_same == are_equal(FREE, reply(boxes=tuple(one)), reply(boxes=tuple(shuffled)))
