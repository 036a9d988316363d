"""What `--batch` takes: folders, globs, tables and archives become the same lines that a file of JSON lines has."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from PIL import Image

from internvl_gguf import InvalidRequestError, PictureError
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.contained import ContainedPicture, contained_bytes, contained_size
from internvl_gguf.bulk.contained_paths import split_contained
from internvl_gguf.bulk.sources import open_source
from internvl_gguf.images.load import load_image

COMMON = Common(prompt="What is {name}?")


def png(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def fields(path: Path | str, image_column: str | None = None) -> list[dict[str, Any]]:
    """The fields of each line, or what is wrong with it."""
    with open_source(Path(path), image_column) as source:
        first, again = list(source.lines()), list(source.lines())
    assert first == again
    assert [line.number for line in first] == list(range(1, len(first) + 1))
    return [{**line.known_fields, **({"problem": line.problem} if line.problem else {})} for line in first]


def prompts(path: Path, prompt: str) -> list[str]:
    common = Common(prompt=prompt)
    with open_source(path) as source:
        return [common.question_of(line).prompt for line in source.lines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures in two folders, beside what is none."""
    root = tmp_path / "pictures"
    for name in ("b.PNG", "a.png", "cats/c.png", ".hidden/d.png", "cats/.e.png", "notes.txt", "__MACOSX/f.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    return root


def test_a_folder_is_its_pictures_and_says_what_it_leaves_out(folder: Path) -> None:
    assert fields(folder) == [{"images": [str(folder / name)]} for name in ("a.png", "b.PNG", "cats/c.png")]
    with open_source(folder) as source:
        assert source.notices == (f"1 file in {folder} that is no picture: left out.",)
    (folder / "more.txt").write_text("x")
    with open_source(folder) as source:
        assert source.notices == (f"2 files in {folder} that are no pictures: left out.",)


def test_a_glob_is_what_it_names(folder: Path) -> None:
    assert fields(f"{folder}/*.png") == [{"images": [str(folder / "a.png")]}]
    found = fields(f"{folder}/**/*.png")
    assert found == [{"images": [str(folder / name)]} for name in ("a.png", "cats/c.png")]


def test_a_prompt_has_places_for_what_is_known_of_a_picture(folder: Path) -> None:
    asked = prompts(folder / "cats", 'Is {name} in {folder}? {stem}, {path}. {{name}} {"a": 1}')
    assert asked == [f'Is c.png in cats? c, {folder}/cats/c.png. {{name}} {{"a": 1}}']


def test_rows_of_a_table_are_lines(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    table = tmp_path / "rows.csv"
    table.write_text('﻿id,Image,label\n7,a.png,"red, or so"\n8,,blue\n9,a.png\n\n')
    first, empty, short = fields(table)
    # No such file in the current folder, so that it is looked for beside the table.
    assert first == {"id": "7", "images": [str(tmp_path / "a.png")], "columns": {"label": "red, or so"}}
    assert "names no picture in the column Image" in empty["problem"]
    assert empty["columns"] == {"label": "blue"}  # so that its row is found
    assert short["problem"] == "The row has 2 cells, and the table 3 columns."
    assert short["id"] == "9"
    assert prompts_of_first(table, "Is {name} {label}?") == "Is a.png red, or so?"


def prompts_of_first(table: Path, prompt: str) -> str:
    with open_source(table) as source:
        return Common(prompt=prompt).question_of(next(source.lines())).prompt


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_cells_may_stand_between_other_signs(tmp_path: Path, delimiter: str) -> None:
    table = tmp_path / "rows.csv"
    table.write_text(delimiter.join(("picture", "prompt")) + "\n" + delimiter.join(("x.png", "What?")) + "\n")
    assert fields(table) == [{"prompt": "What?", "images": ["x.png"]}]


def test_a_table_without_pictures_asks_text_and_one_of_utf_16_is_read(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("prompt,answer\nGröße?,1\n", encoding="utf-16")
    assert fields(table) == [{"prompt": "Größe?", "columns": {"answer": "1"}}]
    with open_source(table) as source:
        assert "no column of pictures" in source.notices[0]


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        (b"", None, "no first row"),
        (b"a,b\n1,2\n", "image", "has no column image"),
        (b"a,a\n1,2\n", None, "two columns 'a'"),
        (b"a,b\n\n", None, "no rows"),
        (b'image,b\na.png,"x\nb.png,y\n', None, "a quote in row 1 that is never closed"),
        (b"Bild,b\nc.JPG,2\n", None, "has pictures in the column Bild"),
        (b"a,\xff\n", None, "is not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, column: str | None, message: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(InvalidRequestError, match=message):
        fields(tmp_path / "rows.csv", column)


@pytest.mark.parametrize(
    ("name", "content", "header"),
    [
        ("rows.csv", "photos/0001.png,red\nphotos/0002.png,blue\n", "image,label"),
        ("rows.csv", "red;photos/0001.JPG;3\n", "label;image;label2"),
        ("rows.tsv", "photos/0001.webp\tred\nphotos/0002.png\tblue\n", "image and label with tabs between."),
        ("rows.csv", "film.mp4\nother.mp4\n", "image"),
        ("rows.csv", "a.png,a.png\nb.png,b.png\n", "image,image2"),
        ("rows.csv", "shown here/1,red\n", "image,label"),  # a file without an ending
        ("rows.csv", '"data:image/png;base64,AAAA",red\n', "image,label"),
    ],
)
def test_a_table_that_begins_with_data_is_asked_for_its_header(
    tmp_path: Path, name: str, content: str, header: str
) -> None:
    """It said `--image-column photos/0001.png`, which lost the first picture."""
    (tmp_path / "shown here").mkdir()
    (tmp_path / "shown here/1").write_bytes(png())
    (tmp_path / name).write_text(content)
    for column in (None, "image", content.replace("\t", ",").partition(",")[0]):
        with pytest.raises(InvalidRequestError, match="begins with a row of data") as refused:
            fields(tmp_path / name, column)
        assert refused.value.hint == f"Add a header, for example {header}"


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ("image,logo.png\na.png,x\n", None),
        ("Bild,logo.png\na.png,x\n", "Bild"),
        ("prompt,answer\nWhat is in a.png,1\nnone/such,2\n", None),
    ],
)
def test_names_of_columns_are_not_taken_for_data(tmp_path: Path, content: str, column: str | None) -> None:
    (tmp_path / "rows.csv").write_text(content)
    assert fields(tmp_path / "rows.csv", column)


def test_relative_paths_start_where_the_first_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    monkeypatch.chdir(here)
    packed = archive(there / "p.zip", {"1.png": png()})
    table, uri = there / "rows.csv", "data:image/png;base64," + "A" * 5000
    rows = ["p.zip/1.png", "b.png", "/c.png", "~/d.png", "file:///e.png", f'"{uri}"']
    table.write_text("\n".join(("image", *rows)))
    placed = [f"{packed}/1.png", str(there / "b.png"), "/c.png", "~/d.png", "file:///e.png", uri]
    assert [line["images"][0] for line in fields(table)] == placed
    table.write_text("\n".join(("image", f'"{uri}"', *rows)))  # no file: the others start at the current folder
    assert fields(table)[1]["images"] == ["p.zip/1.png"]
    with open_source(table) as source:
        assert "at the table's where only that has the first one" in next(source.lines()).if_missing


def archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


MEMBERS = {
    "0001.png": png("red"),
    "0001.json": b'{"label": "red", "place": {"x": 1}}',
    "0002.png": png("blue"),
    "0002.txt": b"ein Blau\n",
    "0002.cls": b"4",
    "__MACOSX/0001.png": b"x",
    "readme.md": b"x",
    "0003.png": png("green"),
    "0003.json": b"{",
}


@pytest.mark.parametrize("name", ["shard.tar", "shard.tar.gz", "shard.zip"])
def test_pictures_of_an_archive_are_read_in_place_with_what_lies_beside_them(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / name, MEMBERS)
    first, second, third = fields(path)
    assert first == {"images": [f"{path}/0001.png"], "columns": {"label": "red", "place": {"x": 1}}}
    assert second == {"images": [f"{path}/0002.png"], "columns": {"txt": "ein Blau", "cls": "4"}}
    assert "0003.json cannot be read" in third["problem"]
    with open_source(path) as source:
        question = COMMON.question_of(next(source.lines()))
    (picture,) = question.images
    assert isinstance(picture, ContainedPicture)
    for _ in range(2):  # a question that has to be asked again reads it again
        assert load_image(cast("BinaryIO", picture)).getpixel((0, 0)) == (255, 0, 0)
    assert question.prompt == "What is 0001.png?"
    assert contained_bytes(f"{path}/0002.png") == MEMBERS["0002.png"]
    assert contained_size(f"{path}/0002.png") == len(MEMBERS["0002.png"])
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_folder_that_is_called_as_an_archive_is_a_folder(tmp_path: Path) -> None:
    inside = tmp_path / "odd.zip" / "a.png"
    inside.parent.mkdir()
    inside.write_bytes(png())
    assert split_contained(str(inside)) is None
    assert fields(tmp_path / "odd.zip") == [{"images": [str(inside)]}]


def test_what_is_not_in_an_archive_or_damaged_there_is_an_error_of_its_line(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"1.png": png(), "2.png": png("blue") * 40})
    with pytest.raises(PictureError, match=r"has no 9\.png") as missing:
        contained_bytes(f"{path}/9.png")
    assert missing.value.is_missing
    data = bytearray(path.read_bytes())
    at = data.index(b"2.png") + 20
    data[at : at + 8] = b"\xff" * 8
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data)
    assert contained_bytes(f"{damaged}/1.png") == png()
    with pytest.raises(PictureError, match="reading it failed"):
        load_image(cast("BinaryIO", ContainedPicture(f"{damaged}/2.png")))


