"""Boxes in the text of an answer: InternVL's format, what models make of it, and what no model should answer."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from internvl_gguf.boxes import parse_boxes, read_boxes
from internvl_gguf.boxes.which_picture import AskedPictures
from internvl_gguf.errors import InvalidRequestError

SIZE = (1000, 1000)


def found(text: str) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Labels and thousandths of an answer about one picture."""
    return [(box.label, box.thousandths) for box in parse_boxes(text, SIZE)]


def issues(text: str) -> tuple[str, ...]:
    """What was mended of the only box of an answer."""
    (box,) = parse_boxes(text, SIZE)
    return box.issues


def test_the_published_example_lies_where_it_lies_in_the_picture() -> None:
    """InternVL's documentation: COCO_train2014_000000581857.jpg, 427 x 640."""
    (box,) = parse_boxes("<ref>the lady with the blue shirt</ref><box>[[243, 469, 558, 746]]</box>", (427, 640))
    assert (box.label, box.image, box.thousandths) == ("the lady with the blue shirt", 0, (243, 469, 558, 746))
    assert box.xyxy == pytest.approx((103.761, 300.16, 238.266, 477.44))
    assert (box.confidence, box.issues) == (None, ())


def test_the_published_list_of_objects_is_read_inside_its_fence() -> None:
    text = (
        "Sure, I will detect and label all objects in the image and mark their positions.\n\n```\n"
        "<ref>shield</ref><box>[[30, 597, 273, 993]]</box>\n"
        "<ref>bomb</ref><box>[[473, 61, 552, 181], [569, 61, 648, 183]]</box>\n```\n"
    )
    assert found(text) == [
        ("shield", (30, 597, 273, 993)),
        ("bomb", (473, 61, 552, 181)),
        ("bomb", (569, 61, 648, 183)),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("car[[75, 658, 250, 871], [286, 558, 444, 711]]", [("car", 75), ("car", 286)]),
        ("```\nBulletproof Helmet[[1, 2, 269, 235]]\nscrew[[754, 376, 851, 429]]\n```", [("Bulletproof Helmet", 1)]),
        ("1. red car: [[10, 2, 30, 40]]", [("red car", 10)]),
        ("The cat[[1, 2, 3, 4]] sleeps, and a dog [[50, 60, 70, 80]] runs.", [("The cat", 1), ("and a dog", 50)]),
        ("[[243, 469, 558, 746]]", [("", 243)]),
        ('{"car": [[1, 2, 3, 4]]}', [("car", 1)]),
        ("<ref>car</ref>[[1, 2, 3, 4]]", [("car", 1)]),
        ("car</ref>[[1, 2, 3, 4]]</box>", [("car", 1)]),
        (
            '[{"bbox_2d": [1, 2, 300, 400], "label": "cat"}, {"label": "dog", "bbox": [5, 6, 7, 8]}]',
            [("cat", 1), ("dog", 5)],
        ),
        ('```\n[{"bbox_2d":[1,2,300,400],"label":"cat"}]\n```', [("cat", 1)]),
        ('```json\n[{"bbox_2d":[1,2,300,400],"label":"d\\u00f6g"}]\n```', [("dög", 1)]),
        ('[{"label":"cat","box":[[1,2,300,400], [5, 6, 7, 8]]}]', [("cat", 1), ("cat", 5)]),
        ("{'box': [1, 2, 3, 4], 'name': 'a cat'}", [("a cat", 1)]),
        ('[{"bbox": [1, 2, 3, 4]}, {"bbox": [5, 6, 7, 8], "label": "dog"}]', [("", 1), ("dog", 5)]),
    ],
)
def test_boxes_whose_tags_are_gone_are_read(text: str, expected: list[tuple[str, int]]) -> None:
    boxes = parse_boxes(text, SIZE)
    assert [(box.label, box.thousandths[0]) for box in boxes][: len(expected)] == expected
    assert all("no tags" in box.issues for box in boxes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A red circle.",
        "x = [[1, 2, 3, 4]]",
        "np.array([[1, 2, 3, 4]])",
        "```python\ncat[[1, 2, 3, 4]]\n```",
        '```python\nx = {"bbox": [1, 2, 3, 4]}\n```',
        '{"box": [1, 2]}',
        "The matrix is [[1, 2], [3, 4]].",
        "It lasted from [1990, 1991, 1992, 1993].",
        "<ref>car</ref>",
        "<box></box>",
        "<box>none</box>",
    ],
)
def test_what_is_no_box_gives_none(text: str) -> None:
    assert not parse_boxes(text, SIZE)


