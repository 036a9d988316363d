"""One conversation of the history."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from internvl_gguf.config import AskOptions
from internvl_gguf.errors import HistoryError
from internvl_gguf.history import rows
from internvl_gguf.history.clip_frames import as_tile, frames_of, in_shape
from internvl_gguf.history.conversation_store import ConversationStore
from internvl_gguf.history.entries import Entry, Heading, HistoryPicture, HistoryQuestion, PictureCut, new_id, title_of
from internvl_gguf.history.json_export import export_json, is_json_of
from internvl_gguf.history.markdown_export import export_markdown, is_markdown_of, picture_folder
from internvl_gguf.history.picture_files import missing_picture_notice
from internvl_gguf.session.prompt_template import IMAGE_PLACE
from internvl_gguf.types import Chunk, Message, MessagePicture, Picture, Reply, ShownClip
from internvl_gguf.utils import arguments

if TYPE_CHECKING:
    from internvl_gguf.session.contract import AnySession


_FORMATS: Final = {
    ".md": (export_markdown, is_markdown_of),
    ".markdown": (export_markdown, is_markdown_of),
    ".json": (export_json, is_json_of),
}
"""By suffix: the function that writes a conversation, and the one that recognises its file by the first characters."""
_BEGINNING: Final = 4096


class _RemovedError(Exception):
    """The conversation was removed from the history by another process."""


class Conversation:
    """A conversation that is saved as it goes. Made by `History.begin`, `find`, `latest` and `load`.

    A failed write is reported once through the history's `on_notice` and tried again with the next one; the chat goes
    on. If another process continues the same conversation, this one gets a new id from there on. A conversation that is
    removed meanwhile stays removed. One thread at a time uses it.

    Args:
        history: the history that saves it.
        heading: its heading.
        entries: its questions and answers.
        revision: revision of its row in the database; None before it is first written.

    Attributes:
        id: short id that is easy to type.
        model: name of the model it is held with.
        system: text of the system message; "" for none, None for the official one.
        created, updated: seconds since 1970, UTC.
        is_removed: whether it was removed from the history while it was open; it is not saved any more then.
    """

    def __init__(
        self, history: ConversationStore, heading: Heading, entries: Sequence[Entry], revision: int | None
    ) -> None:
        self.id = heading.id
        self.model = heading.model
        self.system = heading.system
        self.created = heading.created
        self.updated = heading.updated
        self.is_removed = False
        self._history = history
        self._entries = list(entries)
        self._revision = revision
        self._generation = history.generation
        self._written = len(self._entries) if revision is not None else 0  # entries that stand in the database

    @property
    def title(self) -> str:
        """Its first question in one line of printable characters; empty before that."""
        return title_of(self._entries)

    @property
    def heading(self) -> Heading:
        """Its heading."""
        return Heading(self.id, self.title, self.model, self.system, self.created, self.updated)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Questions and answers in turn; the last may be a question without an answer."""
        return tuple(self._entries)

    @property
    def unanswered(self) -> HistoryQuestion | None:
        """A last question without an answer, left by a killed process; asking another question removes it."""
        return self._question(self._entries[-1]) if self._has_open_question else None

    def stream(
        self, session: AnySession, prompt: str, images: Any = (), **options: Unpack[AskOptions]
    ) -> Generator[Chunk, None, None]:
        """Ask as `Session.stream` does, and save everything: the question at once, the answer when it is complete.

        The pictures' files are read once, here. A stream that ends early (closed, Ctrl-C, an error) saves what the
        session keeps: the part of the answer that was received; without any, nothing.

        Args:
            session: the session that answers.
            prompt, images, options: as in `Session.stream`; pictures as sources, not already cut. Of a clip the frames
                are kept that the model sees: a frame of one tile as the pixels of its tile, whatever the clip's size.

        Raises:
            As `Session.stream`: an invalid question is refused at once, and not saved.
        """
        from internvl_gguf.images.load import picture_list

        _check_session(session)
        prompt, given, clips, notices = frames_of(session, prompt, picture_list(images), options)
        taken = [self._take(session, image) for image in given]
        stream = session.stream(prompt, [picture for picture, _ in taken], **options)
        for notice in notices:
            self._history.on_notice(notice)
        if self._has_open_question:
            self._entries.pop()
        pictures = tuple(kept for _, kept in taken)
        self._entries.append(Entry("user", prompt, time.time(), pictures, options.get("layout", "separate")))
        self.keep()
        return self._recorded(session, stream, len(session.messages), clips)

    def picture_of(self, shown: Sequence[MessagePicture], number: int) -> Picture | None:
        """Return the file of a picture that a session shows; None if it is not in the history any more.

        Args:
            shown: all pictures of the session's messages; those that were dropped from them are still in the history.
            number: which of them, from 0.
        """
        kept = [picture for entry in self._entries for picture in entry.pictures]
        for index in range(len(shown) - 1, number - 1, -1):
            while kept and kept[-1].name != shown[index].name:
                kept.pop()
            if not kept:
                return None
            found = kept.pop()
        data = self._history.pictures.get(found.digest) if number < len(shown) else None
        if data is None:
            return None
        if found.label and found.cut:
            return replace(found.of(in_shape(data, found.cut.source_size)), label="")
        return Picture(data, *found.limits, name=found.name)

    def undo(self, session: AnySession) -> HistoryQuestion | None:
        """Remove the last question and its answer, here and in the session, and return it; None if there is none."""
        _check_session(session)
        if not self._entries:
            return None
        if not self._has_open_question:  # the session does not have an unanswered question
            if _ends_alike(session.messages, self._entries):
                session.undo()
            self._entries.pop()
        question = self._question(self._entries.pop())
        self.keep()
        return question

    def set_system(self, session: AnySession, text: str | None) -> None:
        """Replace the system message, here and in the session: "" for none, None for the official one."""
        _check_session(session)
        session.set_system(text)
        self.system = text
        self.keep()

    def set_model(self, name: str) -> None:
        """Record that another model answers from here on."""
        self.model = arguments.text("name", name)
        self.keep()

    def continue_in(self, session: AnySession) -> None:
        """Make a session continue this conversation: after a resume, or with another model or quant.

        Pictures are cut again from their stored bytes as they were before; a missing one is left out with a notice. The
        saved KV is restored if it is of this model. Otherwise everything is read again at the next question.
        """
        from internvl_gguf.history.rebuild_messages import rebuild_messages

        _check_session(session)
        answered = self._entries[:-1] if self._has_open_question else self._entries
        messages = rebuild_messages(session, answered, self._history.pictures, self._history.on_notice)
        session.continue_with(messages, saved=self._history.states.path(self.id))
        session.set_system(self.system)

    def keep_state(self, session: AnySession) -> bool:
        """Save the KV of the session for `continue_in`, when a chat ends; return whether it was saved."""
        _check_session(session)
        if self._revision is None or self.is_removed or not self._entries or self._has_open_question:
            return False
        usage = self._entries[-1].statistics.get("usage", {})
        positions = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        return self._history.states.keep(self.id, session, positions)

    def picture_folder(self, path: Path) -> Path | None:
        """Return the folder in which `export` to this path puts copies of pictures; None if it copies none."""
        write, _ = _FORMATS.get(path.suffix.lower(), (None, None))
        has_pictures = any(entry.pictures for entry in self._entries)
        return picture_folder(path) if has_pictures and write is export_markdown else None

    def export(self, path: str | os.PathLike[str], *, copy_pictures: bool = True, overwrite: bool = False) -> Path:
        """Write the conversation to a file: Markdown (.md), or JSON (.json) that `History.load` reads.

        Args:
            path: the file; its suffix decides the format. An earlier export of this conversation is replaced.
            copy_pictures: for Markdown, whether pictures are copied beside the file, or linked where they were.
            overwrite: whether any other existing file is replaced, too.

        Returns:
            The file.

        Raises:
            HistoryError: another suffix, another existing file, or the file cannot be written.
        """
        path = Path(arguments.path("path", path))
        write, is_export_of = _FORMATS.get(path.suffix.lower(), (None, None))
        if write is None or is_export_of is None:
            raise HistoryError(f"A conversation is not written as {path.name}.", "Call the file .md or .json.")
        if not overwrite and path.exists() and not is_export_of(_beginning(path), self.heading):
            raise HistoryError(
                f"{path} is there already, and not from this conversation.", "Name another file, or remove that one."
            )
        try:
            write(path, self.heading, self._entries, self._history.pictures, copy_pictures)
        except OSError as error:
            raise HistoryError(
                f"{path} cannot be written: {error.strerror or error}.", "Choose another place, or free some space."
            ) from error
        return path

    def keep(self) -> None:
        """Write the changes of this conversation to the database, if it can be written."""
        if self.is_removed or (self._revision is None and not self._entries):
            return
        self.updated = time.time()
        state: list[tuple[str, int | None]] = []
        try:
            if not self._history.write(lambda connection: state.append(self._write(connection))):
                return
        except _RemovedError:
            self.is_removed = True
            self._history.on_notice(f"Conversation {self.id} was removed from the history: it is not kept any more.")
            return
        before, self.id, self._revision = (self._revision, self.id), *state[-1]
        self._generation = self._history.generation
        self._written = len(self._entries)
        self._history.pictures.settle([each.digest for entry in self._entries for each in entry.pictures])
        if before[0] is not None and before[1] != self.id:
            self._history.on_notice(f"Conversation {before[1]} goes on elsewhere: this one is {self.id} from here.")

    def _write(self, connection: sqlite3.Connection) -> tuple[str, int | None]:
        """Write what the database does not have, inside a transaction; return the new id and revision.

        Raises:
            _RemovedError: another process has removed the conversation.
        """
        heading, revision, written = self.heading, self._revision, min(self._written, len(self._entries))
        if self._generation != self._history.generation:  # a damaged database was moved aside
            revision = None
        if revision is not None and not self._entries:
            rows.delete_conversations(connection, [self.id])
            return self.id, None
        if revision is not None and not rows.update_heading(connection, heading, revision):
            if rows.read_heading(connection, self.id) is None:
                raise _RemovedError
            heading, revision = replace(heading, id=new_id()), None  # another process continues it
        if revision is None:
            written = 0
            while not rows.insert_heading(connection, heading):
                heading = replace(heading, id=new_id())
        rest = self._entries[written:]
        self._history.pictures.write([each.digest for entry in rest for each in entry.pictures])
        rows.replace_entries(connection, heading.id, written, rest)
        return heading.id, 0 if revision is None else revision + 1

    def _recorded(
        self, session: AnySession, stream: Generator[Chunk, None, None], before: int, clips: tuple[ShownClip, ...]
    ) -> Generator[Chunk, None, None]:
        """Pass on the stream of an answer, and save the answer when it is complete, or the part that came."""
        is_kept = False
        try:
            for chunk in stream:
                if chunk.reply is None:
                    yield chunk
                    continue
                reply = replace(chunk.reply, clips=clips or chunk.reply.clips)
                self._answer(session.messages[before:], reply)
                is_kept = True
                yield replace(chunk, reply=reply)
        finally:
            stream.close()
            if not is_kept:
                self._answer(session.messages[before:], None)

    def _answer(self, messages: Sequence[Message], reply: Reply | None) -> None:
        """Replace the last question by what the session kept of it: question and answer with their cuts, or nothing."""
        asked = self._entries.pop()
        self._written = min(self._written, len(self._entries))
        if messages:
            question, answer = messages
            shown = zip(asked.pictures, question.pictures, strict=True)
            pictures = tuple(replace(kept, cut=_cut_of(picture) or kept.cut) for kept, picture in shown)
            self._entries.append(replace(asked, pictures=pictures))
            self._entries.append(
                Entry(
                    "assistant", answer.text, time.time(), tokens=answer.tokens, model=self.model,
                    statistics=_statistics(reply), thinking=answer.thinking,
                )
            )  # fmt: skip
        self.keep()

    def _take(self, session: AnySession, image: Any) -> tuple[Picture, HistoryPicture]:
        """Return a picture with the bytes of its file, and the record of it for the history."""
        from internvl_gguf.images.load import describe_source, picture_bytes

        picture = image if isinstance(image, Picture) else Picture(image)
        if picture.label and picture.max_tiles == 1 and picture.source_size is None:
            picture = as_tile(session, picture)
        data = picture_bytes(picture.source)
        name = describe_source(picture.source if picture.name is None else picture.name)
        kept = HistoryPicture(
            self._history.pictures.add(data),
            name,
            _path_of(picture, len(data)),
            (picture.max_tiles, picture.min_tiles, picture.thumbnail),
            None if picture.source_size is None else PictureCut((1, 1), False, picture.source_size),
            picture.label,
        )
        return replace(picture, source=data, name=name), kept

    def _question(self, entry: Entry) -> HistoryQuestion:
        """Return a question so that it can be asked again; missing pictures are left out with a notice."""
        pictures = []
        for kept in entry.pictures:
            data = self._history.pictures.get(kept.digest)
            if data is None:
                self._history.on_notice(missing_picture_notice(kept.name))
            else:
                pictures.append(kept.of(data))
        return HistoryQuestion(entry.text, tuple(pictures), entry.layout)

    @property
    def _has_open_question(self) -> bool:
        return bool(self._entries) and self._entries[-1].role == "user"


