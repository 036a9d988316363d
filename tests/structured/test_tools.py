"""Tools from functions and dicts: what the model is told of them, and how it calls them."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import functools
import json
from typing import Annotated, Any, Literal

import pydantic
import pytest

from internvl_gguf.errors import InvalidRequestError, ToolError
from internvl_gguf.structured import Tool, tools_of


class Place(pydantic.BaseModel):
    x: int
    y: int = 0


@dataclasses.dataclass
class Span:
    days: int


def weather(
    city: str,
    days: int = 3,
    unit: Literal["C", "F"] = "C",
    when: datetime.date | None = None,
    place: Place | None = None,
) -> str:
    """Tell the weather.

    It may be wrong.

    Args:
        city: name of
            the city
        days: how many
    """
    return f"{city} {days} {unit} {when!r} {place!r}"


def numpy_style(a: int, b: str) -> None:
    """Do it.

    Parameters
    ----------
    a : int
        the first
    b : str
        the second
    """


def reST_style(a: int) -> None:  # noqa: N802
    """Do it.

    :param a: the first
    """


def plain(a, b=2):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return [a, b]


def first_by_position(a: int, /, b: Annotated[list[int], "some numbers"], *, c: Span | None = None) -> Any:
    return a, b, c


def of(function: Any) -> Tool:
    return tools_of([function])[0]


def test_a_function_is_described_by_its_signature_and_docstring() -> None:
    tool = of(weather)
    assert tool.to_dict() == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather.\n\nIt may be wrong.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "name of the city"},
                    "days": {"type": "integer", "description": "how many", "default": 3},
                    "unit": {"type": "string", "default": "C", "enum": ["C", "F"]},
                    "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
                    "place": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}], "default": None},
                },
                "required": ["city"],
                "$defs": {
                    "Place": {
                        "type": "object",
                        "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}},
                        "required": ["x"],
                    }
                },
            },
        },
    }
    assert "\n" not in json.dumps(tool.to_dict(), ensure_ascii=False)
    assert list(tool.parameters["properties"]["city"]) == ["type", "description"]


@pytest.mark.parametrize("function", [numpy_style, reST_style], ids=["numpy", "reST"])
def test_docstrings_of_other_styles_are_read(function: Any) -> None:
    assert of(function).description == "Do it."
    assert of(function).parameters["properties"]["a"] == {"type": "integer", "description": "the first"}


def test_parameters_without_hints_take_any_json() -> None:
    tool = of(plain)
    assert tool.parameters == {"type": "object", "properties": {"a": {}, "b": {"default": 2}}, "required": ["a"]}
    assert tool.call({"a": {"x": [1]}}) == [{"x": [1]}, 2]


def test_values_arrive_in_the_types_of_the_signature() -> None:
    assert of(weather).call({"city": "Oslo", "when": "2024-01-02", "place": {"x": 1}}) == (
        "Oslo 3 C datetime.date(2024, 1, 2) Place(x=1, y=0)"
    )
    tool = of(first_by_position)
    assert tool.parameters["properties"]["b"]["description"] == "some numbers"
    assert tool.call({"a": 1, "b": [2], "c": {"days": 3}}) == (1, [2], Span(3))
    assert tool.call({"a": 1, "b": []}) == (1, [], None)


def test_names_that_pydantic_has_are_names_of_parameters() -> None:
    def odd(model_config: int, schema: str, _private: int = 1, self: int = 2, copy: int = 3) -> Any:
        return model_config, schema, _private, self, copy

    assert list(of(odd).parameters["properties"]) == ["model_config", "schema", "_private", "self", "copy"]
    assert of(odd).call({"model_config": 1, "schema": "s", "copy": 9}) == (1, "s", 1, 2, 9)


def test_methods_classes_and_partials_are_tools() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        def price(self, thing: str) -> str:
            return f"{self.name}: {thing}"

    assert of(Shop("a").price).call({"thing": "tea"}) == "a: tea"
    assert of(Shop).call({"name": "b"}).name == "b"
    assert of(Span).call({"days": 2}) == Span(2)
    bound = of(functools.partial(weather, days=1))
    assert bound.name == "weather"
    assert bound.call({"city": "Oslo"}).startswith("Oslo 1")


def test_a_coroutine_is_run_to_its_end_in_a_loop_or_without_one() -> None:
    async def later(a: int) -> int:
        await asyncio.sleep(0)
        return a + 1

    async def inside() -> Any:
        return of(later).call({"a": 2})

    assert of(later).call({"a": 1}) == 2
    assert asyncio.run(inside()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "city: Field required"),
        ({"city": 3}, "city: Input should be a valid string"),
        ({"city": "a", "unit": "K"}, "unit: Input should be 'C' or 'F'"),
        ({"city": "a", "colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"city": "a", "place": {}}, "place.x: Field required"),
        ([1], "are [1]"),
        ({"city": object()}, "are no JSON"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_arguments_that_do_not_fit_are_told_in_words_for_the_model(arguments: Any, words: str) -> None:
    with pytest.raises(ToolError, match="The arguments of weather") as caught:
        of(weather).call(arguments)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_tool_that_raises_says_what_and_keeps_the_cause() -> None:
    def fails(a: int) -> None:
        raise ValueError(f"no {a}\nat all")

    async def fails_later() -> None:
        raise KeyError("x")

    with pytest.raises(ToolError) as caught:
        of(fails).call({"a": 1})
    assert caught.value.message == "The tool fails failed: ValueError: no 1 at all"
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ToolError, match="KeyError"):
        of(fails_later).call({})


def test_dicts_of_openai_are_tools_without_a_function() -> None:
    given = {
        "type": "function",
        "function": {
            "name": "get-it",
            "description": "Gets it.",
            "strict": True,
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        },
    }
    tool = of(given)
    assert (tool.name, tool.description) == ("get-it", "Gets it.")
    assert tool.parameters == given["function"]["parameters"]  # type: ignore[index]
    with pytest.raises(ToolError, match="no function"):
        tool.call({"a": 1})
    assert of({"type": "function", "function": {"name": "f"}}).parameters == {"type": "object", "properties": {}}
    own = Tool("own", "Own.", {"properties": {"a": {"type": "integer"}}}, lambda a: a + 1)
    assert tools_of([own]) == (own,)
    assert own.call({"a": 1}) == 2


def _args(*given: int) -> None: ...


def _keywords(**given: int) -> None: ...


def _no_json(given: object, other: asyncio.Lock) -> None: ...


def _unknown(given: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def _generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([lambda a: a], "a lambda"),
        ([_args], "takes *given"),
        ([_keywords], "takes **given"),
        ([_no_json], "a parameter without a JSON form"),
        ([_unknown], "Nowhere"),
        ([_generator], "generator"),
        ([weather, weather], "Two tools have the name weather"),
        ([3], "A tool is 3"),
        ("weather", "tools is 'weather'"),
        ({"name": "f"}, "tools is a dict"),
        (weather, "tools is a function"),
        ([{"name": "f", "input_schema": {}}], "another shape"),
        ([{"type": "function", "function": {}}], "no name"),
        ([{"type": "function", "function": {"name": "a b"}}], "'a b'"),
        ([{"type": "function", "function": {"name": "x" * 65}}], "A tool has the name"),
        ([{"type": "function", "function": {"name": "f", "parameters": 3}}], "The parameters of f are 3"),
        ([{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}], "of the type 'array'"),
        ([{"type": "function", "function": {"name": "f", "description": 3}}], "The description of f is 3"),
        (
            [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"properties": {"a": {"not": {"const": 1}}}}},
                }
            ],
            "Tool f: The schema has `not` at #/properties/a",
        ),
        ([Tool(f"t{i}") for i in range(129)], "more than 128 tools"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_tool_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        tools_of(given)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
