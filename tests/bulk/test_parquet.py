"""Parquet files as the input and the output of a batch."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import InvalidRequestError, PictureError
from internvl_gguf.bulk.contained import contained_bytes
from internvl_gguf.bulk.sources import open_source
from internvl_gguf.bulk.tables import write_table
from tests.bulk.test_sources import fields, png, prompts

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
    *found, empty = fields(path)
    assert [line["images"] for line in found] == [[f"{path}/{row}/image"] for row in range(1, 5)]  # the line's number
    assert [line["columns"] for line in (*found, empty)] == [{"label": value} for value in (1, 2, None, 4, 5)]
    assert [contained_bytes(f"{path}/{row}/image") for row in (4, 1, 2)] == [pictures[row - 1] for row in (4, 1, 2)]
    with pytest.raises(PictureError, match="holds no picture"):
        contained_bytes(f"{path}/5/image")
    if form == "object":
        assert empty["problem"] == "The row names no picture in the column image."
    for name in ("6/image", "0/image", "x/image", "1/other", "1/image/other.png", "1"):
        with pytest.raises(PictureError, match="has no"):
            contained_bytes(f"{path}/{name}")


def test_a_cell_that_knows_the_path_of_its_picture_names_it(tmp_path: Path) -> None:
    """Of Hugging Face's {bytes, path} the path was lost: the prompt's {name} was "image"."""
    (tmp_path / "beside.png").write_bytes(png("blue"))
    cells = [
        {"bytes": png(), "path": "cats/1.png"},
        {"bytes": png("green"), "path": None},
        {"bytes": None, "path": "beside.png"},  # at the table's folder
        {"bytes": None, "path": str(tmp_path / "beside.png")},
        {"bytes": None, "path": None},
    ]
    path = table(tmp_path / "p.parquet", {"image": cells})
    (known,), (unknown,), (beside,), (absolute,), (nothing,) = (line["images"] for line in fields(path))
    assert known == f"{path}/1/image/cats/1.png"
    assert unknown == f"{path}/2/image"
    assert beside == f"{path}/3/image/beside.png"
    found = [contained_bytes(each) for each in (known, f"{path}/1/image", unknown, beside, absolute)]
    assert found == [png(), png(), png("green"), png("blue"), png("blue")]
    with pytest.raises(PictureError, match="holds no picture"):
        contained_bytes(nothing)
    assert prompts(path, "Is {name} ({stem}) in {folder}?")[0] == "Is 1.png (1) in cats?"


@pytest.mark.parametrize("kind", [pa.binary(), pa.null()], ids=str)
def test_objects_without_any_bytes_are_their_paths(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "a.png").write_bytes(png())
    kind = pa.struct([("bytes", kind), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "a.png"}, None, {"bytes": None, "path": "/b.png"}], kind)
    first, empty, last = fields(table(tmp_path / "p.parquet", {"image": cells}))
    assert (first["images"], last["images"]) == ([str(tmp_path / "a.png")], ["/b.png"])
    assert "names no picture" in empty["problem"]


PICTURES = [png("red"), png("blue"), png("green")]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([PICTURES[:2], [], None, PICTURES[2:]], ["1", "2"]),
        (
            [
                [{"bytes": each, "path": f"{number}.png"} for number, each in enumerate(PICTURES[:2])],
                [],
                None,
                [{"bytes": PICTURES[2], "path": None}],
            ],
            ["1/0.png", "2/1.png"],
        ),
    ],
    ids=["bytes", "objects"],
)
def test_a_list_of_pictures_is_several_of_one_question(tmp_path: Path, rows: list[Any], names: list[str]) -> None:
    path = table(tmp_path / "p.parquet", {"images": rows, "label": ["a", "b", "c", "d"]})
    first, empty, null, last = fields(path)
    assert first == {"images": [f"{path}/1/images/{name}" for name in names], "columns": {"label": "a"}}
    assert [contained_bytes(each) for each in first["images"] + last["images"]] == PICTURES
    assert last["images"] == [f"{path}/4/images/1"]
    for line in (empty, null):
        assert line["problem"] == "The row names no picture in the column images."
    for name in ("1/images/3", "1/images/0", "1/images"):
        with pytest.raises(PictureError, match="has no"):
            contained_bytes(f"{path}/{name}")


def test_a_list_of_paths_is_several_pictures_and_one_that_is_null_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    rows = [["a.png", "/b.png"], ["a.png", None]]
    first, second = fields(table(tmp_path / "p.parquet", {"images": rows}))
    assert first == {"images": [str(tmp_path / "a.png"), "/b.png"]}
    assert second["problem"] == "Picture 2 of the row is missing in the column images."


def test_rows_are_counted_in_each_file_of_several(tmp_path: Path) -> None:
    for name in "ab":
        table(tmp_path / f"{name}.parquet", {"image": PICTURES[:2]})
    assert [line["images"] for line in fields(f"{tmp_path}/*.parquet")] == [
        [f"{tmp_path}/{name}.parquet/{row}/image"] for name in "ab" for row in (1, 2)
    ]


def test_a_place_for_what_no_prompt_can_have_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "p.parquet", {"image": PICTURES, "mask": PICTURES, "label": [1, 2, 3]})
    with open_source(path) as source:
        assert source.columns == ("label",)


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
    for cell in ("a.png", ["a.png"], {"bytes": None, "path": "a.png"}, [{"bytes": b"x", "path": "a.png"}]):
        with pytest.raises(InvalidRequestError, match="has pictures in the column scan"):
            fields(table(tmp_path / "s.parquet", {"scan": [cell], "a": [1]}))
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
