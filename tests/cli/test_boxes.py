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
    """The answer names no picture: its box is drawn on the first, and the other has none."""
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 48)).save(other)
    target = tmp_path / "out.png"
    done = run("ask", pointing.text, "Where?", "-i", photo, "-i", other, "--boxes", target, "--json", *FAST)
    assert json.loads(done.stdout)["boxes"][0]["issues"] == ["guessed"]
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out-1.png", "out-2.png"]
    done = run("ask", pointing.text, "Where is it in the second picture?", "-i", photo, "-i", other, "--boxes", target)
    assert done.stderr.splitlines() == [
        f"Replaced {tmp_path / 'out-1.png'}, which was there already: the answer names no box in it",
        f"Replaced {tmp_path / 'out-2.png'}, which was there already: 1 box",
    ]
    assert Image.open(tmp_path / "out-1.png").getcolors() == [(400 * 600, (255, 255, 255))]


def test_coco_is_chosen_by_the_ending(pointing: ModelFiles, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    assert run("ask", pointing.text, "Where?", "-i", photo, "--boxes", target, *FAST).returncode == 0
    coco = json.loads(target.read_text())
    assert coco["images"] == [{"id": 1, "file_name": str(photo), "width": 400, "height": 600}]
    assert coco["annotations"][0]["bbox"] == [40.0, 120.0, 160.0, 420.0]


def test_no_file_of_an_earlier_answer_is_left_for_one_without_boxes(
    pointing: ModelFiles, photo: Path, tmp_path: Path
) -> None:
    """An answer that was cut off before its box is complete fails; what there is of it replaces the older files."""
    for name in ("out.png", "out.json"):
        target = tmp_path / name
        assert run("ask", pointing.text, "Where?", "-i", photo, "--boxes", target, *FAST).returncode == 0
        done = run("ask", pointing.text, "Where?", "-i", photo, "--boxes", target, "-n", "4", *FAST)
        assert done.returncode == 1
        assert f"Replaced {target}, which was there already: the answer names no box in it" in done.stderr
        assert "cut at its limit" in done.stderr
    assert json.loads(target.read_text())["annotations"] == []
    assert len(Image.open(tmp_path / "out.png").getcolors() or ()) == 1


def test_an_answer_in_words_has_a_picture_without_boxes(tiny: ModelFiles, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    done = run("ask", tiny.text, "What?", "-i", photo, "--boxes", target, "-n", "4", "--grammar", 'start: "no"', *FAST)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == f"Saved {target}: the answer names no box in it"


@pytest.mark.parametrize("name", ["out.gif", "out", "photo.jpg", ""])
def test_a_file_that_cannot_be_used_is_refused_before_anything_is_asked(
    pointing: ModelFiles, photo: Path, tmp_path: Path, name: str
) -> None:
    before = photo.read_bytes()
    assert_two_lines(run("ask", pointing.text, "Where?", "-i", photo, "--boxes", name and tmp_path / name), code=2)
    assert photo.read_bytes() == before


@pytest.mark.parametrize("command", [("ask", "none.gguf", "Where?", "-i"), ("inspect",)], ids=lambda words: words[0])
@pytest.mark.parametrize("name", ["no-folder/out.png", "folder.png"])
def test_a_folder_that_is_not_there_or_in_the_way_is_a_failure(
    photo: Path, tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    """As a picture or a model that is not there: 2 is for what no folder could make right."""
    (tmp_path / "folder.png").mkdir()
    option = "--save" if command[0] == "inspect" else "--boxes"
    done = run(*command, photo, option, tmp_path / name)
    assert_two_lines(done, code=1)
    assert "folder" in done.stderr


@pytest.mark.parametrize("form", [["--choices", "a,b"], ["--schema", "name, age int"]], ids=lambda words: words[0])
def test_a_form_without_room_for_boxes_is_refused_beside_them(photo: Path, tmp_path: Path, form: list[str]) -> None:
    done = run("ask", "none.gguf", "Where?", "-i", photo, "--boxes", tmp_path / "out.png", *form)
    assert_two_lines(done, code=2)
    assert form[0] in done.stderr
    lists = ["--schema", "label, bbox list[int]"]
    assert_two_lines(run("ask", "none.gguf", "Where?", "-i", photo, "--boxes", tmp_path / "out.png", *lists), code=1)


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
    """Given as text, or as a file of it; no model is needed."""
    (tmp_path / "answer.txt").write_text(ANSWER)
    (tmp_path / "answer.json").write_text(json.dumps({"text": SHOWN}))
    for answer, mended in ((ANSWER, ""), (tmp_path / "answer.txt", ""), (tmp_path / "answer.json", " (no tags)")):
        done = run("inspect", photo, "--boxes", answer)
        assert f"  box 1      red car: 40, 120 to 200, 540{mended}\n" in done.stdout
    facts = json.loads(run("inspect", photo, "--boxes", ANSWER, "--json").stdout)
    assert facts["boxes"][0]["xyxy"] == [40.0, 120.0, 200.0, 540.0]
    assert "boxes" not in json.loads(run("inspect", photo, "--json").stdout)


def test_inspect_takes_the_boxes_that_a_document_keeps(pointing: ModelFiles, photo: Path, tmp_path: Path) -> None:
    """What `ask --json` and --boxes FILE.json wrote: each box in its own picture, as sure as it was."""
    other = tmp_path / "other.png"
    Image.new("RGB", (100, 1000)).save(other)
    kept, coco = tmp_path / "answer.json", tmp_path / "coco.json"
    question = ("ask", pointing.text, "Where is it in the second picture?", "-i", photo, "-i", other, *FAST)
    kept.write_text(run(*question, "--json", "--boxes", coco).stdout)
    (box,) = json.loads(kept.read_text())["boxes"]
    for file in (kept, coco):
        facts = json.loads(run("inspect", photo, other, "--boxes", file, "--json").stdout)
        assert facts["boxes"] == [box]
        facts = json.loads(run("inspect", other, "--boxes", file, "--json").stdout)
        assert facts["boxes"] == [{**box, "image": 0}]
        done = run("inspect", photo, "--boxes", file)
        assert "none in this answer" in done.stdout
        assert done.stderr == f"Left out 1 box of {other}, which is not among the pictures given.\n"
    assert (
        f"red car: 10, 200 to 50, 900, {box['confidence']:.0%} sure\n" in run("inspect", other, "--boxes", kept).stdout
    )
    piped = run("inspect", other, "--boxes", "-", "--json", stdin=kept.read_bytes())
    assert json.loads(piped.stdout)["boxes"] == [{**box, "image": 0}]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"boxes": [{"label": "car"}]}, "a box of another shape"),
        ({"boxes": [{"label": "car", "image": 0, "thousandths": [9, 1, 2, 3]}]}, "a box of another shape"),
        ({"boxes": ["car"]}, "a box of another shape"),
        ({"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}, "a box of another shape"),
    ],
    ids=str,
)
def test_a_document_with_something_else_for_boxes_is_refused(
    photo: Path, tmp_path: Path, document: object, told: str
) -> None:
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(document))
    done = run("inspect", photo, "--boxes", file)
    assert_two_lines(done, code=1)
    assert told in done.stderr


def test_a_file_of_several_answers_is_none(photo: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"text": "a", "boxes": []}\n{"text": "b", "boxes": []}\n')
    done = run("inspect", photo, "--boxes", file)
    assert_two_lines(done, code=1)
    assert "2 answers" in done.stderr


def test_inspect_draws_the_boxes_instead_of_the_grid(photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "drawn.png"
    done = run("inspect", photo, "--boxes", f"{ANSWER} <ref>dog</ref>", "--save", target)
    assert done.stderr == f"The answer names without a box: dog.\nSaved {target}\n"
    drawing = Image.open(target)
    assert (drawing.size, drawing.getpixel((120, 330))) == ((400, 600), (255, 255, 255))
    assert "none in this answer" in run("inspect", photo, "--boxes", "a red car " * 100).stdout