@pytest.mark.parametrize(
    ("numbers", "corners", "mended"),
    [
        ("[[558, 469, 243, 746]]", (243, 469, 558, 746), ("swapped",)),
        ("[[1, 746, 2, 469]]", (1, 469, 2, 746), ("swapped",)),
        ("[[0, 0, 1400, 1001]]", (0, 0, 1000, 1000), ("clipped",)),
        ("[[-5, 0, 14, 10]]", (0, 0, 14, 10), ("clipped",)),
        ("[[0.1, 0.25, 0.5, 1.0]]", (100, 250, 500, 1000), ("fractions",)),
        ("[[10.4, 20.0, 30.6, 40.0]]", (10, 20, 31, 40), ("rounded",)),
        ("[[5, 5, 5, 9]]", (5, 5, 5, 9), ("no area",)),
        ("[[2000, 5, 1500, 9]]", (1000, 5, 1000, 9), ("clipped", "no area")),
        ("[1, 2, 3, 4]", (1, 2, 3, 4), ()),
        ("1, 2, 3, 4", (1, 2, 3, 4), ("no brackets",)),
        ("(1, 2), (3, 4)", (1, 2, 3, 4), ("no brackets",)),
        ("[[1, 2], [3, 4]]", (1, 2, 3, 4), ("no brackets",)),
        ("[[1,2,3,4]]", (1, 2, 3, 4), ()),
        (f"[[0, 0, {'9' * 5000}, 1]]", (0, 0, 1000, 1), ("clipped",)),
    ],
)
def test_numbers_are_mended_with_a_word_for_it(
    numbers: str, corners: tuple[int, int, int, int], mended: tuple[str, ...]
) -> None:
    (box,) = parse_boxes(f"<ref>a</ref><box>{numbers}</box>", SIZE)
    assert (box.thousandths, box.issues) == (corners, mended)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("<ref>a</ref><box>[[1, 2, 3, 4]]</box><box>[[5, 6, 7, 8]]</box>", ["a", "a"]),
        ("<ref>a</ref><box>[[1, 2, 3, 4]]</box>, <box>[[5, 6, 7, 8]]</box>", ["a", "a"]),
        ("<ref>a</ref> stands at <box>[[1, 2, 3, 4]]</box>", ["a"]),
        ("<ref>a</ref><box>[[1, 2, 3, 4]]</box> beside the dog <box>[[5, 6, 7, 8]]</box>", ["a", "beside the dog"]),
        ("<ref>a</ref><ref>b</ref><box>[[1, 2, 3, 4]]</box>", ["b"]),
        ("<ref>3 < 4</ref><box>[[1, 2, 3, 4]]</box>", ["3 < 4"]),
        ("The dog <box>[[1, 2, 3, 4]]</box>", ["The dog"]),
    ],
)
def test_a_box_is_of_the_label_before_it(text: str, labels: list[str]) -> None:
    assert [label for label, _ in found(text)] == labels


def test_what_a_box_lacks_is_named_in_it() -> None:
    assert issues("<box>[[1, 2, 3, 4]]</box>") == ("no label",)
    assert issues("<ref>a<box>[[1, 2, 3, 4]]</box>") == ("not closed",)
    assert issues("<ref>a</ref><box>[[1, 2, 3, 4]] and so on") == ("not closed",)
    assert issues("[[1, 2, 3, 4]]") == ("no tags", "no label")


@pytest.mark.parametrize("end", range(len("<ref>b</ref><box>[[5, 6, 7, 8], [9, 10, 11, 12]]</box>")))
def test_an_answer_cut_off_anywhere_keeps_its_whole_boxes_and_says_so(end: int) -> None:
    """A number may be cut as well: without its bracket, a box of four numbers is left out."""
    whole = "<ref>a</ref><box>[[1, 2, 3, 4]]</box>\n"
    text = "<ref>b</ref><box>[[5, 6, 7, 8], [9, 10, 11, 12]]</box>"[:end]
    reading = read_boxes(whole + text, SIZE)
    complete = [(1, 2, 3, 4)]
    complete += [(5, 6, 7, 8)] if "8]" in text else []
    complete += [(9, 10, 11, 12)] if "12]" in text else []
    assert [box.thousandths for box in reading.boxes] == complete
    assert reading.is_cut_off == ("<box>" in text and not text.endswith("</box>"))
    if reading.is_cut_off:
        has_part = not text.rstrip("</box>").endswith(("]", "],", "], ", "], [", "]]"))
        assert ("left out" in reading.notices[0]) == has_part


