"""Boxes as COCO's JSON and as arrays for supervision."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from internvl_gguf.boxes import box_grammar, parse_boxes, to_arrays, to_coco
from internvl_gguf.errors import InvalidRequestError

TEXT = (
    "<ref>car</ref><box>[[100, 200, 500, 400], [0, 0, 10, 10]]</box>\n"
    "Image-2: <ref>dog</ref><box>[[0, 0, 1000, 1000]]</box>"
)
PICTURES = [("street.jpg", (200, 100)), ("park.jpg", (50, 40))]
BOXES = parse_boxes(TEXT, [size for _, size in PICTURES])


def test_coco_has_left_top_width_and_height_in_pixels() -> None:
    coco: dict[str, Any] = json.loads(json.dumps(to_coco(BOXES, PICTURES)))
    assert coco["images"][1] == {"id": 2, "file_name": "park.jpg", "width": 50, "height": 40}
    assert coco["annotations"][0]["bbox"] == [20, 20, 80, 20]
    assert coco["annotations"][0]["area"] == 1600
    assert [each["image_id"] for each in coco["annotations"]] == [1, 1, 2]
    names = {each["id"]: each["name"] for each in coco["categories"]}
    assert [names[each["category_id"]] for each in coco["annotations"]] == ["car", "car", "dog"]


def test_coco_has_a_score_where_the_confidence_is_known() -> None:
    known = [replace(BOXES[0], confidence=0.98765), BOXES[1]]
    assert [each.get("score") for each in to_coco(known, PICTURES)["annotations"]] == [0.9877, None]


def test_coco_refuses_a_box_of_a_picture_that_was_not_given() -> None:
    with pytest.raises(InvalidRequestError, match="picture 2"):
        to_coco(BOXES, PICTURES[:1])


def test_arrays_are_those_of_supervision() -> None:
    arrays = to_arrays(BOXES)
    assert (arrays["xyxy"].dtype, arrays["xyxy"].shape) == (np.float32, (3, 4))
    assert arrays["class_id"].tolist() == [0, 0, 1]
    assert arrays["data"]["class_name"].tolist() == ["car", "car", "dog"]
    assert arrays["confidence"] is None
    arrays = to_arrays([replace(box, confidence=0.5) for box in BOXES])
    assert arrays["confidence"].tolist() == [0.5, 0.5, 0.5]


def test_arrays_of_one_picture_or_of_some_labels() -> None:
    assert to_arrays(BOXES, image=1)["data"]["class_name"].tolist() == ["dog"]
    chosen = to_arrays(BOXES, classes=["bird", "dog"])
    assert chosen["class_id"].tolist() == [1]


def test_no_boxes_are_arrays_without_rows() -> None:
    arrays = to_arrays([])
    assert arrays["xyxy"].shape == (0, 4)
    assert arrays["confidence"].shape == arrays["class_id"].shape == (0,)


def test_the_grammar_has_the_tags_as_tokens_and_ends() -> None:
    grammar = box_grammar(max_labels=3, max_boxes=2)
    assert '<ref> LABEL </ref> <box> "[" box (", " box){0,1} "]" </box>' in grammar
    assert 'item ("\\n" item){0,2}' in grammar
