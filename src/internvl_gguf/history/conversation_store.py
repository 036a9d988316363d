"""The protocol of the history as its conversations use it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from internvl_gguf.history.picture_files import PictureFiles
    from internvl_gguf.history.saved_states import SavedStates
    from internvl_gguf.utils.notices import Notice


class ConversationStore(Protocol):
    """The part of `History` that its conversations use.

    Attributes:
        pictures: files of pictures.
        states: saved sessions of the last conversations.
        generation: number of times that a damaged database was replaced.
        on_notice: called with notices for the user.
    """

    pictures: PictureFiles
    states: SavedStates
    generation: int
    on_notice: Notice

    def write(self, action: Callable[[sqlite3.Connection], None]) -> bool:
        """Run an action on the database; return False if nothing is saved, or it failed and a notice was given."""
        ...