def test_polygons_and_other_lists_are_named_and_not_read() -> None:
    reading = read_boxes("<ref>sign</ref><quad>[[1, 2, 3, 4, 5, 6, 7, 8]]</quad> a[[1, 2, 3, 4, 5, 6, 7, 8]]", SIZE)
    assert not reading.boxes
    assert [notice.split(":")[0] for notice in reading.notices] == [
        "Numbers of the answer that are no box were not read",
        "Only boxes are read, no polygons",
    ]


def test_labels_without_a_box_are_named_where_others_have_one() -> None:
    reading = read_boxes("<ref>a</ref> and <ref>b</ref><box>[[1, 2, 3, 4]]</box>", SIZE)
    assert reading.notices == ("The answer names without a box: a.",)


TWO = AskedPictures.of([(100, 100), (200, 200), (300, 300)], first=1, count=2, prompt="Where is the cat?")


@pytest.mark.parametrize(
    ("text", "expected", "is_guess"),
    [
        ("<ref>cat</ref><box>[[1, 2, 3, 4]]</box>", 1, True),
        ("<ref>cat in Image-3</ref><box>[[1, 2, 3, 4]]</box>", 2, False),
        ("In the second picture: <ref>cat</ref><box>[[1, 2, 3, 4]]</box>", 2, False),
        ("In the last image, <ref>cat</ref><box>[[1, 2, 3, 4]]</box>", 2, False),
        ("Image-1 shows <ref>cat</ref><box>[[1, 2, 3, 4]]</box>", 0, False),
        ("Frame2: cat[[1, 2, 3, 4]]", 2, False),
        ("The 1st photo has <ref>cat</ref><box>[[1, 2, 3, 4]]</box>", 1, False),
        ("Image-7: <ref>cat</ref><box>[[1, 2, 3, 4]]</box>", 1, True),
    ],
)
def test_a_box_lies_in_the_picture_that_the_answer_names(text: str, expected: int, is_guess: bool) -> None:
    (box,) = read_boxes(text, TWO).boxes
    assert (box.image, "guessed" in box.issues) == (expected, is_guess)
    assert box.xyxy[2] == pytest.approx(0.003 * TWO.sizes[expected][0])


def test_a_picture_named_before_holds_until_another_is() -> None:
    text = "Image-2: a[[1, 2, 3, 4]]\nb[[1, 2, 3, 4]]\nImage-3: c[[1, 2, 3, 4]]"
    assert [box.image for box in parse_boxes(text, [(9, 9)] * 3)] == [1, 1, 2]


def test_the_picture_that_the_question_names_is_no_guess() -> None:
    asked = AskedPictures.of(TWO.sizes, first=1, count=2, prompt="Where is the cat in Image-3?")
    (box,) = read_boxes("<ref>cat</ref><box>[[1, 2, 3, 4]]</box>", asked).boxes
    assert (box.image, box.issues) == (2, ())


