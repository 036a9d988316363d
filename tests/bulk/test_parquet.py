"""Parquet files as the input and the output of a batch."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import InvalidRequestError, PictureError
from internvl_gguf.bulk.contained import contained_bytes
from internvl_gguf.bulk.tables import write_table
from tests.bulk.test_sources import fields, png

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize("form", ["bytes", "object"])
def test_pictures_in_cells_are_read_in_place(tmp_path: Path, form: str) -> None:
    pictures: list[Any] = [png(colour) for colour in ("red", "blue", "green", "white", "black")]
    cells = pictures if form == "bytes" else [{"bytes": each, "path": None} for each in pictures]
    path = table(tmp_path / "p.parquet", {"image": [*cells[:4], None], "label": [1, 2, None, 4, 5]})
    found = fields(path)
    assert [line["images"] for line in found] == [[f"{path}/{row}/image"] for row in range(5)]
    assert [line["columns"] for line in found] == [{"label": value} for value in (1, 2, None, 4, 5)]
    assert [contained_bytes(f"{path}/{row}/image") for row in (3, 0, 1)] == [pictures[row] for row in (3, 0, 1)]
    with pytest.raises(PictureError, match="holds no picture"):
        contained_bytes(f"{path}/4/image")
    for name in ("5/image", "x/image", "0/other"):
        with pytest.raises(PictureError, match="has no"):
            contained_bytes(f"{path}/{name}")


def test_paths_and_other_values_are_plain(tmp_path: Path) -> None:
    day = datetime.date(2026, 11, 29)
    columns = {"path": ["a.png", None], "day": [day, day], "raw": [b"x", b"y"], "tags": [["a"], []]}
    first, second = fields(table(tmp_path / "p.parquet", columns))
    assert first == {"images": ["a.png"], "columns": {"day": "2026-11-29", "tags": ["a"]}}
    assert "names no picture" in second["problem"]


def test_a_file_that_is_no_parquet_or_has_not_the_column_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"x" * 100)
    with pytest.raises(InvalidRequestError, match="no Parquet file that can be read"):
        fields(tmp_path / "bad.parquet")
    with pytest.raises(InvalidRequestError, match="has pictures in the column scan"):
        fields(table(tmp_path / "s.parquet", {"scan": [b"x"], "a": [1]}))
    with pytest.raises(InvalidRequestError, match="has no rows"):
        fields(table(tmp_path / "e.parquet", {"image": pa.array([], pa.string())}))
    path = table(tmp_path / "p.parquet", {"a": [1]})
    with pytest.raises(InvalidRequestError, match="has no column photo"):
        fields(path, "photo")


def test_answers_have_the_types_of_their_values(tmp_path: Path) -> None:
    box = {"label": "cat", "image": 0, "xyxy": [1.0, 2.0, 3.0, 4.5], "thousandths": [1, 2, 3, 4], "confidence": 0.5}
    records = [
        {"line": 1, "images": ["a.png"], "text": "{}", "parsed": {"n": 1, "x": 0.5, "tags": ["a"], "ok": True}},
        {"line": 2, "images": ["b.png"], "text": "\ud800", "parsed": {"n": 2, "x": 1, "tags": None, "ok": False}},
        {"line": 3, "images": ["c.png"], "error": "No.", "hint": "Yes."},
        {"line": 4, "images": ["d.png"], "text": "x", "boxes": [{**box, "issues": []}]},
    ]
    path = tmp_path / "answers.parquet"
    write_table(path, ".parquet", lambda: iter(records))
    rows = pq.read_table(path).to_pylist()
    assert [row["n"] for row in rows] == [1, 2, None, None]
    assert [row["x"] for row in rows] == [0.5, 1.0, None, None]
    assert [row["ok"] for row in rows] == [True, False, None, None]
    assert rows[0]["tags"] == '["a"]'
    assert rows[2]["error"] == "No."
    assert rows[3]["boxes"][0]["xyxy"] == [1.0, 2.0, 3.0, 4.5]
    assert [row["image"] for row in rows] == ["a.png", "b.png", "c.png", "d.png"]
