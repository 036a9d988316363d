"""What a schema binds an answer to, held against texts, and schemas that are refused by name."""

from __future__ import annotations

import json

import pytest

from internvl_gguf.errors import InvalidAnswerError, InvalidRequestError
from internvl_gguf.structured import format_of
from internvl_gguf.structured.constraint import matches
from tests.structured.schema_forms import FORMS, REFUSED, Form, Schema


def short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)[:60] if isinstance(value, dict) else ""


@pytest.mark.parametrize("form", FORMS, ids=lambda form: short(form.schema))
def test_an_answer_is_what_its_schema_says(form: Form) -> None:
    made = format_of(schema=form.schema)
    assert [text for text in form.fits if not matches(made.grammar, text)] == []
    assert [text for text in form.fits_not if matches(made.grammar, text)] == []
    for text in form.fits:
        assert made.parse(text) == json.loads(text)
        assert made.parse_partial(text) in (json.loads(text), None)  # a number may go on


def test_there_are_enough_of_them() -> None:
    assert len(FORMS) >= 150


@pytest.mark.parametrize(("schema", "words"), REFUSED, ids=short)
def test_what_an_answer_cannot_be_bound_to_is_refused_by_name(schema: Schema, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        format_of(schema=schema)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_an_answer_that_was_cut_off_has_no_value() -> None:
    made = format_of(schema={"type": "object", "properties": {"a": {"type": "string"}}})
    with pytest.raises(InvalidAnswerError, match="not JSON"):
        made.parse('{"a": "x')
    assert made.parse_partial('{"a": "x') == {"a": "x"}


def test_a_whole_answer_that_does_not_fit_is_not_called_cut_off() -> None:
    made = format_of(schema="a int")
    for text in ('{"a": "x"}', "{}"):
        with pytest.raises(InvalidAnswerError, match="does not fit") as caught:
            made.parse(text)
        assert "max_tokens" not in caught.value.hint
    with pytest.raises(InvalidAnswerError, match="not JSON") as caught:
        made.parse('{"a": 1} and more')
    assert "max_tokens" not in caught.value.hint
    with pytest.raises(InvalidAnswerError, match="not JSON") as caught:
        made.parse('{"a": 1')
    assert "max_tokens" in caught.value.hint
    assert made.parse('{"a":1}') == {"a": 1}  # of an answer from elsewhere


def test_a_name_beside_a_reference_is_taken_at_the_top_alone() -> None:
    """There it names the document itself; below, it would change what the reference names."""
    named = {"$id": "http://example.com/a", "$ref": "#/$defs/b", "$defs": {"b": {"type": "string"}}}
    assert format_of(schema=named).parse('"x"') == "x"
    with pytest.raises(InvalidRequestError, match=r"\$id beside \$ref at #/properties/a"):
        format_of(schema={"properties": {"a": {"$id": "b", "$ref": "#/$defs/b"}}, "$defs": {"b": {}}})


def test_a_schema_may_be_json_text_and_true_is_any_json() -> None:
    assert format_of(schema="true") == format_of(schema=True)
    assert format_of(schema="true str").parse('{"true": "x"}') == {"true": "x"}
    assert format_of(schema='{"type": "integer"}').parse("3") == 3
    anything = format_of(schema=True)
    assert anything.parse('[1, {"a": null}]') == [1, {"a": None}]
    assert anything.note == "Answer with JSON."
    assert format_of(schema={}).grammar == anything.grammar


def test_a_schema_that_holds_itself_is_too_deep() -> None:
    loop: Schema = {"type": "array"}
    loop["items"] = loop
    with pytest.raises(InvalidRequestError, match="64 levels"):
        format_of(schema=loop)


def test_the_schema_of_the_caller_is_left_alone() -> None:
    given = {"oneOf": [{"type": "object", "properties": {"a": {"maxLength": 2.0}}}, {"type": "null"}]}
    before = json.dumps(given)
    format_of(schema=given)
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"enum": ["x" * 1000 + str(i) for i in range(300)]}, "256 KiB"),
        ({"enum": list(range(30_000))}, "20,000 values"),
        (" " * 300_000, "256 KiB"),
    ],
    ids=["bytes", "values", "text"],
)
def test_a_schema_that_is_too_large_is_refused(schema: object, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        format_of(schema=schema)
