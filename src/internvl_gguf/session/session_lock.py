"""The lock of a session: one operation at a time, which another thread can abort."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from internvl_gguf.errors import SessionStateError

if TYPE_CHECKING:
    from internvl_gguf.engine import Handle, LogitsHandle
    from internvl_gguf.session.candidate_answers import CandidateHandles


class SessionLock:
    """Non-blocking lock of one session; `abort` ends the operation that holds it.

    Attributes:
        is_aborted: whether `abort` was called during the operation that holds the lock, or held it last.
    """

    def __init__(self) -> None:
        self.is_aborted = False
        self._lock = threading.Lock()
        self._running: list[Handle | LogitsHandle | CandidateHandles] = []

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock during a `with` statement.

        Raises:
            SessionStateError: another operation holds it.
        """
        if not self._lock.acquire(blocking=False):
            raise SessionStateError(
                "The session is answering another question.",
                "Wait for that answer or close its stream; fork() the session to ask at the same time.",
            )
        try:
            self.is_aborted = False
            yield
        finally:
            self._running = []
            self._lock.release()

    def track(self, handle: Handle | LogitsHandle | CandidateHandles) -> None:
        """Have `abort` cancel this handle, too, from now on."""
        self._running = [*(each for each in self._running if not each.is_over), handle]
        if self.is_aborted:  # abort came before the handle was tracked
            handle.cancel()

    def abort(self) -> None:
        """Cancel everything that is running; callable from any thread."""
        self.is_aborted = True
        for handle in self._running:
            handle.cancel()
