"""Reading and writing conversations as rows of the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from internvl_gguf.history.entries import Entry, Heading, HistoryPicture, PictureCut, Summary


def insert_heading(connection: sqlite3.Connection, heading: Heading) -> bool:
    """Insert a conversation at revision 0; return whether its id was free."""
    done = connection.execute(
        "INSERT OR IGNORE INTO conversations VALUES (?, ?, ?, ?, ?, ?, 0)",
        (heading.id, heading.title, heading.model, heading.system, heading.created, heading.updated),
    )
    return done.rowcount == 1


def update_heading(connection: sqlite3.Connection, heading: Heading, revision: int) -> bool:
    """Update a conversation if it is still at `revision`; return whether it was."""
    done = connection.execute(
        "UPDATE conversations SET title = ?, model = ?, system = ?, updated = ?, revision = revision + 1 "
        "WHERE id = ? AND revision = ?",
        (heading.title, heading.model, heading.system, heading.updated, heading.id, revision),
    )
    return done.rowcount == 1


def read_heading(connection: sqlite3.Connection, conversation: str) -> tuple[Heading, int] | None:
    """Return the heading of a conversation and its revision; None if there is no such conversation."""
    row = connection.execute(
        "SELECT id, title, model, system, created, updated, revision FROM conversations WHERE id = ?", (conversation,)
    ).fetchone()
    return (Heading(*row[:6]), row[6]) if row else None


def replace_entries(connection: sqlite3.Connection, conversation: str, start: int, entries: Sequence[Entry]) -> None:
    """Replace the messages of a conversation from number `start` on."""
    connection.execute("DELETE FROM messages WHERE conversation = ? AND number >= ?", (conversation, start))
    for number, entry in enumerate(entries, start):
        row = connection.execute(
            "INSERT INTO messages "
            "(conversation, number, role, text, created, layout, tokens, model, statistics, thinking) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                conversation,
                number,
                entry.role,
                entry.text,
                entry.created,
                entry.layout,
                None if entry.tokens is None else json.dumps(entry.tokens),
                entry.model,
                json.dumps(entry.statistics, ensure_ascii=False),
                entry.thinking,
            ),
        )
        connection.executemany(
            "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [_picture_row(row.lastrowid, place, picture) for place, picture in enumerate(entry.pictures)],
        )


def read_entries(connection: sqlite3.Connection, conversation: str) -> list[Entry]:
    """Return the messages of a conversation in order."""
    pictures: dict[int, list[HistoryPicture]] = {}
    for message, *columns in connection.execute(
        "SELECT message, digest, pictures.name, path, limits, cut, label FROM pictures "
        "JOIN messages ON message = messages.id WHERE conversation = ? ORDER BY message, place",
        (conversation,),
    ):
        pictures.setdefault(message, []).append(_picture(*columns))
    return [
        Entry(
            role,
            text,
            created,
            tuple(pictures.get(message, ())),
            layout,
            None if tokens is None else tuple(json.loads(tokens)),
            model,
            json.loads(statistics),
            thinking,
        )
        for message, role, text, created, layout, tokens, model, statistics, thinking in connection.execute(
            "SELECT id, role, text, created, layout, tokens, model, statistics, thinking FROM messages "
            "WHERE conversation = ? ORDER BY number",
            (conversation,),
        )
    ]


def delete_conversations(connection: sqlite3.Connection, ids: Iterable[str]) -> list[str]:
    """Remove conversations with their messages; return the ids that existed."""
    return [each for each in ids if connection.execute("DELETE FROM conversations WHERE id = ?", (each,)).rowcount]


def ids_beginning(connection: sqlite3.Connection, prefix: str, limit: int) -> list[str]:
    """Return the ids that begin with a prefix, the newest first; only the prefix itself if it is an id."""
    found = [
        each
        for (each,) in connection.execute(
            "SELECT id FROM conversations WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id = ?1 DESC, updated DESC "
            "LIMIT ?2",
            (prefix, limit),
        )
    ]
    return [prefix] if prefix in found else found


def latest_id(connection: sqlite3.Connection) -> str | None:
    """Return the id of the conversation that was changed last; None if there is none."""
    row = connection.execute("SELECT id FROM conversations ORDER BY updated DESC, rowid DESC LIMIT 1").fetchone()
    return row[0] if row else None


def summaries(connection: sqlite3.Connection, ids: Iterable[str] | None, limit: int | None) -> list[Summary]:
    """Return summaries of conversations, the newest first.

    Args:
        ids: the conversations to list; None for all.
        limit: most summaries; None for no limit.
    """
    wanted = "" if ids is None else "WHERE id IN (SELECT value FROM json_each(?2))"
    found = connection.execute(
        "SELECT id, title, model, created, updated, "
        "(SELECT count(*) FROM messages WHERE conversation = conversations.id AND role = 'user'), "
        "(SELECT count(*) FROM pictures JOIN messages ON message = messages.id WHERE conversation = conversations.id) "
        f"FROM conversations {wanted} ORDER BY updated DESC, rowid DESC LIMIT ?1",
        (-1 if limit is None else limit, *(() if ids is None else (json.dumps(list(ids)),))),
    )
    return [Summary(*row) for row in found]


def shown_pictures(connection: sqlite3.Connection) -> set[str]:
    """Return the digests of all pictures that messages show."""
    return {digest for (digest,) in connection.execute("SELECT DISTINCT digest FROM pictures")}


def _picture_row(message: int | None, place: int, picture: HistoryPicture) -> tuple[object, ...]:
    cut = picture.cut
    cut_json = None if cut is None else json.dumps([*cut.grid, cut.has_thumbnail, *cut.source_size])
    limits = json.dumps(picture.limits)
    return message, place, picture.digest, picture.name, picture.path, limits, cut_json, picture.label


def _picture(digest: str, name: str, path: str | None, limits: str, cut: str | None, label: str) -> HistoryPicture:
    found = None
    if cut is not None:
        columns, rows, has_thumbnail, width, height = json.loads(cut)
        found = PictureCut((columns, rows), has_thumbnail, (width, height))
    max_tiles, min_tiles, thumbnail = json.loads(limits)
    return HistoryPicture(digest, name, path, (max_tiles, min_tiles, thumbnail), found, label)
