"""What a conversation needs of the history that keeps it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from internvl_gguf.history.picture_files import PictureFiles
    from internvl_gguf.history.states import States
    from internvl_gguf.utils.notices import Notice


class Keeper(Protocol):
    """The part of `History` that its conversations use.

    Attributes:
        pictures: files of pictures.
        states: saved sessions of the last conversations.
        generation: grows when the database was damaged and another one took its place.
        on_notice: told what people should know.
    """

    pictures: PictureFiles
    states: States
    generation: int
    on_notice: Notice

    def write(self, action: Callable[[sqlite3.Connection], None]) -> bool:
        """Work on the database; False where nothing is kept, or it failed, which was told."""
        ...
