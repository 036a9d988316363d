"""Every public function about boxes with arguments of the wrong kind: two lines of words, never a bare TypeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from internvl_gguf.boxes import box_grammar, draw_boxes, parse_boxes, to_arrays, to_coco
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Box

BOX = Box("cat", 0, (1.0, 2.0, 3.0, 4.0), (10, 20, 30, 40))
PICTURE = ("photo.jpg", (100, 80))
PAPER = Image.new("RGB", (100, 80))
WRONG_BOXES = [None, 5, "cat", BOX, {"cat": BOX}, [BOX, "cat"], [None], [(1, 2, 3, 4)]]

TAKES_BOXES: list[Callable[[Any], object]] = [
    lambda boxes: draw_boxes(PAPER, boxes),
    lambda boxes: to_coco(boxes, [PICTURE]),
    lambda boxes: to_arrays(boxes),
]
WRONG: list[tuple[str, Callable[[Any], object], list[Any]]] = [
    ("picture is", lambda value: draw_boxes(PAPER, [BOX], picture=value), ["0", 1.5, True, [0]]),
    ("font is", lambda value: draw_boxes(PAPER, [BOX], font=value), [5, b"a.ttf", ["a.ttf"]]),
    ("image is", lambda value: to_arrays([BOX], image=value), ["0", 1.5, True, [0]]),
    ("classes is", lambda value: to_arrays([BOX], classes=value), [5, "cat", {"cat": 1}]),
    ("A label is", lambda value: to_arrays([BOX], classes=value), [[5], [None]]),
    ("pictures is", lambda value: to_coco([BOX], value), [None, 5, "photo.jpg", {"photo.jpg": (1, 2)}]),
    ("A picture is", lambda value: to_coco([BOX], value), [PICTURE, [5], ["photo.jpg"], [("photo.jpg",)]]),
    ("The name of a picture is", lambda value: to_coco([BOX], [(value, (1, 2))]), [5, None, b"photo.jpg"]),
    ("A size is", lambda value: to_coco([BOX], [("photo.jpg", value)]), [5, (1,), ("1", "2"), (0, 1), (1.5, 2), "12"]),
    ("size is", lambda value: parse_boxes("cat", value), [None, [(1, 2), 3], [3, (1, 2)], [(1, 2), None], [(1, 2, 3)]]),
    ("max_labels is", lambda value: box_grammar(value), ["1", None, 1.5, True, 0, -1]),
    ("max_boxes is", lambda value: box_grammar(1, value), ["1", None, 1.5, True, 0, -1]),
]


def assert_told(call: Callable[[], object], told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        call()
    assert caught.value.message.startswith(told)
    assert caught.value.hint.startswith(("Give ", "Use "))
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("function", TAKES_BOXES)
@pytest.mark.parametrize("boxes", WRONG_BOXES, ids=lambda boxes: f"{boxes!r:.20}")
def test_what_is_no_box_is_refused(function: Callable[[Any], object], boxes: object) -> None:
    assert_told(lambda: function(boxes), "A box is" if isinstance(boxes, list) else "boxes is")


@pytest.mark.parametrize(
    ("told", "function", "value"),
    [(told, function, value) for told, function, values in WRONG for value in values],
    ids=lambda value: "" if callable(value) else f"{value!r:.30}",
)
def test_an_argument_of_another_kind_is_refused_by_its_name(
    told: str, function: Callable[[Any], object], value: object
) -> None:
    assert_told(lambda: function(value), told)


def test_any_iterable_of_boxes_and_labels_will_do() -> None:
    assert draw_boxes(PAPER, iter([BOX])).size == draw_boxes(PAPER, (BOX,)).size
    assert len(to_coco((box for box in [BOX]), iter([PICTURE]))["annotations"]) == 1
    assert to_arrays({BOX}, classes=iter(["dog", "cat"]))["class_id"].tolist() == [1]