def test_an_archive_that_is_changed_is_opened_anew(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", {"1.png": png()})
    assert contained_bytes(f"{path}/1.png") == png()
    archive(path, {"1.png": png("blue"), "2.png": png()})
    assert contained_bytes(f"{path}/1.png") == png("blue")


def test_shards_are_taken_one_after_the_other(tmp_path: Path) -> None:
    for number in (1, 0):
        archive(tmp_path / f"shard-{number}.tar", {"a.png": png(), "b.png": png()})
    assert [line["images"] for line in fields(f"{tmp_path}/shard-*.tar")] == [
        [f"{tmp_path}/shard-{number}.tar/{name}.png"] for number in (0, 1) for name in "ab"
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.zip", b"no zip"), ("a.tar", b"no tar" * 200), ("a.tgz", gzip.compress(b"no tar", mtime=0)), ("a.zip", b"")],
    ids=range(4),
)
def test_an_archive_that_is_none_says_so(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequestError, match="no archive that can be read"):
        fields(tmp_path / name)


def test_what_has_no_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequestError, match="has no picture"):
        fields(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(InvalidRequestError, match="has no picture, only 1 other file"):
        fields(tmp_path / "empty")
    with pytest.raises(InvalidRequestError, match="names no file"):
        fields(f"{tmp_path}/*.jpg")
    with pytest.raises(InvalidRequestError, match="--image-column names a column of CSV"):
        fields(tmp_path / "empty", "photo")
    with pytest.raises(InvalidRequestError, match="has no picture in it"):
        fields(archive(tmp_path / "a.zip", {"readme.md": b"x"}))
    (tmp_path / "one.png").write_bytes(png())
    with pytest.raises(InvalidRequestError, match="is one picture"):
        fields(tmp_path / "one.png")
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        fields(tmp_path / "missing.jsonl")


def test_a_prompt_with_an_unknown_place_is_refused_before_anything_is_asked() -> None:
    common = Common(prompt="Is it {labl}?")
    with pytest.raises(InvalidRequestError, match=r"place for \{labl\}, which is not known") as refused:
        common.template.check(("label",))
    assert "label, name, path, stem, folder" in refused.value.hint
    common.template.check(("labl",))


def test_lines_of_json_may_have_fields_that_only_the_prompt_names(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps({"images": ["a/b.png"], "label": "cat"}) + "\n")
    with open_source(path) as source:
        (line,) = source.lines()
    assert Common(prompt="Is {name} a {label}?").question_of(line).prompt == "Is b.png a cat?"
    with pytest.raises(InvalidRequestError, match="label"):  # else it may be a mistake
        Common(prompt="What?").question_of(line)
