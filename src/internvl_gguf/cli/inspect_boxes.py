"""`internvl inspect --boxes`: the boxes of an answer that was given before, in pixels of the pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internvl_gguf.cli.output import can_print, is_terminal, print_document, print_fact, say
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.boxes import BoxReading
    from internvl_gguf.types import Box, Picture

AnswerOption = Annotated[
    str | None,
    typer.Option(
        "--boxes",
        metavar="ANSWER",
        help="Show the boxes that an answer names, given as text or as a file with it (also of ask --json); --save "
        "draws them instead of the grid.",
        show_default=False,
        allow_from_autoenv=False,
    ),
]


def read_answer(given: str, sizes: Sequence[tuple[int, int]]) -> BoxReading:
    """Return the boxes of an answer.

    Args:
        given: the answer, or the name of a file with it.
        sizes: (width, height) of each picture that it is about.

    Raises:
        InvalidRequestError: a file that is not there or holds no text.
    """
    from internvl_gguf.boxes import read_boxes
    from internvl_gguf.utils.text_data import decode_text

    path = Path(given)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # an answer may be longer than any name
        is_file = False
    if not is_file and path.suffix in (".json", ".txt") and "[" not in given:
        raise InvalidRequestError(f"There is no file {safe_name(given)}.", "Check the path given with --boxes.")
    text = decode_text(path.read_bytes(), safe_name(given)) if is_file else given
    try:
        document = json.loads(text) if is_file else None
    except ValueError:
        document = None
    answer = document.get("text") if isinstance(document, dict) else None
    return read_boxes(answer if isinstance(answer, str) else text, sizes)


def print_boxes(reading: BoxReading, names: Sequence[str], width: int) -> None:
    """Print each box: its label, its corners in pixels, its picture where there are several."""
    for number, box in enumerate(reading.boxes, start=1):
        left, top, right, bottom = (round(pixel) for pixel in box.xyxy)
        where = f" in {names[box.image]}" if len(names) > 1 else ""
        mended = f" ({', '.join(box.issues)})" if box.issues else ""
        label = safe_name(box.label) or "without a label"
        print_fact(f"  box {number}", f"{label}: {left}, {top} to {right}, {bottom}{where}{mended}", width)
    if not reading.boxes:
        print_fact("  boxes", "none in this answer", width)


def show_boxes(pictures: Sequence[Picture], boxes: Sequence[Box]) -> None:
    """Show the pictures with their boxes where the terminal can."""
    if not is_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "", "dumb", "unknown"):
        return
    from internvl_gguf.chat.terminal.preview import BOXES_COLUMNS, BOXES_ROWS, Protocol, draw, protocol_of
    from internvl_gguf.images.load import load_image

    protocol = protocol_of(os.environ)
    if protocol in (Protocol.BLOCKS, Protocol.BLOCKS_256) and not can_print("▀"):
        return
    for image, picture in enumerate(pictures):
        own = [box for box in boxes if box.image == image]
        if own:
            upright = load_image(picture.source, name=picture.name)
            print_document(draw(upright, protocol, (BOXES_COLUMNS, BOXES_ROWS), own))


def say_unread(reading: BoxReading) -> None:
    """Say what of the answer could not be read."""
    for line in reading.notices:
        say(line)
