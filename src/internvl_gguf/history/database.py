"""The database of the history: its schema, opening it, and replacing a damaged one.

SQLite with a write-ahead log, so that several processes read and write at once; a writer waits up to ten seconds for
another one. A killed process loses nothing that was written; a power failure may lose the last messages.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from internvl_gguf.errors import HistoryError
from internvl_gguf.utils.notices import Notice

FILE: Final = "history.sqlite"
VERSION: Final = 3
"""Format of the database. 2: pictures have labels. 3: answers have thoughts."""
_APPLICATION: Final = 0x49564C48  # "IVLH", in the file's header
_LOCK_SECONDS: Final = 10.0  # seconds
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES: Final = {"conversations", "messages", "pictures"}
_SCHEMA: Final = """
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    model TEXT NOT NULL,
    system TEXT,                 -- '' for none, NULL for the official one
    created REAL NOT NULL,       -- seconds since 1970, UTC; as all times here
    updated REAL NOT NULL,
    revision INTEGER NOT NULL    -- grows with every change
);
CREATE INDEX conversations_by_time ON conversations (updated);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,     -- from 0, questions and answers in turn
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    created REAL NOT NULL,
    layout TEXT NOT NULL,
    tokens TEXT,                 -- JSON
    model TEXT,
    statistics TEXT NOT NULL,    -- JSON
    thinking TEXT NOT NULL DEFAULT '',  -- before the answer, and no part of it
    UNIQUE (conversation, number)
);
CREATE TABLE pictures (
    message INTEGER NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    digest TEXT NOT NULL,        -- its file in the folder of pictures
    name TEXT NOT NULL,
    path TEXT,
    limits TEXT NOT NULL,        -- JSON: max_tiles, min_tiles, thumbnail
    cut TEXT,                    -- JSON: columns, rows, thumbnail, width, height
    label TEXT NOT NULL DEFAULT '',  -- before it in the prompt, of a frame of a clip
    PRIMARY KEY (message, place)
) WITHOUT ROWID;
CREATE INDEX pictures_by_content ON pictures (digest);
CREATE VIEW searched AS
    SELECT id, conversation, number, text || coalesce(
        (SELECT char(10) || group_concat(name, char(10)) FROM pictures WHERE message = messages.id), '') AS text
    FROM messages;
"""


def open_database(folder: Path, on_notice: Notice, *, check: bool = False) -> sqlite3.Connection:
    """Open the database in a folder, or create it; a damaged one is moved aside with a notice.

    Args:
        folder: created if missing.
        on_notice: called if the database was damaged.
        check: whether to check every page, after damage was found; otherwise damage shows when a page is used.

    Raises:
        HistoryError: the database is of a later version, or the folder cannot be written.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # conversations are private
        try:
            return _connect(path, check)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        return _replace_damaged(path, on_notice)
    except (OSError, sqlite3.Error, Timeout) as error:
        raise HistoryError(
            f"The history in {folder} cannot be opened: {getattr(error, 'strerror', None) or error}.",
            "Check whose the folder is and what is free, or set INTERNVL_DATA to another one.",
        ) from error


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file itself is damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a block in a transaction: it is committed whole or rolled back; other writers wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(path: Path, check: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
        if check and connection.execute("PRAGMA quick_check (1)").fetchone() != ("ok",):
            raise _damage("a page of it is not what it was")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that a file is a history before anything in it is changed, and create the tables of an empty one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if _is_ours(connection) and version > VERSION:
        raise HistoryError(
            f"{path} is of format {version}; this version of the package reads {VERSION}.",
            "Use the version it is from, or set INTERNVL_DATA to another folder.",
        )
    if version == 0 and not _tables(connection):
        with contextlib.suppress(OSError):  # a file system without permissions
            path.chmod(0o600)
        with transaction(connection):
            if not _tables(connection):  # no other process was faster
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
    if not _is_ours(connection) or not _tables(connection) >= _TABLES:
        raise _damage("it is not a history")
    if version < VERSION:
        _add_columns(connection)
    with contextlib.suppress(sqlite3.OperationalError):  # a file system without shared memory keeps the other journal
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # removed messages must not stay readable in the file


def _add_columns(connection: sqlite3.Connection) -> None:
    """Make a database of an earlier format one of this, unless another process was faster."""
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 1:
            connection.execute("ALTER TABLE pictures ADD COLUMN label TEXT NOT NULL DEFAULT ''")
        if version < VERSION:
            connection.execute("ALTER TABLE messages ADD COLUMN thinking TEXT NOT NULL DEFAULT ''")
            connection.execute(f"PRAGMA user_version = {VERSION}")


def _is_ours(connection: sqlite3.Connection) -> bool:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return bool(application == _APPLICATION)


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _damage(what: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    return error


def _replace_damaged(path: Path, on_notice: Notice) -> sqlite3.Connection:
    """Move a damaged database aside, with its journal files, and create a new one."""
    with FileLock(path.with_name(".moving"), timeout=_LOCK_SECONDS):
        with contextlib.suppress(sqlite3.DatabaseError):
            return _connect(path, check=True)  # another process has moved it meanwhile
        aside = path.with_name(f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06}.sqlite")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        connection = _connect(path, check=False)
    on_notice(f"The history was damaged: it is kept as {aside}, and a new one begins.")
    return connection
