"""Conversations that last: what was asked and answered, kept as it goes, found, taken up again and handed on.

    store           what callers see: open, begin, latest, find, search, forget, load
    conversation    one of them: stream, undo, continue_in, keep_state, export
    database, rows  the schema and what stands in it; a damaged one is moved aside
    search          an index of trigrams where SQLite has one
    picture_files   the pictures by content
    states          the KV of the last conversations
    rebuilding      kept messages as a session takes them
    exchange        JSON out and in
    markdown        for people

What reads pictures or needs a model is imported where it is used: `internvl history` waits for neither.
"""

from __future__ import annotations

from internvl_gguf.history.conversation import Conversation
from internvl_gguf.history.records import Asked, Entry, HistoryPicture, Summary
from internvl_gguf.history.store import History

__all__ = ["Asked", "Conversation", "Entry", "History", "HistoryPicture", "Summary"]
