"""Arguments of this room as callers give them, checked: boxes, and pictures by their names and sizes."""

from __future__ import annotations

from typing import Final

from internvl_gguf.boxes.which_picture import Size
from internvl_gguf.types import Box, MessagePicture
from internvl_gguf.utils import arguments

_BOXES: Final = "Give boxes as an answer has them: reply.boxes."
_PICTURES: Final = "Give a list of pictures, each as a message has it or as (file name, (width, height))."


def given_boxes(boxes: object) -> list[Box]:
    """Return boxes of any iterable.

    Raises:
        InvalidRequestError: something else is given; so do all functions of this module.
    """
    found = list(arguments.items("boxes", boxes, _BOXES))
    for box in found:
        if not isinstance(box, Box):
            raise arguments.wrong("A box", box, _BOXES)
    return found


def given_number(name: str, picture: object) -> int | None:
    """Return the number of a picture; None for all."""
    return None if picture is None else arguments.whole(name, picture, "Give the number of a picture, or None for all.")


def given_size(name: str, size: object, hint: str) -> Size:
    """Return the (width, height) of a picture in pixels, each 1 or more."""
    sides = [arguments.whole(name, side, hint) for side in arguments.items(name, size, hint)]
    if len(sides) != 2 or min(sides) < 1:
        raise arguments.wrong(name, size, hint)
    return sides[0], sides[1]


def given_pictures(pictures: object) -> list[tuple[str, Size]]:
    """Return the name and size of each picture."""
    return [_name_and_size(picture) for picture in arguments.items("pictures", pictures, _PICTURES)]


def _name_and_size(picture: object) -> tuple[str, Size]:
    if isinstance(picture, MessagePicture):
        return picture.name, picture.source_size
    pair = list(arguments.items("A picture", picture, _PICTURES))
    if len(pair) != 2:
        raise arguments.wrong("A picture", picture, _PICTURES)
    return arguments.text("The name of a picture", pair[0], _PICTURES), given_size("A size", pair[1], _PICTURES)
