"""A session does one thing at a time, and what it does can be ended from another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from internvl_gguf.errors import SessionStateError

if TYPE_CHECKING:
    from internvl_gguf.engine import Handle, LogitsHandle


class OneAtATime:
    """Who is in has a session to itself.

    Attributes:
        is_aborted: whether what is under way is to end.
    """

    def __init__(self) -> None:
        self.is_aborted = False
        self._busy = threading.Lock()
        self._under_way: list[Handle | LogitsHandle] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be in for the time of a `with` statement.

        Raises:
            SessionStateError: somebody is.
        """
        if not self._busy.acquire(blocking=False):
            raise SessionStateError(
                "The session is answering another question.",
                "Wait for that answer or close its stream; fork() the session to ask at the same time.",
            )
        try:
            self.is_aborted = False
            yield
        finally:
            self._under_way = []
            self._busy.release()

    def watch(self, handle: Handle | LogitsHandle) -> None:
        """`abort` ends this from here on, too."""
        self._under_way = [*(each for each in self._under_way if not each.is_over), handle]
        if self.is_aborted:  # it came in between
            handle.cancel()

    def abort(self) -> None:
        """End what is under way; from any thread."""
        self.is_aborted = True
        for handle in self._under_way:
            handle.cancel()
