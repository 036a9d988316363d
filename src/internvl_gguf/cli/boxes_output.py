"""The boxes of an answer, as `ask --boxes FILE` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from internvl_gguf.cli.output import say
from internvl_gguf.cli.run import option_errors
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.types import Box, Picture, Reply


def box_files(target: Path, pictures: Sequence[Picture]) -> list[Path]:
    """Return the files for the boxes of some pictures: one for each, or one for all in COCO's format.

    Raises:
        typer.BadParameter: there is no picture.
        typer.Exit: a file of another format, or one of the pictures; the user was told.
        PictureError: there is no such folder, or a folder of that name.
    """
    from internvl_gguf.boxes.save import check_target, is_coco, numbered

    if not pictures:
        raise typer.BadParameter("boxes lie in a picture: give one with -i", param_hint="--boxes")
    files = [target] if is_coco(target) else numbered(target, len(pictures))
    with option_errors():
        for file in files:
            check_target(file, [picture.source for picture in pictures])
    return files


def write_boxes(files: Sequence[Path], pictures: Sequence[Picture], boxes: Sequence[Box]) -> list[Path]:
    """Write the boxes of an answer, and say where they are.

    Every file is written, with no box where the answer names none: one of an earlier answer would pass for its.

    Args:
        files: as `box_files` returned them.
        pictures: the pictures of the question.
        boxes: the boxes, of these pictures.

    Returns:
        The files that were written.

    Raises:
        PictureError: a picture or a file that cannot be read or written.
    """
    from internvl_gguf.boxes.save import is_coco, save_coco, save_drawing
    from internvl_gguf.images.load import describe_source, load_image

    if is_coco(files[0]):
        sizes = [load_image(picture.source, name=picture.name).size for picture in pictures]
        names = [picture.name or describe_source(picture.source) for picture in pictures]
        is_new = not files[0].exists()
        save_coco(files[0], boxes, list(zip(names, sizes, strict=True)))
        _say_written(files[0], len(boxes), is_new)
        return [files[0]]
    written = []
    for number, (file, picture) in enumerate(zip(files, pictures, strict=True)):
        own = [box for box in boxes if box.image == number]
        is_new = not file.exists()
        save_drawing(file, picture.source, own)
        _say_written(file, len(own), is_new)
        _say_numbers(own)
        written.append(file)
    return written


def is_cut_off(reply: Reply) -> bool:
    """Return whether an answer ended before all its boxes were named, as far as that can be known."""
    from internvl_gguf.boxes.parse import CUT_IN_BOX, CUT_IN_LIST

    return reply.finish_reason == "length" or not {CUT_IN_BOX, CUT_IN_LIST}.isdisjoint(reply.notices)


def _say_written(file: Path, count: int, is_new: bool) -> None:
    boxes = counted(count, "box", "boxes") if count else "the answer names no box in it"
    if is_new:
        say(f"Saved {boxes} in {file}" if count else f"Saved {file}: {boxes}")
    else:
        say(f"Replaced {file}, which was there already: {boxes}")


def _say_numbers(boxes: Sequence[Box]) -> None:
    """Say which labels are drawn as numbers."""
    from internvl_gguf.boxes.draw import unwritable_labels

    if numbers := unwritable_labels(boxes):
        named = ", ".join(f"box {number} is {label}" for number, label in numbers)
        say(f"Labels whose letters the drawing lacks: {named}")
