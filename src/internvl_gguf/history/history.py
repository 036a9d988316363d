"""The history: all conversations, stored in the data folder."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from internvl_gguf.errors import HistoryError
from internvl_gguf.history import rows, word_search
from internvl_gguf.history.conversation import Conversation
from internvl_gguf.history.database import is_damage, open_database, transaction
from internvl_gguf.history.entries import Entry, Heading, Summary, new_id
from internvl_gguf.history.json_export import read_exported
from internvl_gguf.history.picture_files import PictureFiles
from internvl_gguf.history.saved_states import SavedStates
from internvl_gguf.utils import arguments
from internvl_gguf.utils.notices import Notice, log_notice
from internvl_gguf.utils.paths import data_dir

STATE_BYTES: Final = 4 * 1024**3
"""Default bound of all saved states on disk, in bytes."""

_CANDIDATES: Final = 5

_Result = TypeVar("_Result")


class History:
    """All conversations; any number of processes may use one history at once. Close it or use it in a `with` statement.

    Made by `open`, `open_or_forget` and `forgetful`. Any thread may use it.

    Attributes:
        pictures: files of their pictures.
        states: saved sessions of the last conversations.
        generation: number of times that a damaged database was replaced.
        on_notice: called with notices for the user.
    """

    def __init__(
        self, folder: Path | None, connection: sqlite3.Connection | None, on_notice: Notice, state_bytes: int
    ) -> None:
        self.pictures = PictureFiles(folder / "pictures" if folder else None)
        self.states = SavedStates(folder / "states" if folder else None, state_bytes)
        self.generation = 0
        self.on_notice = on_notice
        self._folder = folder
        self._connection = connection
        self._lock = threading.RLock()
        self._has_warned = False

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str] | None = None,
        *,
        on_notice: Notice = log_notice,
        state_bytes: int = STATE_BYTES,
    ) -> History:
        """Open the history, or create it.

        Args:
            folder: folder of the history; None for `paths.data_dir()`.
            on_notice: called with one line if a damaged database was moved aside, or a write failed.
            state_bytes: most bytes of all saved states; 0 saves none.

        Raises:
            HistoryError: it is of a later version of this package, or cannot be opened.
        """
        place = data_dir() if folder is None else Path(arguments.path("folder", folder))
        arguments.functions(on_notice=on_notice)
        arguments.whole("state_bytes", state_bytes)
        return cls(place, open_database(place, on_notice), on_notice, state_bytes)

    @classmethod
    def open_or_forget(
        cls,
        folder: str | os.PathLike[str] | None = None,
        *,
        on_notice: Notice = log_notice,
        state_bytes: int = STATE_BYTES,
    ) -> History:
        """Open the history as `open` does; if that fails, give a notice and return one that is kept in memory only."""
        try:
            return cls.open(folder, on_notice=on_notice, state_bytes=state_bytes)
        except HistoryError as error:
            on_notice(f"This conversation is not kept. {error.message} {error.hint}")
            return cls.forgetful(on_notice=on_notice)

    @classmethod
    def forgetful(cls, *, on_notice: Notice = log_notice) -> History:
        """Return a history that is kept in memory only (`--no-history`)."""
        return cls(None, None, on_notice, 0)

    @property
    def is_kept(self) -> bool:
        """Whether conversations are saved to disk."""
        return self._connection is not None

    @property
    def folder(self) -> Path | None:
        """Folder of the history; None if it is in memory only."""
        return self._folder

    def begin(self, model: str, system: str | None = None) -> Conversation:
        """Begin a new conversation; nothing is written before its first question.

        Args:
            model: name of the model, with its quant.
            system: text of the system message; "" for none, None for the official one.
        """
        arguments.text("model", model)
        arguments.text_or_none("system", system)
        now = time.time()
        return Conversation(self, Heading(new_id(), "", model, system, now, now), [], None)

    def latest(self) -> Conversation | None:
        """Return the conversation that was changed last; None if there is none.

        Raises:
            HistoryError: the database cannot be read.
        """
        found = self._read(rows.latest_id, None)
        return None if found is None else self.find(found)

    def find(self, wanted: str) -> Conversation:
        """Return the conversation whose id begins with `wanted`.

        Raises:
            HistoryError: there is none, or there are several; or the database cannot be read.
        """
        prefix = arguments.text("wanted", wanted, "Give the id of a conversation, or how it begins.").strip().lower()
        found: list[str] = []
        if prefix:
            found = self._read(lambda connection: rows.ids_beginning(connection, prefix, _CANDIDATES), found)
        if len(found) > 1:
            more = ", …" if len(found) == _CANDIDATES else ""
            raise HistoryError(f"Several conversations begin with {wanted!r}.", f"They are {', '.join(found)}{more}.")
        read = self._read(lambda connection: _read_conversation(connection, found[0]), None) if found else None
        if read is None:
            raise HistoryError(f"There is no conversation {wanted!r}.", "`internvl history` lists those there are.")
        (heading, revision), entries = read
        return Conversation(self, heading, entries, revision)

    def search(self, text: str = "", limit: int | None = None) -> list[Summary]:
        """Return the conversations in which all words of a text occur, in upper or lower case; the newest first.

        A word is found in questions, answers and names of pictures, also inside other words.

        Args:
            text: words; "" finds all conversations.
            limit: most conversations; None for no limit.

        Raises:
            HistoryError: the database cannot be read.
        """
        words = arguments.text("text", text).replace("\0", " ").split()
        if limit is not None:
            limit = arguments.whole("limit", limit)

        def look(connection: sqlite3.Connection) -> list[Summary]:
            ids = word_search.ids_with_words(connection, words) if words else None
            found = rows.summaries(connection, ids, limit)
            return [replace(each, excerpt=word_search.excerpt(connection, each.id, words)) for each in found]

        return self._read(look, [])

    def forget(self, ids: Iterable[str]) -> int:
        """Remove conversations with their saved states, and the pictures that no other conversation shows.

        Args:
            ids: complete ids; unknown ones are ignored.

        Returns:
            Number of conversations removed.

        Raises:
            HistoryError: the database cannot be written.
        """

        def remove(connection: sqlite3.Connection) -> list[str]:
            with transaction(connection):
                removed = rows.delete_conversations(connection, ids)
                word_search.forget_words(connection)
            with transaction(connection):  # a process that adds a picture waits for this transaction to end
                self.pictures.sweep(rows.shown_pictures(connection))
            with contextlib.suppress(sqlite3.OperationalError):  # another process is reading the log
                connection.execute("PRAGMA wal_checkpoint (TRUNCATE)")
            return removed

        ids = [arguments.text("An id", each) for each in arguments.items("ids", ids, "Give a list of whole ids.")]
        removed: list[str] = self._read(remove, list[str]())
        self.states.remove(removed)
        return len(removed)

    def load(self, path: str | os.PathLike[str]) -> Conversation:
        """Add a conversation from a JSON file that `Conversation.export` wrote.

        Raises:
            HistoryError: the file is missing, or not an exported conversation.
        """
        heading, entries, pictures = read_exported(Path(arguments.path("path", path)))
        for data in pictures:
            self.pictures.add(data)
        conversation = Conversation(self, replace(heading, id=new_id()), entries, None)
        conversation.keep()
        return conversation

    def write(self, action: Callable[[sqlite3.Connection], None]) -> bool:
        """Run an action in a transaction; the first failure gives a notice, and no failure raises.

        Args:
            action: called again with a new database if this one turns out to be damaged.

        Returns:
            Whether it was written.
        """

        def act(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                action(connection)

        with self._lock:
            if self._connection is None:
                return False
            try:
                self._with_database(act)
            except (sqlite3.Error, OSError, UnicodeError, HistoryError) as error:
                if not self._has_warned:
                    self._has_warned = True
                    self.on_notice(f"The conversation is not kept for now: {_reason(error)}")
                return False
            return True

    def close(self) -> None:
        """Close the database. Closing twice is harmless."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection:
                connection.close()

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, action: Callable[[sqlite3.Connection], _Result], nothing: _Result) -> _Result:
        """Run an action on the database and return its result; `nothing` for a history in memory."""
        with self._lock:
            if self._connection is None:
                return nothing
            try:
                return self._with_database(action)
            except (sqlite3.Error, OSError) as error:
                raise HistoryError(
                    f"The history in {self._folder} cannot be used: {_reason(error)}",
                    "Try it again; check whose the folder is and what is free.",
                ) from error

    def _with_database(self, action: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run an action on the database, and once more on a new one if it is damaged."""
        connection, folder = self._connection, self._folder
        if connection is None or folder is None:
            raise HistoryError("The history is closed.", "Open it again.")
        try:
            return action(connection)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        self._connection = None
        connection.close()
        self.generation += 1
        self._connection = open_database(folder, self.on_notice, check=True)
        return action(self._connection)


def _read_conversation(connection: sqlite3.Connection, found: str) -> tuple[tuple[Heading, int], list[Entry]] | None:
    heading = rows.read_heading(connection, found)
    return None if heading is None else (heading, rows.read_entries(connection, found))


def _reason(error: Exception) -> str:
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    return text if text.endswith(".") else f"{text}."
