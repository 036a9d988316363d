"""`internvl inspect --boxes`: the boxes of an answer that was given before, in pixels of the pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from internvl_gguf.cli.kept_boxes import kept_boxes
from internvl_gguf.cli.named_text import missing_file, named_text, shown_name
from internvl_gguf.cli.output import can_print, is_terminal, print_document, print_fact, say
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.boxes import BoxReading
    from internvl_gguf.types import Box, Picture

_ENDINGS = (".json", ".jsonl", ".txt")
"""Of names that are those of files; the text of an answer may end in anything."""

AnswerOption = Annotated[
    str | None,
    typer.Option(
        "--boxes",
        metavar="ANSWER",
        help="Show the boxes that an answer names, given as text, as a file with it, or as what ask --json or ask "
        "--boxes FILE.json wrote (- for stdin); --save draws them instead of the grid.",
        show_default=False,
        allow_from_autoenv=False,
    ),
]


def read_answer(given: str, sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> BoxReading:
    """Return the boxes of an answer.

    Args:
        given: the answer, or the name of a file with it, or with the JSON of one.
        sizes: (width, height) of each picture that is given.
        names: their names.

    Raises:
        InvalidRequestError: a file that is not there or holds no text.
    """
    from internvl_gguf.boxes import read_boxes

    content = named_text(given, "--boxes")
    if content is None and Path(given).suffix in _ENDINGS and "[" not in given:
        raise missing_file(given, "--boxes")
    content = given if content is None else content
    documents = _documents(content)
    if len(documents) > 1:
        raise InvalidRequestError(
            f"{shown_name(given)} has {len(documents):,} answers.", "Give one of its lines, in a file of its own."
        )
    document = documents[0] if documents else None
    if kept := kept_boxes(document, sizes, names):
        return kept
    answer = document.get("text") if isinstance(document, dict) else None
    return read_boxes(answer if isinstance(answer, str) else content, sizes)


def _documents(text: str) -> list[Any]:
    """Return the JSON of a text: one value, or an object in each of its lines; none if it is no JSON."""
    for pieces in ([text], [line for line in text.splitlines() if line.strip()]):
        try:
            found = [json.loads(piece) for piece in pieces]
        except (ValueError, RecursionError):
            continue
        if len(found) == 1 or all(isinstance(each, dict) for each in found):
            return found
    return []


def print_boxes(reading: BoxReading, names: Sequence[str], width: int) -> None:
    """Print each box: its label, its corners in pixels, its picture where there are several."""
    for number, box in enumerate(reading.boxes, start=1):
        left, top, right, bottom = (round(pixel) for pixel in box.xyxy)
        where = f" in {names[box.image]}" if len(names) > 1 else ""
        sure = "" if box.confidence is None else f", {box.confidence:.0%} sure"
        mended = f" ({', '.join(box.issues)})" if box.issues else ""
        label = safe_name(box.label) or "without a label"
        print_fact(f"  box {number}", f"{label}: {left}, {top} to {right}, {bottom}{where}{sure}{mended}", width)
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
