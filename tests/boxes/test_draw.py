"""Boxes drawn over a picture."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from internvl_gguf.boxes import draw_boxes, parse_boxes
from internvl_gguf.boxes.draw import SMALLEST_SIDE, drawn_labels, unwritable_labels
from internvl_gguf.boxes.label_places import place_labels
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Box

WHITE = (255, 255, 255)


def boxes_of(*lines: str, size: tuple[int, int] = (640, 480)) -> list[Box]:
    """Boxes of lines such as "car[1, 2, 3, 4]"."""
    return list(
        parse_boxes(
            "\n".join(f"<ref>{line.split('[')[0]}</ref><box>[{line[line.index('[') :]}]</box>" for line in lines), size
        )
    )


def changed(picture: Image.Image, paper: tuple[int, int, int] = WHITE) -> NDArray[np.bool_]:
    """Where a drawing is not the paper it was drawn on, bool [height, width]."""
    return np.asarray(np.any(np.asarray(picture) != np.array(paper), axis=2))


@pytest.mark.parametrize("side", [640, 1200, 4000])
@pytest.mark.parametrize("paper", [WHITE, (0, 0, 0), (128, 128, 128), (230, 159, 0)])
def test_a_frame_shows_on_any_paper_and_lies_on_the_edges(side: int, paper: tuple[int, int, int]) -> None:
    size = (side, side * 3 // 4)
    drawing = draw_boxes(Image.new("RGB", size, paper), boxes_of("a[250, 250, 750, 750]", size=size))
    assert drawing.size == size
    marks = changed(drawing, paper)
    middle = marks[size[1] // 2]
    assert middle[side // 4 - side // 100 : side // 4 + side // 100].any()
    assert middle[side * 3 // 4 - side // 100 : side * 3 // 4 + side // 100].any()
    assert not marks[size[1] // 2 - 20 : size[1] // 2 + 20, side // 2 - 20 : side // 2 + 20].any()


def test_a_label_hides_nothing_of_its_box_where_there_is_room() -> None:
    drawing = draw_boxes(Image.new("RGB", (640, 480), WHITE), boxes_of("a long label of words[300, 300, 500, 500]"))
    inside = changed(drawing)[150:235, 198:315]
    assert not inside.any()


def test_a_small_picture_is_enlarged_and_keeps_its_shape() -> None:
    drawing = draw_boxes(Image.new("RGB", (60, 40), WHITE), boxes_of("a[0, 0, 1000, 1000]", size=(60, 40)))
    assert drawing.size == (SMALLEST_SIDE, SMALLEST_SIDE * 2 // 3)


def test_boxes_at_the_edges_are_drawn_whole() -> None:
    drawing = draw_boxes(Image.new("RGB", (640, 480), WHITE), boxes_of("[0, 0, 1000, 1000]"))
    marks = changed(drawing)
    assert marks[0].all()
    assert marks[-1].all()
    assert marks[:, 0].all()
    assert marks[:, -1].all()


def test_a_box_of_no_area_is_drawn() -> None:
    assert changed(draw_boxes(Image.new("RGB", (640, 480), WHITE), boxes_of("[500, 500, 500, 500]"))).any()


def test_a_picture_is_drawn_on_as_it_is_seen() -> None:
    """A phone's photo lies on its side in the file; boxes are those of the upright picture."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 600), WHITE).save(file, "PNG", exif=exif)
    drawing = draw_boxes(file.getvalue(), boxes_of("[0, 0, 1000, 100]", size=(600, 800)))
    assert drawing.size == (600, 800)
    assert not changed(drawing)[120:].any()


def test_only_boxes_of_the_wanted_picture_are_drawn() -> None:
    paper = Image.new("RGB", (640, 480), WHITE)
    boxes = [replace(box, image=1) for box in boxes_of("a[0, 0, 500, 500]")]
    assert not changed(draw_boxes(paper, boxes, picture=0)).any()
    assert changed(draw_boxes(paper, boxes, picture=1)).any()


def test_boxes_of_one_label_share_a_colour_and_those_of_others_do_not() -> None:
    drawing = draw_boxes(
        Image.new("RGB", (640, 480), WHITE),
        boxes_of("a[100, 100, 200, 200]", "b[100, 400, 200, 500]", "a[100, 700, 200, 800]"),
    )
    first, second, third = (drawing.getpixel((96, round(0.48 * thousandths))) for thousandths in (100, 400, 700))
    assert first == third != second


def test_letters_that_the_font_lacks_become_numbers() -> None:
    boxes = [replace(boxes_of("a[0, 0, 1, 1]")[0], label=label) for label in ("chat noir", "猫", "Größe é")]
    assert drawn_labels(boxes) == ["chat noir", "box 2", "Grosse e"]
    assert unwritable_labels(boxes) == [(2, "猫")]
    assert drawn_labels([replace(boxes[0], confidence=0.931), replace(boxes[0], label="", confidence=1.0)]) == [
        "chat noir 93%",
        "100%",
    ]


def test_hostile_labels_are_drawn_in_the_picture() -> None:
    hostile = ["x" * 5000, "\x1b[31m", "a\nb\tc", "\u202eabc", "\ud800", "\0"]
    boxes = [replace(boxes_of("a[100, 100, 200, 200]")[0], label=label) for label in hostile]
    assert draw_boxes(Image.new("RGB", (640, 480), WHITE), boxes).size == (640, 480)


def test_labels_stay_in_the_picture_and_off_each_other() -> None:
    random = np.random.default_rng(4)
    corners = random.integers(0, 560, (30, 2))
    boxes = [(float(x), float(y), float(x + 40), float(y + 30)) for x, y in corners]
    places = place_labels(boxes, [(50, 16)] * 30, (640, 480))
    for left, top, right, bottom in places:
        assert 0 <= left < right <= 640
        assert 0 <= top < bottom <= 480
    overlaps = sum(
        min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
        for index, a in enumerate(places)
        for b in places[:index]
    )
    assert overlaps <= 5


def test_a_thousand_boxes_are_drawn() -> None:
    random = np.random.default_rng(5)
    lines = [
        f"thing {n % 40}[{x}, {y}, {x + 50}, {y + 50}]" for n, (x, y) in enumerate(random.integers(0, 900, (1000, 2)))
    ]
    assert changed(draw_boxes(Image.new("RGB", (640, 480), WHITE), boxes_of(*lines))).any()


def test_another_font_may_be_given(tmp_path: Path) -> None:
    paper = Image.new("RGB", (640, 480), WHITE)
    (tmp_path / "no.ttf").write_bytes(b"no font")
    for path in (tmp_path / "no.ttf", tmp_path / "missing.ttf"):
        with pytest.raises(InvalidRequestError, match=path.name):
            draw_boxes(paper, boxes_of("a[0, 0, 500, 500]"), font=path)


def test_a_font_with_more_letters_writes_them() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    font = str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
    boxes = [replace(boxes_of("a[0, 0, 500, 500]")[0], label=label) for label in ("кошка", "Größe", "猫")]
    assert drawn_labels(boxes, font) == ["кошка", "Größe", "box 3"]
    assert draw_boxes(Image.new("RGB", (640, 480), WHITE), boxes, font=font).size == (640, 480)
