"""Types, the short form and choices as what an answer is bound to, and what an answer then is."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import random
import subprocess
import sys
import typing
import uuid
from typing import Annotated, Any, Literal

import pydantic
import pytest

from internvl_gguf.errors import InvalidAnswerError, InvalidRequestError
from internvl_gguf.structured import format_of
from internvl_gguf.structured.constraint import byte_tokenizer, matches, new_matcher


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(description="what was bought")
    price: decimal.Decimal = pydantic.Field(ge=0)


class Receipt(pydantic.BaseModel):
    """A receipt."""

    items: list[Item]
    day: datetime.date
    total: float | None = None


class Node(pydantic.BaseModel):
    value: int
    next: Node | None = None


class Even(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("that is odd")
        return number


class Broken(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def fails(cls, number: int) -> int:
        raise KeyError(number)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Size(typing.TypedDict):
    width: int
    notes: typing.NotRequired[list[str]]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    THREE = 3


class Odd(enum.Enum):
    PAIR = (1, 2)


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("given", "text", "value"),
    [
        (Item, '{"name": "tea", "price": 1.50}', Item(name="tea", price=decimal.Decimal("1.5"))),
        (
            Receipt,
            '{"items": [{"name": "tea", "price": 2}], "day": "2024-02-29"}',
            Receipt(items=[Item(name="tea", price=decimal.Decimal(2))], day=datetime.date(2024, 2, 29)),
        ),
        (Node, '{"value": 1, "next": {"value": 2, "next": null}}', Node(value=1, next=Node(value=2))),
        (Point, '{"x": 1}', Point(1)),
        (Size, '{"width": 1, "notes": ["a"]}', {"width": 1, "notes": ["a"]}),
        (list[Size], '[{"width": 1}]', [{"width": 1}]),
        (Size | None, "null", None),
        (Annotated[list[Size], pydantic.Field(min_length=1)], '[{"width": 1}]', [{"width": 1}]),
        (list[Point], '[{"x": 1, "y": 2}]', [Point(1, 2)]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[Literal["a", "b"], int], '{"b": 1}', {"b": 1}),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (set[int], "[1, 1, 2]", {1, 2}),
        (Literal["a", 1], '"a"', "a"),
        (Colour, '"red"', Colour.RED),
        (int, "3", 3),
        (str | None, "null", None),
        (Annotated[int, pydantic.Field(ge=3)], "3", 3),
        (uuid.UUID, '"12345678-1234-5678-1234-567812345678"', uuid.UUID("12345678-1234-5678-1234-567812345678")),
        (Pet, '{"kind": "dog", "name": "Rex"}', Dog(kind="dog", name="Rex")),
        (Any, "[1]", [1]),
    ],
    ids=str,
)
def test_an_answer_to_a_type_is_an_instance_of_it(given: Any, text: str, value: object) -> None:
    made = format_of(schema=given)
    assert matches(made.grammar, text)
    assert made.parse(text) == value
    assert made.parse(f" {text}\n") == value


def test_an_answer_to_a_model_has_its_keys_and_no_others() -> None:
    grammar = format_of(schema=Item).grammar
    assert not matches(grammar, '{"name": "tea", "price": 1, "colour": "red"}')
    assert not matches(grammar, '{"name": "tea", "price": -1}')


@pytest.mark.parametrize("given", [Receipt, Node, list[Point], Size, dict[str, int], Pet, Colour], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_masks_allow_is_an_instance(given: Any, seed: int) -> None:
    made = format_of(schema=given)
    random_ = random.Random(seed)
    answers = [text for text in (written_at_random(made.grammar, random_) for _ in range(10)) if text]
    assert answers
    for text in answers:
        made.parse(text)


def written_at_random(grammar: str, random_: random.Random) -> str:
    """Return an answer of bytes drawn from the masks, which likes to end; "" if it does not end."""
    matcher, written = new_matcher(byte_tokenizer(), grammar), bytearray()
    while len(written) < 500 and not (matcher.is_accepting() and (matcher.is_stopped() or random_.random() < 0.3)):
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [byte for byte in range(256) if mask >> byte & 1]
        closing = [byte for byte in b'"}]' if byte in allowed]
        written.append(random_.choice(closing if closing and random_.random() < 0.5 else allowed))
        matcher.consume_token(written[-1])
    return written.decode() if matcher.is_accepting() else ""


def test_what_a_grammar_cannot_promise_is_checked_in_the_answer() -> None:
    made = format_of(schema=Even)
    assert made.parse('{"number": 2}') == Even(number=2)
    with pytest.raises(InvalidAnswerError, match="Even: number: Value error, that is odd"):
        made.parse('{"number": 3}')
    assert made.parse_partial('{"number": 3}') == {"number": 3}
    with pytest.raises(InvalidAnswerError, match="A check of Broken failed"):
        format_of(schema=Broken).parse('{"number": 3}')


def test_the_short_form_is_that_of_llm_with_lists() -> None:
    made = format_of(schema="name, age int, height float, is_tall bool, tags list, counts list[int]")
    text = '{"name": "a", "age": 3, "height": 1.5, "is_tall": true, "tags": ["x"], "counts": [1]}'
    assert made.parse(text) == json.loads(text)
    assert not matches(made.grammar, text.replace("[1]", '["1"]'))
    lines = format_of(schema="name: full name, with titles\n\nage int : in years\n")
    assert lines.note.endswith('"name": string, // full name, with titles\n  "age": integer // in years\n}')


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("a foo", "unknown type 'foo'"),
        ("a list[foo]", "unknown type"),
        ("a int, a", "field a twice"),
        (" , ", "schema is empty"),
        ("a: int", "its type behind a colon"),
        ("a=int", "'a=int' is none"),
        ("schema.json", "'schema.json' is none"),
        ("-", "'-' is none"),
        ("\n: x", "no name"),
        ('{"a', "not JSON"),
        ("[1]", "schema is [1]"),
        ("false", "schema is false"),
        (" null ", "schema is null"),
        (pydantic.BaseModel, "BaseModel itself has no fields"),
        (list[pydantic.BaseModel], "BaseModel itself has no fields"),
        (3, "schema is 3"),
        (False, "schema is false"),
        ([Item], "schema is a list"),
        (object(), "schema is an object"),
        (lambda: 1, "schema is a function"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_schema_is_refused(schema: object, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"schema|field") as caught:
        format_of(schema=schema)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_an_answer_is_bound_to_one_thing() -> None:
    assert format_of() is None
    with pytest.raises(InvalidRequestError, match="schema and regex are both given"):
        format_of(schema=True, regex="a")


def test_a_choice_is_the_one_that_was_given() -> None:
    made = format_of(choices=["red", "red wine", 3, 2.5])
    assert made.note == "Answer with one of these: red, red wine, 3, 2.5"
    assert [text for text in ("red", "red wine", "3", "2.5") if not matches(made.grammar, text)] == []
    assert [text for text in ("", "re", "red w", "red wine ", "2", '"red"') if matches(made.grammar, text)] == []
    assert made.parse("red wine") == "red wine"
    assert made.parse(" 3\n") == 3
    assert format_of(choices=Colour).parse("blue") is Colour.BLUE
    assert format_of(choices=Odd).parse("PAIR") is Odd.PAIR
    assert format_of(choices=[Colour.THREE]).parse("3") is Colour.THREE
    assert format_of(choices=Literal["a", "b"]).parse("b") == "b"


def test_a_choice_is_known_once_no_other_can_follow() -> None:
    made = format_of(choices=["red", "red wine", "blue"])
    assert [made.parse_partial(text) for text in ("", "r", "red", "red ", "b", "x")] == [
        *(None, None, None, "red wine", "blue", None)
    ]
    with pytest.raises(InvalidAnswerError, match="none of the choices"):
        made.parse("re")


def test_choices_hold_any_text() -> None:
    odd = ['a"b', "a\\b", "a\nb", "é💥", "/x/", "a|b", "<box>", "\x01"]
    made = format_of(choices=odd)
    assert [text for text in odd if not matches(made.grammar, text) and text != "<box>"] == []
    assert made.parse("a\nb") == "a\nb"


@pytest.mark.parametrize("number", [2, 5_000, 9_999])
def test_there_may_be_thousands_of_choices(number: int) -> None:
    made = format_of(choices=[f"choice {each}" for each in range(number)])
    assert matches(made.grammar, f"choice {number - 1}")
    assert not matches(made.grammar, f"choice {number}")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ([], "empty"),
        (["a", "a"], "'a' twice"),
        (["1", 1], "'1' and 1, which an answer would write alike"),
        (["a", ""], "empty text"),
        (["a", " "], "blank text ' '"),
        ([None], "has None"),
        ([True], "has True"),
        ([float("nan")], "has nan"),
        ("red", "choices is 'red'"),
        ({"a": 1}, "choices is a dict"),
        (3, "choices is 3"),
        (["\ud800"], "surrogate"),
        (["x" * 5000], "4,096 characters"),
        ([str(each) for each in range(10_001)], "10,000"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_choices_that_are_none_are_refused(choices: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        format_of(choices=choices)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("llguidance", "structured.format_of(schema={})"),
        ("pydantic", "structured.format_of(schema=int)"),
        ("docstring_parser", "structured.tools_of([documented])"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(package: str, call: str) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from internvl_gguf import structured\n"
        "from internvl_gguf.errors import InvalidRequestError\n"
        "def documented(): 'Says something.'\n"
        f"try: {call}\n"
        "except InvalidRequestError as error: print(error.message); print(error.hint)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    message, hint = result.stdout.splitlines()
    assert message.endswith(f"needs the package {package.replace('_', '-')}.")
    assert hint == "pip install 'internvl-gguf[structured]'"


def test_the_room_loads_no_library_before_it_is_asked() -> None:
    script = "import sys, internvl_gguf.structured; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"llguidance", "pydantic", "docstring_parser", "numpy", "asyncio"} & set(result.stdout.split())
