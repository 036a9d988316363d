"""Recognises pictures that are in the conversation already, by their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_gguf.chat.attachments import Attachment
from internvl_gguf.utils.safe_text import safe_name

if TYPE_CHECKING:
    from internvl_gguf.types import MessagePicture


IsSame = Callable[[Attachment, "MessagePicture"], bool]
"""Returns whether an added picture is one of the conversation."""


def number_of(attachment: Attachment, shown: Sequence[MessagePicture | Attachment], is_same: IsSame) -> int:
    """Return the number, from 1, of the last picture that is the same as an added one; 0 if there is none."""
    for number in range(len(shown), 0, -1):
        other = shown[number - 1]
        if other.digest == attachment.digest if isinstance(other, Attachment) else is_same(attachment, other):
            return number
    return 0


def label_of(picture: MessagePicture | Attachment) -> str:
    """Return the name of a picture in the chat."""
    return picture.label if isinstance(picture, Attachment) else safe_name(Path(picture.name).name)


def clip_known(label: str, numbers: Sequence[int]) -> str:
    """Return the words for a clip all of whose frames the conversation has already, as pictures of these numbers."""
    which = f"pictures {min(numbers)} to {max(numbers)}" if len(set(numbers)) > 1 else f"picture {numbers[0]}"
    return f"{label} is in the conversation already ({which})"


def known_as(attachment: Attachment, known: MessagePicture | Attachment, number: int) -> str:
    """Return the words for a picture that the conversation has already, under its name or another one."""
    label = label_of(known)
    if attachment.label == label:
        return f"{label} is in the conversation already (picture {number})"
    return f"{attachment.label} is the same picture as {label} (picture {number})"
