"""The boxes of the last answer: drawn small where the terminal can, listed, and saved by `/boxes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from internvl_gguf.chat.formatting import columns, count
from internvl_gguf.chat.shown_pictures import label_of
from internvl_gguf.chat.typed_line import typed_path
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.utils.safe_text import safe_name, safe_text

if TYPE_CHECKING:
    from pathlib import Path

    from internvl_gguf.chat.chat import Chat
    from internvl_gguf.types import Box, MessagePicture, Picture

_NAMED = 4  # labels in the line after an answer


def show_boxes(chat: Chat, boxes: Sequence[Box]) -> None:
    """Show the pictures with the boxes of an answer, and a line about them; nothing where it has none."""
    if not boxes:
        return
    _preview(chat, boxes)
    labels = list(dict.fromkeys(safe_name(box.label, 30) or "without a label" for box in boxes))
    rest = f" and {count(len(labels) - _NAMED, 'other')}" if len(labels) > _NAMED else ""
    named = ", ".join(labels[:_NAMED]) + rest
    chat.screen.say(f"{count(len(boxes), 'box', 'boxes')}: {named}. /boxes lists them, /boxes FILE.png draws them.")


def boxes(chat: Chat, text: str) -> str:
    """List the boxes of the last answer, or write them to a file.

    Raises:
        InvalidRequestError: a file that boxes cannot be written to.
        PictureError: a picture is not there any more, or the file cannot be written.
    """
    found = chat.last_reply.boxes if chat.last_reply else ()
    if not found:
        chat.screen.say("The last answer has no boxes." if chat.last_reply else "No answer yet.")
    elif text:
        _write(chat, typed_path(text), found)
    else:
        _preview(chat, found)
        chat.screen.show_lines(columns([_row(chat, number, box) for number, box in enumerate(found, start=1)]))
    return ""


def _write(chat: Chat, target: Path, found: Sequence[Box]) -> None:
    from internvl_gguf.boxes.save import check_target, is_coco, numbered, save_coco, save_drawing

    shown = _shown(chat)
    if is_coco(target):
        _refuse_existing([target])
        check_target(target)
        save_coco(target, found, [(label_of(picture), picture.source_size) for picture in shown])
        chat.screen.say(f"Written to {safe_text(str(target))}.")
        return
    wanted = sorted({box.image for box in found})
    targets = numbered(target, len(wanted))
    for file in targets:
        check_target(file)
    _refuse_existing(targets)
    for image, file in zip(wanted, targets, strict=True):
        source = _source(chat, image)
        if source is None:
            raise PictureError(f"{label_of(shown[image])} is not in the history any more.", "Add it again, and ask.")
        save_drawing(file, source.source, [box for box in found if box.image == image])
        chat.screen.say(f"Written to {safe_text(str(file))}.")


def _refuse_existing(targets: Sequence[Path]) -> None:
    for file in targets:
        if file.exists():
            raise InvalidRequestError(f"{safe_name(str(file))} exists already.", "Name another file.")


def _preview(chat: Chat, found: Sequence[Box]) -> None:
    from internvl_gguf.images.load import load_image

    for image in sorted({box.image for box in found}) if chat.screen.shows_pictures else ():
        source = _source(chat, image)
        if source is not None:
            own = [box for box in found if box.image == image]
            chat.screen.preview(load_image(source.source, name=source.name), own)


def _row(chat: Chat, number: int, box: Box) -> tuple[str, str]:
    left, top, right, bottom = (round(pixel) for pixel in box.xyxy)
    shown = _shown(chat)
    where = f" in {label_of(shown[box.image])}" if len(shown) > 1 else ""
    sure = "" if box.confidence is None else f", {box.confidence:.0%} sure"
    mended = f" ({', '.join(box.issues)})" if box.issues else ""
    corners = f"{left}, {top} to {right}, {bottom}"
    return f"{number}", f"{safe_name(box.label) or 'without a label'}: {corners}{where}{sure}{mended}"


def _shown(chat: Chat) -> list[MessagePicture]:
    return [picture for message in chat.session.messages for picture in message.pictures]


def _source(chat: Chat, image: int) -> Picture | None:
    """Return a picture of the conversation as it was added; None if it is gone."""
    return chat.conversation.picture_of(_shown(chat), image)
