"""Search for conversations by words: with a trigram index if SQLite has one, otherwise by reading every message.

Either way a word is found anywhere in a message or in the name of a picture, in upper or lower case, also inside other
words: Chinese has no spaces between words.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Final

from internvl_gguf.history.database import transaction

_TRIGRAM: Final = 3  # the index does not find shorter words
_EXCERPT: Final = 160


def ids_with_words(connection: sqlite3.Connection, words: Sequence[str]) -> set[str]:
    """Return the ids of conversations in which all of the words occur.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    connection.create_function("holds", 2, lambda text, word: word in text.lower(), deterministic=True)
    has_index = any(len(word) >= _TRIGRAM for word in words) and _bring_up_to_date(connection)
    found: set[str] | None = None
    for word in words:
        if has_index and len(word) >= _TRIGRAM:
            condition = "id IN (SELECT rowid FROM words WHERE words MATCH ?)"
            wanted = '"' + word.replace('"', '""') + '"'
        else:
            condition, wanted = "holds(text, ?)", word.lower()
        ids = {
            each for (each,) in connection.execute(f"SELECT conversation FROM searched WHERE {condition}", (wanted,))
        }
        found = ids if found is None else found & ids
    return found or set()


def excerpt(connection: sqlite3.Connection, conversation: str, words: Sequence[str]) -> str:
    """Return the text around the first match of one of the words in a conversation, on one line."""
    for (text,) in connection.execute(
        "SELECT text FROM searched WHERE conversation = ? ORDER BY number", (conversation,)
    ):
        places = [place for place in (text.lower().find(word.lower()) for word in words) if place >= 0]
        if places:
            start = max(0, min(places) - _EXCERPT // 4)
            piece = " ".join(text[start : start + _EXCERPT].split())
            return f"{'…' if start else ''}{piece}{'…' if start + _EXCERPT < len(text) else ''}"
    return ""


def forget_words(connection: sqlite3.Connection) -> None:
    """Remove deleted messages from the index, if there is one; call it inside a transaction."""
    with contextlib.suppress(sqlite3.OperationalError):  # no index, or a library that has none
        connection.execute("DELETE FROM words WHERE rowid NOT IN (SELECT id FROM messages)")
        connection.execute("INSERT INTO words (words) VALUES ('optimize')")  # no trace of them stays


def _bring_up_to_date(connection: sqlite3.Connection) -> bool:
    """Add new messages to the index and remove deleted ones; return whether there is an index.

    Messages never change and their numbers are never used twice, so only new and deleted ones are looked at. The index
    is updated by searches only, not by chats: an SQLite without the index cannot leave a wrong one.
    """
    try:
        with transaction(connection):
            connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (text, tokenize = 'trigram')")
            connection.execute("DELETE FROM words WHERE rowid NOT IN (SELECT id FROM messages)")
            connection.execute(
                "INSERT INTO words (rowid, text) SELECT id, text FROM searched "
                "WHERE id > coalesce((SELECT rowid FROM words ORDER BY rowid DESC LIMIT 1), 0)"
            )
    except sqlite3.OperationalError:  # no such module or tokenizer, or a database that is not written at the moment
        return False
    return True
