"""The value of a JSON text that is still being written."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.structured import format_of
from internvl_gguf.structured.partial_json import partial_value

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("{", {}),
        ('{"a', {}),
        ('{"a":', {}),
        ('{"a": "x', {"a": "x"}),
        ('{"a": "x\\', {"a": "x"}),
        (r'{"a": "x\u12', {"a": "x"}),
        (r'{"a": "x\ud83d', {"a": "x"}),
        (r'{"a": "x\ud83d\ude00', {"a": "x😀"}),
        (r'{"a": "\\', {"a": "\\"}),
        ('{"a": 12', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": tru', {}),
        ('{"a": [1, 2', {"a": [1]}),
        ('{"a": [{"b": "c"}, {"d', {"a": [{"b": "c"}, {}]}),
        ('"ab', "ab"),
        ("12", None),
        ("}", None),
        ("hello", None),
        ("[" * 100_000, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_there_is_given(text: str, value: Any) -> None:
    assert partial_value(text) == value


@given(VALUES, st.booleans())
def test_each_beginning_has_a_beginning_of_the_value(value: Any, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    for end in range(len(text)):
        assert is_beginning(partial_value(text[:end]), value)
    if isinstance(value, dict | list | str):
        assert partial_value(text) == value


def is_beginning(part: Any, whole: Any) -> bool:
    if part is None or part == whole:
        return True
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(is_beginning, part, whole))
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_beginning(value, whole[key]) for key, value in part.items())
    return False


@given(st.text(alphabet='{}[]":,\\u123 tfna'))
def test_nothing_that_a_model_writes_raises(text: str) -> None:
    value = partial_value(text)
    assert json.loads(json.dumps(value)) == value


def test_a_constant_of_the_schema_is_there_once_no_other_can_follow() -> None:
    """Half of "circle" is no shape, and nobody should have to guard against it."""
    made = format_of(
        schema={
            "type": "object",
            "properties": {
                "kind": {"enum": ["circle", "circular saw", "square"]},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
                "rest": {"anyOf": [{"const": "none"}, {"type": "string", "maxLength": 3}]},
            },
            "$defs": {"part": {"anyOf": [{"const": "lid"}, {"const": "leg"}, {"type": "null"}]}},
        }
    )
    written = '{"kind": "circle", "parts": ["lid", "leg"], "rest": "no"'
    seen = [made.parse_partial(written[:end]) for end in range(len(written) + 1)]
    assert [value for before, value in itertools.pairwise(seen) if value != before] == [
        {},
        {"kind": "circle"},
        {"kind": "circle", "parts": []},
        {"kind": "circle", "parts": ["lid"]},
        {"kind": "circle", "parts": ["lid", "leg"]},
        {"kind": "circle", "parts": ["lid", "leg"], "rest": ""},
        {"kind": "circle", "parts": ["lid", "leg"], "rest": "n"},
        {"kind": "circle", "parts": ["lid", "leg"], "rest": "no"},
    ]
    assert format_of(schema={"enum": ["yes", "no"]}).parse_partial('"y') == "yes"
    assert format_of(schema={"enum": ["yes", "no"]}).parse_partial('"') is None
