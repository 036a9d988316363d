"""The history of conversations: they are saved as they go, and can be searched, continued and exported.

    history             all conversations: open, begin, latest, find, search, forget, load
    conversation        one conversation: stream, undo, continue_in, keep_state, export
    conversation_store  protocol of the history as its conversations use it
    entries             the values: entries, headings, pictures, summaries
    database, rows      the SQLite schema and its rows; a damaged database is moved aside
    word_search         search by words, with a trigram index if SQLite has one
    picture_files       files of pictures, named by content
    clip_frames         frames of clips, kept as their tiles
    saved_states        the KV of the last conversations
    rebuild_messages    stored entries as messages of a session
    json_export         JSON export and import
    markdown_export     Markdown export

Modules that read pictures or need a model are imported where they are used, so that `internvl history` starts fast.
"""

from __future__ import annotations

from internvl_gguf.history.conversation import Conversation
from internvl_gguf.history.entries import Entry, HistoryPicture, HistoryQuestion, Summary
from internvl_gguf.history.history import History

__all__ = ["Conversation", "Entry", "History", "HistoryPicture", "HistoryQuestion", "Summary"]
