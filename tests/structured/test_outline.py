"""The form of a schema as the prompt shows it."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_gguf.structured import format_of
from internvl_gguf.structured.outline import outline


def test_the_form_is_the_one_that_models_are_trained_on() -> None:
    item = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "what\n  was bought"},
            "price": {"type": "number"},
        },
        "required": ["name", "price"],
    }
    schema = {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": item},
            "total": {"type": "number"},
            "place": {"enum": ["left", "right", "middle"]},
            "word": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["items", "place", "word"],
    }
    assert format_of(schema=schema).note == (
        "Answer with JSON of this form:\n"
        "{\n"
        '  "items": [\n'
        "    {\n"
        '      "name": string, // what was bought\n'
        '      "price": number\n'
        "    }\n"
        "  ],\n"
        '  "total"?: number,\n'
        '  "place": "left" | "right" | "middle",\n'
        '  "word": string | null\n'
        "}"
    )


@pytest.mark.parametrize(
    ("schema", "form"),
    [
        ({"type": "string"}, "string"),
        ({"type": ["integer", "null"]}, "integer | null"),
        ({"const": "a"}, '"a"'),
        ({"enum": ["é", 1, None]}, '"é" | 1 | null'),
        ({"type": "array", "items": {"type": "string"}}, "[string]"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, '["a" | "b"]'),
        ({"type": "array"}, "[any]"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, "[[number]]"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}, "[integer] (4 items)"),
        ({"type": "array", "items": {}, "minItems": 1}, "[any] (at least 1 items)"),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, "[integer, string]"),
        ({"type": "object"}, "object"),
        ({"type": "object", "properties": {}, "additionalProperties": False}, "{}"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "{\n  string: integer\n}"),
        ({"type": "string", "format": "date"}, "string (date, YYYY-MM-DD)"),
        ({"type": "string", "pattern": "^a"}, "string (matches ^a)"),
        ({"type": "string", "maxLength": 9}, "string (at most 9 characters)"),
        ({"type": "integer", "minimum": 0, "maximum": 9}, "integer (0 to 9)"),
        ({"type": "number", "exclusiveMinimum": 0}, "number (more than 0)"),
        ({"type": "integer", "multipleOf": 5}, "integer (a multiple of 5)"),
        ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, "string (at most 3 characters)"),
        ({"allOf": [{"minLength": 1}, {"minLength": 2}]}, '{"allOf": [{"minLength": 1}, {"minLength": 2}]}'),
        ({"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "null"}]}, '{\n  "a"?: any\n} | null'),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, "string"),
    ],
    ids=str,
)
def test_each_kind_has_its_words(schema: dict[str, Any], form: str) -> None:
    assert outline(schema) == form


def test_a_definition_that_holds_itself_is_named_and_shown_once() -> None:
    node = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
        "required": ["value"],
    }
    schema = {"type": "object", "properties": {"first": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    assert outline(schema) == (
        '{\n  "first"?: Node\n}\nwhere Node is:\n{\n  "value": integer,\n  "next"?: Node | null\n}'
    )


def test_the_words_of_a_definition_stand_where_it_is_used() -> None:
    point = {"type": "object", "description": "A place.", "properties": {"x": {"type": "integer"}}}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/P"}, "b": {"$ref": "#/$defs/P", "description": "Its end."}},
        "required": ["a", "b"],
        "$defs": {"P": point},
    }
    assert '"a": { // A place.\n    "x"?: integer\n  },' in outline(schema)
    assert '"b": { // Its end.' in outline(schema)


def test_definitions_that_double_are_shown_once_each() -> None:
    """Written out, this form would have 2**40 lines."""
    doubling = {
        f"d{level}": {"type": "object", "properties": {side: {"$ref": f"#/$defs/d{level + 1}"} for side in "ab"}}
        for level in range(40)
    }
    text = outline({"$ref": "#/$defs/d0", "$defs": {**doubling, "d40": {"type": "string"}}})
    assert text.count("where d7 is:") == 1
    assert len(text) < 5_000


def test_definitions_of_one_name_are_told_apart() -> None:
    loop = {"type": "object", "properties": {"a": {"$ref": "#/$defs/N"}, "b": {"$ref": "#/$defs/x/$defs/N"}}}
    schema = {"$defs": {"N": loop, "x": {"$defs": {"N": {**loop, "required": ["a"]}}}}, "$ref": "#/$defs/N"}
    assert outline(schema).startswith('N\nwhere N is:\n{\n  "a"?: N,\n  "b"?: N2\n}\nwhere N2 is:')
