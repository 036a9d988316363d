"""The slash command /boxes: list the boxes of the last answer, or write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from internvl_gguf.chat.answer_boxes import preview_boxes
from internvl_gguf.chat.formatting import columns
from internvl_gguf.chat.shown_pictures import label_of
from internvl_gguf.chat.typed_line import typed_path
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.utils.safe_text import safe_name, safe_text

if TYPE_CHECKING:
    from pathlib import Path

    from internvl_gguf.chat.chat import Chat
    from internvl_gguf.types import Box


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
        preview_boxes(chat.screen, chat.conversation, chat.last_shown, found)
        chat.screen.show_lines(columns([_row(chat, number, box) for number, box in enumerate(found, start=1)]))
    return ""


def _write(chat: Chat, target: Path, found: Sequence[Box]) -> None:
    from internvl_gguf.boxes.save import check_target, is_coco, numbered, save_coco, save_drawing

    shown = chat.last_shown
    wanted = sorted({box.image for box in found})
    targets = [target] if is_coco(target) else numbered(target, len(wanted))
    for file in targets:
        check_target(file)
        if file.exists():
            raise InvalidRequestError(f"{safe_name(str(file))} exists already.", "Name another file.")
    if is_coco(target):
        save_coco(target, found, [(label_of(picture), picture.source_size) for picture in shown])
        wanted = []
    for image, file in zip(wanted, targets, strict=False):
        source = chat.conversation.picture_of(shown, image)
        if source is None:
            raise PictureError(f"{label_of(shown[image])} is not in the history any more.", "Add it again, and ask.")
        save_drawing(file, source.source, [box for box in found if box.image == image])
    chat.screen.say(f"Written to {safe_text(', '.join(map(str, targets)))}.")


def _row(chat: Chat, number: int, box: Box) -> tuple[str, str]:
    left, top, right, bottom = (round(pixel) for pixel in box.xyxy)
    where = f" in {label_of(chat.last_shown[box.image])}" if len(chat.last_shown) > 1 else ""
    sure = "" if box.confidence is None else f", {box.confidence:.0%} sure"
    mended = f" ({', '.join(box.issues)})" if box.issues else ""
    corners = f"{left}, {top} to {right}, {bottom}"
    return f"{number}", f"{safe_name(box.label) or 'without a label'}: {corners}{where}{sure}{mended}"
