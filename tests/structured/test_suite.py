"""The benchmark that runs JSON Schema's own test suite counts what it should."""

from __future__ import annotations

import json
from pathlib import Path

from json_schema_suite import run, spellings


def test_instances_are_counted_as_they_are_judged(tmp_path: Path) -> None:
    cases = [
        {
            "description": "an object",
            "schema": {"properties": {"a": {"type": "integer"}}},
            "tests": [
                {"description": "fits", "data": {"a": 1}, "valid": True},
                {"description": "has another key", "data": {"b": 2, "a": 1.0}, "valid": True},
                {"description": "fits not", "data": {"a": "x"}, "valid": False},
            ],
        },
        {"description": "cannot be bound", "schema": {"uniqueItems": True}, "tests": []},
    ]
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases), encoding="utf-8")
    counts, reasons = run([file], is_closed=False, shows_wrong=True)
    assert counts == {"schemas": 2, "schemas refused by name": 1, "valid accepted": 2, "invalid refused": 1}
    assert list(reasons) == ["The schema has `uniqueItems` at #, to which an answer cannot be bound."]
    counts, _ = run([file], is_closed=True, shows_wrong=False)
    assert (counts["valid accepted"], counts["valid refused"]) == (1, 1)


def test_an_instance_is_spelled_in_all_orders_of_its_keys() -> None:
    assert set(spellings({"a": 1.0, "b": ["x"]})) == {
        *('{"a": 1.0, "b": ["x"]}', '{"a": 1, "b": ["x"]}'),
        *('{"b": ["x"], "a": 1.0}', '{"b": ["x"], "a": 1}'),
    }
