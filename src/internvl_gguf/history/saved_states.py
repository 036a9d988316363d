"""Saved KV of the last conversations, so that a resumed one answers at once; bounded, the oldest are removed first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InternVLError
from internvl_gguf.utils.paths import free_bytes

if TYPE_CHECKING:
    from internvl_gguf.session.contract import AnySession

MOST_STATES: Final = 32
_SUFFIX: Final = ".session"
_SPARE: Final = 2**30  # bytes of the disk that stay free


class SavedStates:
    """A folder with a saved session for each of the last conversations.

    Args:
        folder: created by the first write; None saves nothing.
        max_bytes: most bytes of all files together.
    """

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def path(self, conversation: str) -> Path | None:
        """Return the path of the saved session of a conversation; None if there is none."""
        if self._folder is None:
            return None
        path = self._folder / f"{conversation}{_SUFFIX}"
        return path if path.is_file() else None

    def keep(self, conversation: str, session: AnySession, positions: int) -> bool:
        """Save the session of a conversation, and remove the oldest others if there is no room.

        Args:
            conversation: id of the conversation.
            session: the session it was held in.
            positions: approximate number of positions of its KV, to check the free space before writing.

        Returns:
            Whether it was saved.
        """
        if self._folder is None or self._max_bytes == 0:
            return False
        try:
            size = session.kv_bytes(positions)
            if size is None:
                return False
            free = free_bytes(self._folder)
            if size > self._max_bytes or (free is not None and size + _SPARE > free):
                return False
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            session.save(self._folder / f"{conversation}{_SUFFIX}")
        except (InternVLError, OSError):
            return False
        self._prune()
        return self.path(conversation) is not None

    def remove(self, conversations: Iterable[str]) -> None:
        """Remove the saved sessions of deleted conversations."""
        for conversation in conversations:
            path = self.path(conversation)
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def size(self) -> tuple[int, int]:
        """Return the number of files and their bytes."""
        sizes = [n_bytes for _, n_bytes, _ in self._files()]
        return len(sizes), sum(sizes)

    def _prune(self) -> None:
        total = 0
        for index, (_, n_bytes, path) in enumerate(sorted(self._files(), reverse=True)):
            total += n_bytes
            if index >= MOST_STATES or total > self._max_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Yield the modification time in nanoseconds, the bytes and the path of each file."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError):  # removed meanwhile
                    stat = path.stat()
                    yield stat.st_mtime_ns, stat.st_size, path
