"""The boxes of an answer in the chat: drawn small where the terminal can, named in a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from internvl_gguf.utils.safe_text import safe_name
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.chat.terminal.screen import Screen
    from internvl_gguf.history import Conversation
    from internvl_gguf.types import Box, MessagePicture

_NAMED = 4  # labels in the line after an answer


def show_boxes(
    screen: Screen, conversation: Conversation, shown: Sequence[MessagePicture], boxes: Sequence[Box]
) -> None:
    """Show the pictures with the boxes of an answer, and a line about them; nothing where it has none.

    Args:
        screen: shows them.
        conversation: has their files.
        shown: the pictures of the session, as `Box.image` counts them.
        boxes: the boxes.
    """
    if not boxes:
        return
    preview_boxes(screen, conversation, shown, boxes)
    labels = list(dict.fromkeys(safe_name(box.label, 30) or "without a label" for box in boxes))
    rest = f" and {counted(len(labels) - _NAMED, 'other')}" if len(labels) > _NAMED else ""
    named = ", ".join(labels[:_NAMED]) + rest
    screen.say(f"{counted(len(boxes), 'box', 'boxes')}: {named}. /boxes lists them, /boxes FILE.png draws them.")


def preview_boxes(
    screen: Screen, conversation: Conversation, shown: Sequence[MessagePicture], boxes: Sequence[Box]
) -> None:
    """Show each picture that has boxes, with its boxes, if the terminal can."""
    from internvl_gguf.images.load import load_image

    for image in sorted({box.image for box in boxes}) if screen.shows_pictures else ():
        source = conversation.picture_of(shown, image)
        if source is not None:
            own = [box for box in boxes if box.image == image]
            screen.preview(load_image(source.source, name=source.name), own)
