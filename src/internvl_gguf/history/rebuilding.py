"""Kept questions and answers as the messages of a session."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from internvl_gguf.errors import PictureError
from internvl_gguf.history.picture_files import PictureFiles, lost
from internvl_gguf.history.records import Entry, HistoryPicture
from internvl_gguf.images.load import load_image
from internvl_gguf.session.prepare import cut_as_before, prepare_picture
from internvl_gguf.session.prompt_template import IMAGE_PLACE, OFFICIAL_SYSTEM
from internvl_gguf.types import Message, MessagePicture, Picture, PictureLayout
from internvl_gguf.utils.notices import Notice

if TYPE_CHECKING:
    from internvl_gguf.session import Session


def rebuilt_messages(
    session: Session, system: str | None, entries: Sequence[Entry], files: PictureFiles, on_notice: Notice
) -> list[Message]:
    """A conversation as `Session.continue_with` takes it, its pictures cut as they were.

    Args:
        session: whose model it is for.
        system: text of the system message; "" for none, None for the official one.
        entries: questions and answers in turn.
        files: where the pictures are.
        on_notice: told of pictures that are gone; the conversation goes on without them.
    """
    text = OFFICIAL_SYSTEM if system is None else system
    messages = [Message("system", text)] if text else []
    for entry in entries:
        pictures = [_cut(session, kept, files) for kept in entry.pictures]
        gone = {place for place, picture in enumerate(pictures) if picture is None}
        for place in gone:
            on_notice(lost(entry.pictures[place].name))
        text = _without_places(entry.text, entry.layout, gone) if gone else entry.text
        shown = tuple(picture for picture in pictures if picture is not None)
        messages.append(Message(entry.role, text, shown, entry.layout, entry.tokens))
    return messages


def _cut(session: Session, kept: HistoryPicture, files: PictureFiles) -> MessagePicture | None:
    """A picture as it was cut; None where it is gone or cannot be read any more."""
    data = files.get(kept.digest)
    if data is None:
        return None
    try:
        if kept.cut is None:
            return prepare_picture(session.runtime, session.limits, Picture(data, *kept.limits, name=kept.name), {})
        image = load_image(data, name=kept.name)
        return cut_as_before(session.runtime, image, kept.name, kept.cut.grid, kept.cut.has_thumbnail)
    except PictureError:
        return None


def _without_places(text: str, layout: PictureLayout, gone: Collection[int]) -> str:
    """A question without the `<image>` places of pictures that are gone."""
    first, *rest = text.split(IMAGE_PLACE)
    if layout == "combined":
        return text  # one place for all; without any picture it is text
    return first + "".join(("" if place in gone else IMAGE_PLACE) + piece for place, piece in enumerate(rest))