def _check_session(session: object) -> None:
    from internvl_gguf.session.contract import AnySession

    if not isinstance(session, AnySession):
        raise arguments.wrong("session", session, "Give a Session, as Session.open() makes one.")


def _cut_of(picture: MessagePicture) -> PictureCut | None:
    """Return how a picture was cut; None where a server cut it and did not say how."""
    return PictureCut(picture.grid, picture.has_thumbnail, picture.source_size) if picture.n_tiles else None


def _beginning(path: Path) -> str:
    """Return the first characters of a file; "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_BEGINNING).decode("utf-8", "replace")
    except OSError:
        return ""


def _ends_alike(messages: Sequence[Message], entries: Sequence[Entry]) -> bool:
    """Return whether a session still has the last question and answer: `/drop` may have removed them to make room.

    Places of pictures are ignored: a question has none for pictures that were dropped.
    """

    def bare(texts: Iterable[str]) -> list[str]:
        return [text.replace(IMAGE_PLACE, "") for text in texts]

    return bare(each.text for each in messages[-2:]) == bare(each.text for each in entries[-2:])


def _path_of(picture: Picture, n_bytes: int) -> str | None:
    """Return the absolute path of a picture's file; None if it is not known to come from a file."""
    named = picture.source if isinstance(picture.source, str | os.PathLike) else picture.name
    try:
        path = os.path.abspath(os.fsdecode(named or ""))  # noqa: PTH100
        path.encode()
        return path if Path(path).is_file() and Path(path).stat().st_size == n_bytes else None
    except (OSError, ValueError):
        return None


def _statistics(reply: Reply | None) -> dict[str, Any]:
    """Return the statistics of a reply to save; of a stopped answer, only that it was aborted."""
    if reply is None:
        return {"finish_reason": "aborted"}
    return {name: value for name, value in reply.to_dict().items() if name != "text"}