CLIPS = AskedPictures.of(
    [(100, 100), (200, 200), (300, 300), (400, 400), (500, 500), (600, 600)],
    first=1,
    count=5,
    prompt="Where is the cat?",
    labels=["", "Frame1: ", "Frame2: ", "", "Video-2:\nFrame1 (0.5 s): ", "Frame2 (1.5 s): "],
)
"""A picture of an earlier question, then a clip of two frames, a picture, and a second clip."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Image-1: cat[[1, 2, 3, 4]]", 0),
        ("Image-2: cat[[1, 2, 3, 4]]", 3),
        ("In the first picture: cat[[1, 2, 3, 4]]", 3),
        ("Frame1: cat[[1, 2, 3, 4]]", 4),
        ("Frame2 (1.5 s): cat[[1, 2, 3, 4]]", 5),
        ("In the last frame: cat[[1, 2, 3, 4]]", 5),
    ],
)
def test_pictures_and_frames_of_clips_are_counted_as_the_prompt_numbers_them(text: str, expected: int) -> None:
    (box,) = read_boxes(text, CLIPS).boxes
    assert (box.image, "guessed" in box.issues) == (expected, False)


@pytest.mark.parametrize("text", ["Image-3: cat[[1, 2, 3, 4]]", "Frame3: cat[[1, 2, 3, 4]]"])
def test_a_number_that_no_picture_or_frame_has_is_no_mention(text: str) -> None:
    (box,) = read_boxes(text, CLIPS).boxes
    assert (box.image, "guessed" in box.issues) == (1, True)


def test_frames_alone_are_the_pictures_too() -> None:
    frames = AskedPictures.of([(9, 9)] * 3, 0, 3, "Where?", ["Frame1: ", "Frame2: ", "Frame3: "])
    asked = AskedPictures.of([(9, 9)] * 3, 0, 3, "Where is the cat in Frame3?", frames.labels)
    assert asked.asked == 2
    assert [frames.named(text) for text in ("the second picture", "frame #3", "Image-1")] == [1, 2, 0]


TAGS = st.sampled_from(
    [
        '{"box": ',
        '"label": "a"',
        "}",
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
        "<quad>",
        "[",
        "[[",
        "]",
        "]]",
        ",",
        ", ",
        "```",
        "\n",
        " ",
    ]
)
WORDS = st.sampled_from(["car", "Image-2", "second picture", "1", "999", "-4", "0.5", "1e9", "٣", "=", "(", "Frame1:"])
ANSWERS = st.lists(TAGS | WORDS | st.text(max_size=4), max_size=40).map("".join)


@given(ANSWERS, st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=3))
@example("<box>[[٣, ٣, ٣, ٣]]</box>", [(1, 1)])
def test_any_text_gives_boxes_inside_their_pictures(text: str, sizes: list[tuple[int, int]]) -> None:
    reading = read_boxes(text, sizes)
    for box, (start, end) in zip(reading.boxes, reading.places, strict=True):
        width, height = sizes[box.image]
        left, top, right, bottom = box.xyxy
        assert 0 <= left <= right <= width
        assert 0 <= top <= bottom <= height
        assert len(re.findall(r"\d+(?:\.\d+)?", text[start:end])) == 4
    assert list(reading.places) == sorted(reading.places)


LABELS = st.text("abc xyz", min_size=1, max_size=12).map(str.strip).filter(bool)
CORNERS = st.tuples(*[st.integers(0, 1000)] * 4)


@given(st.lists(st.tuples(LABELS, st.lists(CORNERS, min_size=1, max_size=3)), max_size=5), st.booleans())
def test_boxes_that_are_written_are_read_again(lines: list[tuple[str, list[tuple[int, ...]]]], has_tags: bool) -> None:
    text = "\n".join(
        f"<ref>{label}</ref><box>{list(map(list, boxes))}</box>" if has_tags else f"{label}{list(map(list, boxes))}"
        for label, boxes in lines
    )
    expected = [
        (label, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
        for label, boxes in lines
        for x1, y1, x2, y2 in boxes
    ]
    assert found(text) == expected


@pytest.mark.parametrize(
    "piece",
    [
        "[", "[[", "[ ", "<ref>", "<box>", "<box>[[", "[[1,2,3,4]],", "<ref>a</ref>", "[[1, ", "1", "1 ", "<", "</",
        "<box>[[1,2,3,4]]</box>", "a[[1,2,3,4]]", "a[[!", "-", ". ", "Image-2 ", "<quad>[", "]]</box>",
        "<ref>[[1,2,3,4]]", "<box>1,", "[[1,2,3,4", "\n", "[[\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", ["", "<ref>", "<ref>a</ref>", "<box>", "<box>[[", "<ref>" + "b" * 100_000 + "</ref>"])
def test_a_hostile_answer_takes_steps_in_proportion_to_its_length(head: str, piece: str) -> None:
    """Reading that took the square of the length would take hours here."""
    reading = read_boxes(head + piece * (300_000 // len(piece)), [(640, 480), (480, 640)])
    assert all(0 <= number <= 1000 for box in reading.boxes for number in box.thousandths)
    assert len(reading.places) == len(reading.boxes)


@pytest.mark.parametrize("size", [(), (0, 4), (4,), 5, "ab", [(4, 4), (4, 0)], (1.5, 2)])
def test_sizes_that_are_none_are_refused(size: object) -> None:
    with pytest.raises(InvalidRequestError):
        parse_boxes("", size)  # type: ignore[arg-type]


def test_pixels_are_thousandths_of_the_side() -> None:
    (box,) = parse_boxes("<box>[[1, 500, 999, 1000]]</box>", (3024, 4032))
    assert box.xyxy == (3.024, 2016.0, 999 * 3024 / 1000, 4032.0)
    assert math.isclose(box.to_dict()["xyxy"][0], 3.02)
