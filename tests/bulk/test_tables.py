"""Answers as a table: a column for each value, no two of one name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.bulk.tables import write_table


def rows(path: Path, *records: dict[str, Any]) -> list[dict[str, str]]:
    write_table(path, ".csv", lambda: iter(records))
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record(line: int, **values: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "tiles": 1}
    timings = {"preprocess": 0.25, "encode": 1.0, "prefill": 0.5, "decode": 0.25, "time_to_first_token": 9.0}
    answer: dict[str, Any] = {"text": "It.", "finish_reason": "stop", "usage": usage, "timings": timings}
    answer |= {"boxes": [], "parsed": None}
    return {"line": line, "images": [f"{line}.png"], **answer, "model": "m.gguf", **values}


def test_a_row_has_the_columns_of_the_input_the_answer_and_its_fields(tmp_path: Path) -> None:
    first, second = rows(
        tmp_path / "a.csv",
        record(1, id="x", columns={"label": 'a "cat", or\nso', "answer": "old"}, parsed={"colour": "red", "error": 1}),
        {"line": 2, "images": ["2.png", "3.png"], "columns": {"label": None}, "error": "No.", "hint": "Try."},
    )
    assert list(first) == [
        "line", "id", "image", "label", "input_answer", "answer", "colour", "parsed_error", "finish_reason",
        "prompt_tokens", "completion_tokens", "tiles", "seconds", "model", "error", "hint",
    ]  # fmt: skip
    assert first["label"] == 'a "cat", or\nso'
    assert (first["answer"], first["input_answer"], first["colour"], first["parsed_error"]) == (
        "It.",
        "old",
        "red",
        "1",
    )
    assert first["seconds"] == "2.0"
    assert second["image"] == '["2.png", "3.png"]'
    assert (second["answer"], second["error"], second["hint"]) == ("", "No.", "Try.")


def test_columns_that_no_answer_has_are_left_out(tmp_path: Path) -> None:
    (only,) = rows(tmp_path / "a.csv", record(1, boxes=[{"label": "cat"}], parsed=["a", "b"]))
    assert only["boxes"] == '[{"label": "cat"}]'
    assert only["parsed"] == '["a", "b"]'
    assert {"thinking", "confidence", "tool_calls", "same_as", "hint"}.isdisjoint(only)


def test_the_question_is_a_column_where_rows_were_asked_different_ones(tmp_path: Path) -> None:
    first, second = rows(tmp_path / "a.csv", record(1, prompt="What?"), record(2, prompt="Who?"))
    assert (first["prompt"], second["prompt"]) == ("What?", "Who?")
    assert list(first)[:4] == ["line", "image", "prompt", "answer"]
    same = rows(tmp_path / "b.csv", record(1, prompt="What?"), record(2, prompt="What?"), {"line": 3, "error": "No."})
    assert "prompt" not in same[0]


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", "\x0b\x85\u2028", '"', ",", "\ud800"])
def test_any_answer_stays_one_cell(tmp_path: Path, text: str) -> None:
    (only,) = rows(tmp_path / "a.csv", record(1, text=text))
    assert only["answer"] == text.encode("utf-8", "backslashreplace").decode()


def test_no_answers_are_a_table_of_its_head(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.csv") == []
    assert (tmp_path / "a.csv").read_text() == "line,image,answer,finish_reason,error\n"
