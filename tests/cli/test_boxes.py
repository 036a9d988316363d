"""`internvl ask --boxes FILE`: the boxes of an answer, drawn or as data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from internvl_gguf.models.resolve import ModelFiles
from tests.cli.test_commands import assert_two_lines, run
from tests.support.pointing_model import SHOWN, write_pointing_model

FAST = ["-t", "1"]


@pytest.fixture(scope="module")
def pointing(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A model that answers with a box around a red car."""
    return write_pointing_model(tmp_path_factory.mktemp("pointing"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A phone's photo: 400 x 600 pixels as it is seen, stored on its side."""
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (600, 400), "white").save(path, exif=exif)
    return path


def test_the_boxes_are_drawn_on_the_upright_picture(pointing: ModelFiles, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    done = run("ask", pointing.text, "Where is the car?", "-i", photo, "--boxes", target, *FAST)
    assert (done.returncode, done.stdout) == (0, f"{SHOWN}\n")
    assert done.stderr == f"Saved 1 box in {target}\n"
    drawing = Image.open(target)
    assert drawing.size == (400, 600)
    assert drawing.getpixel((120, 330)) == (255, 255, 255)
    assert drawing.getpixel((40, 330)) != (255, 255, 255)


def test_json_has_the_boxes_and_where_they_are_drawn(pointing: ModelFiles, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jpg"
    target.write_bytes(b"older")
    done = run("ask", pointing.text, "Where?", "-i", photo, "--boxes", target, "--json", *FAST)
    facts = json.loads(done.stdout)
    (box,) = facts["boxes"]
    assert (box["label"], box["image"], box["issues"]) == ("red car", 0, [])
    assert (box["thousandths"], box["xyxy"]) == ([100, 200, 500, 900], [40.0, 120.0, 200.0, 540.0])
    assert 0 < box["confidence"] <= 1
    assert facts["saved"] == [str(target)]
    assert done.stderr == f"Replaced {target}, which was there already: 1 box\n"
    assert Image.open(target).format == "JPEG"


def test_several_pictures_have_a_file_each(pointing: ModelFiles, photo: Path, tmp_path: Path) -> None:
    """The answer names no picture: its box is drawn on the first, and no other is written."""
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 48)).save(other)
    target = tmp_path / "out.png"
    done = run("ask", pointing.text, "Where?", "-i", photo, "-i", other, "--boxes", target, "--json", *FAST)
    assert json.loads(done.stdout)["boxes"][0]["issues"] == ["guessed"]
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out-1.png"]
    done = run("ask", pointing.text, "Where is it in the second picture?", "-i", photo, "-i", other, "--boxes", target)
    assert done.stderr == f"Saved 1 box in {tmp_path / 'out-2.png'}\n"


def test_coco_is_chosen_by_the_ending(pointing: ModelFiles, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    assert run("ask", pointing.text, "Where?", "-i", photo, "--boxes", target, *FAST).returncode == 0
    coco = json.loads(target.read_text())
    assert coco["images"] == [{"id": 1, "file_name": str(photo), "width": 400, "height": 600}]
    assert coco["annotations"][0]["bbox"] == [40.0, 120.0, 160.0, 420.0]


def test_an_answer_without_boxes_writes_no_picture(tiny: ModelFiles, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    done = run("ask", tiny.text, "What?", "-i", photo, "--boxes", target, "-n", "4", *FAST)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == f"The answer names no box, so {target} was not written."
    assert not target.exists()


@pytest.mark.parametrize("name", ["out.gif", "out", "no-folder/out.png", "photo.jpg", "folder.png"])
def test_a_file_that_cannot_be_used_is_refused_before_anything_is_asked(
    pointing: ModelFiles, photo: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    before = photo.read_bytes()
    assert_two_lines(run("ask", pointing.text, "Where?", "-i", photo, "--boxes", tmp_path / name), code=2)
    assert photo.read_bytes() == before


def test_boxes_need_a_picture_and_no_batch(pointing: ModelFiles, tmp_path: Path) -> None:
    for more in (["Where?"], ["--batch", tmp_path / "questions.jsonl"]):
        done = run("ask", pointing.text, *more, "--boxes", tmp_path / "out.png")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--boxes" in done.stderr


def test_a_batch_has_the_boxes_of_each_answer(pointing: ModelFiles, photo: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"prompt": "Where?", "images": [str(photo)]}) + "\n")
    done = run("ask", pointing.text, "--batch", questions)
    (record,) = map(json.loads, done.stdout.splitlines())
    assert record["boxes"][0]["xyxy"] == [40.0, 120.0, 200.0, 540.0]


ANSWER = "<ref>red car</ref><box>[[100, 200, 500, 900]]</box>"


def test_inspect_shows_the_boxes_of_an_answer_from_elsewhere(photo: Path, tmp_path: Path) -> None:
    """Given as text, as a file of it, or as what `ask --json` wrote; no model is needed."""
    (tmp_path / "answer.txt").write_text(ANSWER)
    (tmp_path / "answer.json").write_text(json.dumps({"text": SHOWN, "boxes": []}))
    for answer, mended in ((ANSWER, ""), (tmp_path / "answer.txt", ""), (tmp_path / "answer.json", " (no tags)")):
        done = run("inspect", photo, "--boxes", answer)
        assert f"  box 1      red car: 40, 120 to 200, 540{mended}\n" in done.stdout
    facts = json.loads(run("inspect", photo, "--boxes", ANSWER, "--json").stdout)
    assert facts["boxes"][0]["xyxy"] == [40.0, 120.0, 200.0, 540.0]
    assert "boxes" not in json.loads(run("inspect", photo, "--json").stdout)


def test_inspect_draws_the_boxes_instead_of_the_grid(photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "drawn.png"
    done = run("inspect", photo, "--boxes", f"{ANSWER} <ref>dog</ref>", "--save", target)
    assert done.stderr == f"The answer names without a box: dog.\nSaved {target}\n"
    drawing = Image.open(target)
    assert (drawing.size, drawing.getpixel((120, 330))) == ((400, 600), (255, 255, 255))
    assert "none in this answer" in run("inspect", photo, "--boxes", "a red car " * 100).stdout
