"""Boxes as other tools take them: COCO's JSON, and arrays for `supervision.Detections`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from internvl_gguf.boxes.given import given_boxes, given_number, given_pictures
from internvl_gguf.boxes.which_picture import Size
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Box, MessagePicture
from internvl_gguf.utils import arguments
from internvl_gguf.utils.sizes import counted


def to_coco(boxes: Iterable[Box], pictures: Iterable[MessagePicture | tuple[str, Size]]) -> dict[str, Any]:
    """Return boxes in the format of COCO's object detection: `images`, `annotations` and `categories`.

    Ids count from 1. A bbox is [left, top, width, height] in pixels of the upright picture. Fields that COCO does not
    have stand beside its own: `score`, as in its results, where the confidence is known, and `thousandths`.

    Args:
        boxes: of one or several pictures.
        pictures: all pictures that `Box.image` counts, each as a message has it or as (file name, (width, height)).

    Raises:
        InvalidRequestError: boxes or pictures that are none, or a box of a picture that is not among them.
    """
    images = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, (width, height)) in enumerate(given_pictures(pictures), start=1)
    ]
    categories: dict[str, int] = {}
    annotations = []
    for number, box in enumerate(given_boxes(boxes), start=1):
        if not 0 <= box.image < len(images):
            raise InvalidRequestError(
                f"A box lies in picture {box.image + 1}, and there are {counted(len(images), 'picture')}.",
                "Give all pictures of the conversation, in their order.",
            )
        left, top, right, bottom = box.xyxy
        width, height = right - left, bottom - top
        annotation: dict[str, Any] = {
            "id": number,
            "image_id": box.image + 1,
            "category_id": categories.setdefault(box.label, len(categories) + 1),
            "bbox": [round(value, 2) for value in (left, top, width, height)],
            "area": round(width * height, 2),
            "iscrowd": 0,
            "segmentation": [],
            "thousandths": list(box.thousandths),
        }
        if box.confidence is not None:
            annotation["score"] = round(box.confidence, 4)
        annotations.append(annotation)
    named = [{"id": number, "name": label, "supercategory": ""} for label, number in categories.items()]
    return {"images": images, "annotations": annotations, "categories": named}


def to_arrays(
    boxes: Iterable[Box], *, image: int | None = None, classes: Iterable[str] | None = None
) -> dict[str, Any]:
    """Return boxes as the arguments of `supervision.Detections`: `Detections(**to_arrays(reply.boxes))`.

    Args:
        boxes: the boxes.
        image: number of the picture whose boxes are wanted; None for all.
        classes: the labels that are wanted, whose places are the class ids; None takes all, numbered as they come.

    Returns:
        xyxy, float32 [n, 4], in pixels; class_id, int64 [n]; confidence, float32 [n], or None where that of a box is
        not known; and data with the labels as "class_name", str [n].

    Raises:
        InvalidRequestError: boxes, a number or labels that are none.
    """
    import numpy as np

    wanted, labels = given_number("image", image), None if classes is None else _labels(classes)
    chosen = [
        box
        for box in given_boxes(boxes)
        if (wanted is None or box.image == wanted) and (labels is None or box.label in labels)
    ]
    if labels is None:
        labels = list(dict.fromkeys(box.label for box in chosen))
    ids = {label: number for number, label in reversed(list(enumerate(labels)))}
    known = [box.confidence for box in chosen if box.confidence is not None]
    return {
        "xyxy": np.array([box.xyxy for box in chosen], dtype=np.float32).reshape(-1, 4),
        "confidence": np.array(known, dtype=np.float32) if len(known) == len(chosen) else None,
        "class_id": np.array([ids[box.label] for box in chosen], dtype=np.int64),
        "data": {"class_name": np.array([box.label for box in chosen], dtype=np.str_)},
    }


def _labels(classes: object) -> list[str]:
    hint = "Give a list of labels, or leave it out for all."
    return [arguments.text("A label", label, hint) for label in arguments.items("classes", classes, hint)]
