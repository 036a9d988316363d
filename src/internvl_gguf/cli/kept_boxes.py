"""The boxes that JSON keeps: what `ask --json` wrote, a record of `--batch`, or COCO's format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from internvl_gguf.boxes.corners import THOUSAND, in_pixels
from internvl_gguf.boxes.parse import CUT_IN_BOX, CUT_IN_LIST, BoxReading
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.types import Box, BoxIssue
from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.utils.sizes import counted

_GIVE: Final = "Give what `internvl ask --json` or --boxes FILE.json wrote, or the answer as text."


def kept_boxes(document: object, sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> BoxReading | None:
    """Return the boxes that a JSON document keeps, those of pictures that are given; None if it keeps none.

    Pictures are told apart by their names, and by their numbers where the document names none of those that are given
    and has as many. A notice says of which others boxes are left out.

    Args:
        document: what the JSON says.
        sizes: (width, height) of each picture that is given.
        names: their names.

    Raises:
        InvalidRequestError: a box of another shape.
    """
    if not isinstance(document, Mapping):
        return None
    try:
        if isinstance(document.get("annotations"), list) and isinstance(document.get("images"), list):
            shown = [str(image["file_name"]) for image in document["images"]]
            boxes = list(_of_coco(document))
        elif isinstance(document.get("boxes"), list):
            images = document.get("images")
            images = [images] if isinstance(images, str) else images if isinstance(images, list) else []
            shown = [name if isinstance(name, str) else "" for name in images]
            boxes = [_box(each) for each in document["boxes"]]
        else:
            return None
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        raise InvalidRequestError("The JSON given with --boxes has a box of another shape.", _GIVE) from None
    places = _places(shown, names)
    found, others = [], Counter[str]()
    for box in boxes:
        place = places.get(box.image)
        if place is None:
            others[shown[box.image] if box.image < len(shown) else f"picture {box.image + 1}"] += 1
        else:
            pixels = in_pixels(box.thousandths, sizes[place])
            found.append(Box(box.label, place, pixels, box.thousandths, box.confidence, box.issues))
    said = document.get("notices")
    cut = [line for line in (said if isinstance(said, list) else ()) if line in (CUT_IN_BOX, CUT_IN_LIST)]
    left_out = [
        f"Left out {counted(count, 'box', 'boxes')} of {safe_name(name, 200)}, which is not among the pictures given."
        for name, count in others.items()
    ]
    return BoxReading(tuple(found), (), (*cut, *left_out), is_cut_off=bool(cut))


def _box(given: Mapping[str, Any]) -> Box:
    """Return a box of `Box.to_dict`; its pixels are computed from its thousandths.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    corners = [int(number) for number in given["thousandths"]]
    left, top, right, bottom = corners
    image, confidence = int(given["image"]), given.get("confidence")
    if not (0 <= left <= right <= THOUSAND and 0 <= top <= bottom <= THOUSAND) or image < 0:
        raise ValueError(corners)
    issues = tuple(each for each in given.get("issues", ()) if each in get_args(BoxIssue))
    return Box(
        str(given["label"]),
        image,
        (0, 0, 0, 0),
        (left, top, right, bottom),
        None if confidence is None else float(confidence),
        issues,
    )


def _of_coco(document: Mapping[str, Any]) -> Iterator[Box]:
    """Yield the boxes of COCO's format; one of another program has no thousandths. Raises as `_box`."""
    labels = {each["id"]: each["name"] for each in document.get("categories", ())}
    numbers = {each["id"]: number for number, each in enumerate(document["images"])}
    for each in document["annotations"]:
        image = numbers[each["image_id"]]
        about, (left, top, width, height) = document["images"][image], each["bbox"]
        edges = ((left, about["width"]), (top, about["height"]))
        ends = ((left + width, about["width"]), (top + height, about["height"]))
        corners = [min(THOUSAND, max(0, round(at * THOUSAND / side))) for at, side in (*edges, *ends)]
        yield _box(
            {
                "label": labels.get(each.get("category_id"), ""),
                "image": image,
                "thousandths": each.get("thousandths", corners),
                "confidence": each.get("score"),
            }
        )


def _places(shown: Sequence[str], names: Sequence[str]) -> dict[int, int]:
    """Return the number of each picture among those given, by its number in the document."""
    for alike in (_same, _same_file_name):
        found = {
            number: place
            for number, each in enumerate(shown)
            for place in reversed(range(len(names)))
            if alike(each, names[place])
        }
        if found:
            return found
    count = len(names) if len(shown) in (0, len(names)) else 0
    return {number: number for number in range(count)}


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return bool(one and other) and Path(one).resolve() == Path(other).resolve()
    except (OSError, ValueError):
        return False


def _same_file_name(one: str, other: str) -> bool:
    return bool(one) and Path(one).name == Path(other).name
