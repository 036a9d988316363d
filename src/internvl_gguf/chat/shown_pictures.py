"""Recognises pictures that are in the conversation already, by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.chat.attachments import Attachment
from internvl_gguf.images.load import load_image
from internvl_gguf.session.prepare import cut_as_before
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.session.model_runtime import ModelRuntime
    from internvl_gguf.types import MessagePicture


def number_of(attachment: Attachment, shown: Sequence[MessagePicture | Attachment], runtime: ModelRuntime) -> int:
    """Return the number, from 1, of the last picture that is the same as an added one; 0 if there is none."""
    return next((at + 1 for at in reversed(range(len(shown))) if _is_same(attachment, shown[at], runtime)), 0)


def label_of(picture: MessagePicture | Attachment) -> str:
    """Return the name of a picture in the chat."""
    return picture.label if isinstance(picture, Attachment) else safe_name(Path(picture.name).name)


def known_as(attachment: Attachment, known: MessagePicture | Attachment, number: int) -> str:
    """Return the words for a picture that the conversation has already, under its name or another one."""
    label = label_of(known)
    if attachment.label == label:
        return f"{label} is in the conversation already (picture {number})"
    return f"{attachment.label} is the same picture as {label} (picture {number})"


def _is_same(one: Attachment, other: MessagePicture | Attachment, runtime: ModelRuntime) -> bool:
    if isinstance(other, Attachment):
        return one.digest == other.digest
    if one.size != other.source_size:  # most are told apart by this, without reading the file again
        return False
    image = load_image(one.picture.source, name=one.picture.name)
    return cut_as_before(runtime, image, other.name, other.grid, other.has_thumbnail).tiles == other.tiles
