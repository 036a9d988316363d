"""Boxes as other tools take them: COCO's JSON, and arrays for `supervision.Detections`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from internvl_gguf.boxes.which_picture import Size
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Box, MessagePicture


def to_coco(boxes: Iterable[Box], pictures: Sequence[MessagePicture | tuple[str, Size]]) -> dict[str, Any]:
    """Return boxes in the format of COCO's object detection: `images`, `annotations` and `categories`.

    Ids count from 1. A bbox is [left, top, width, height] in pixels of the upright picture. Fields that COCO does not
    have stand beside its own: `score`, as in its results, where the confidence is known, and `thousandths`.

    Args:
        boxes: of one or several pictures.
        pictures: all pictures that `Box.image` counts, each as a message has it or as (file name, (width, height)).

    Raises:
        InvalidRequestError: a box of a picture that is not among them.
    """
    images = [_coco_image(number, picture) for number, picture in enumerate(pictures, start=1)]
    categories: dict[str, int] = {}
    annotations = []
    for number, box in enumerate(boxes, start=1):
        if not 0 <= box.image < len(images):
            raise InvalidRequestError(
                f"A box lies in picture {box.image + 1}, and {len(images)} pictures were given.",
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


def _coco_image(number: int, picture: MessagePicture | tuple[str, Size]) -> dict[str, Any]:
    name, (width, height) = (
        (picture.name, picture.source_size) if isinstance(picture, MessagePicture) else (picture[0], picture[1])
    )
    return {"id": number, "file_name": name, "width": width, "height": height}


def to_arrays(
    boxes: Iterable[Box], *, image: int | None = None, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return boxes as the arguments of `supervision.Detections`: `Detections(**to_arrays(reply.boxes))`.

    Args:
        boxes: the boxes.
        image: number of the picture whose boxes are wanted; None for all.
        classes: the labels that are wanted, whose places are the class ids; None takes all, numbered as they come.

    Returns:
        xyxy, float32 [n, 4], in pixels; class_id, int64 [n]; confidence, float32 [n], or None where that of a box is
        not known; and data with the labels as "class_name", str [n].
    """
    import numpy as np

    chosen = [
        box for box in boxes if (image is None or box.image == image) and (classes is None or box.label in classes)
    ]
    labels = list(dict.fromkeys(box.label for box in chosen)) if classes is None else list(classes)
    ids = {label: number for number, label in reversed(list(enumerate(labels)))}
    known = [box.confidence for box in chosen if box.confidence is not None]
    return {
        "xyxy": np.array([box.xyxy for box in chosen], dtype=np.float32).reshape(-1, 4),
        "confidence": np.array(known, dtype=np.float32) if len(known) == len(chosen) else None,
        "class_id": np.array([ids[box.label] for box in chosen], dtype=np.int64),
        "data": {"class_name": np.array([box.label for box in chosen], dtype=np.str_)},
    }
