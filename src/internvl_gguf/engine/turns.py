"""One thread at a time works on the native objects; the others wait for what it brings them.

Nobody is given a turn for ever: a thread works one step, looks whether that brought what it waits for, and if so leaves
with it. Those still waiting are rung, and one of them goes on. A thread that finds what it waits for needs no turn, so
a fast reader does not starve a slow one.

KeyboardInterrupt may come between any two bytecodes of the main thread; the order of the lines below keeps a turn from
being lost to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from internvl_gguf.errors import SessionStateError
from internvl_gguf.utils.owned import inherited


class _Bell(SimpleQueue[None]):
    """What a thread waits for."""


class Turns:
    """Hands the work from thread to thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: object = None
        self._thread = 0
        self._waiting: dict[_Bell, None] = {}

    def work_until(self, is_done: Callable[[], bool], work: Callable[[], None]) -> None:
        """Work, or wait while another thread does, until `is_done`.

        Args:
            is_done: looked at again after each piece of work, this thread's or another's.
            work: one piece of work, in this thread and in no other at the same time.

        Raises:
            SessionStateError: called from inside a piece of work, as by a progress callback.
        """
        bell: _Bell | None = None
        try:
            while True:
                has_worked = self._work(bell, is_done, work)
                if is_done():
                    return
                if has_worked:
                    continue
                if bell is not None:
                    bell.get()
                else:  # from now on whoever works rings; before waiting for that, look again whether they have left
                    bell = _Bell()
                    self._waiting[bell] = None
        finally:
            if bell is not None:
                self._waiting.pop(bell, None)

    def work_once(self, work: Callable[[], None]) -> None:
        """Work as soon as no other thread does. Raises as `work_until`."""
        has_worked = False

        def work_and_tell() -> None:
            nonlocal has_worked
            has_worked = True
            work()

        self.work_until(lambda: has_worked, work_and_tell)

    def try_work(self, work: Callable[[], None]) -> bool:
        """Work if nobody does at this moment; whether it was done."""
        return self._owner is None and self._work(None, lambda: False, work)

    def _work(self, bell: _Bell | None, is_done: Callable[[], bool], work: Callable[[], None]) -> bool:
        """Take a turn and do one piece of work in it, if that is still needed; whether there was a turn to take.

        Args:
            bell: the one this thread waits for, which it need not ring itself.
        """
        turn = object()
        thread = threading.get_ident()
        try:
            with self._lock:  # nothing is called in here: a collected iterator may want a turn amid any call
                if self._owner is None:
                    self._thread = thread
                    self._owner = turn
            if self._owner is not turn:
                if self._thread == thread:
                    raise SessionStateError(
                        "The engine was asked for something from inside its own progress callback.",
                        "Return from it first.",
                    )
                return False
            if not is_done():
                work()
            return True
        finally:
            if self._owner is turn:
                self._thread = 0
                self._owner = None
                if self._waiting:
                    self._ring(bell)

    def _ring(self, own: _Bell | None) -> None:
        """Wake all threads that wait."""
        for bell in list(self._waiting):
            if bell is not own:
                bell.put(None)


class NoTurns(Turns):
    """Of an engine in a forked child: nobody works, and nobody waits for those who did in the parent."""

    def work_until(self, is_done: Callable[[], bool], work: Callable[[], None]) -> None:
        """As `Turns.work_until`, where it is done already.

        Raises:
            SessionStateError: it is not.
        """
        if not is_done():
            raise inherited()

    def try_work(self, work: Callable[[], None]) -> bool:
        """As `Turns.try_work`: it is not done."""
        return False
