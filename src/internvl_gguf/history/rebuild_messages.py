"""Rebuilding the messages of a session from the entries of a conversation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from internvl_gguf.errors import PictureError
from internvl_gguf.history.entries import Entry, HistoryPicture
from internvl_gguf.history.picture_files import PictureFiles, missing_picture_notice
from internvl_gguf.session.prompt_template import IMAGE_PLACE
from internvl_gguf.types import Message, MessagePicture, PictureLayout
from internvl_gguf.utils.notices import Notice

if TYPE_CHECKING:
    from internvl_gguf.session.contract import AnySession


def rebuild_messages(
    session: AnySession, entries: Sequence[Entry], files: PictureFiles, on_notice: Notice
) -> list[Message]:
    """Return questions and answers as `Session.continue_with` takes them, pictures cut as they were before.

    Args:
        session: session whose model they are for.
        entries: questions and answers in turn.
        files: the pictures.
        on_notice: called for each missing picture; the conversation goes on without it.
    """
    messages = []
    for entry in entries:
        pictures = [_cut(session, kept, files) for kept in entry.pictures]
        gone = {place for place, picture in enumerate(pictures) if picture is None}
        for place in gone:
            on_notice(missing_picture_notice(entry.pictures[place].name))
        text = _without_places(entry.text, entry.layout, gone) if gone else entry.text
        shown = tuple(picture for picture in pictures if picture is not None)
        messages.append(Message(entry.role, text, shown, entry.layout, entry.tokens, entry.thinking))
    return messages


def _cut(session: AnySession, kept: HistoryPicture, files: PictureFiles) -> MessagePicture | None:
    """Return a picture cut as it was before; None if it is missing or cannot be read any more."""
    data = files.get(kept.digest)
    if data is None:
        return None
    try:
        picture = kept.of(data)
        if kept.cut is None:
            return session.picture(picture)
        return session.picture(picture, kept.cut.grid, has_thumbnail=kept.cut.has_thumbnail)
    except PictureError:
        return None


def _without_places(text: str, layout: PictureLayout, gone: Collection[int]) -> str:
    """Return a question without the `<image>` places of missing pictures."""
    first, *rest = text.split(IMAGE_PLACE)
    if layout == "combined":
        return text  # one place for all; without any picture it is text
    return first + "".join(("" if place in gone else IMAGE_PLACE) + piece for place, piece in enumerate(rest))
