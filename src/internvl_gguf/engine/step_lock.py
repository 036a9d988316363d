"""A lock whose holder works one step for all threads; the others wait for what the step brings them.

A thread holds the lock for one step, then checks whether that step brought what it waits for, and leaves if so. The
threads still waiting are woken, and one of them works the next step. A thread whose result is already there does not
take the lock, so a fast reader does not starve a slow one.

KeyboardInterrupt may come between any two bytecodes of the main thread; the order of the lines below makes sure that
the lock is released even then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from internvl_gguf.errors import SessionStateError
from internvl_gguf.utils.owned import inherited


class _Waiter(SimpleQueue[None]):
    """Wakes one waiting thread: an item is put after each step of another thread."""


class StepLock:
    """Lets one thread at a time work on the native objects, step by step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: object = None
        self._thread = 0
        self._waiting: dict[_Waiter, None] = {}

    def work_until(self, is_done: Callable[[], bool], work: Callable[[], None]) -> None:
        """Work, or wait while another thread does, until `is_done` is true.

        Args:
            is_done: checked again after each step, of this thread or of another.
            work: one step; runs in this thread, and in no other at the same time.

        Raises:
            SessionStateError: called from inside a step, as by a progress callback.
        """
        waiter: _Waiter | None = None
        try:
            while True:
                has_worked = self._work(waiter, is_done, work)
                if is_done():
                    return
                if has_worked:
                    continue
                if waiter is not None:
                    waiter.get()
                else:  # registered first, then tried once more: a step that ended in between would wake nobody
                    waiter = _Waiter()
                    self._waiting[waiter] = None
        finally:
            if waiter is not None:
                self._waiting.pop(waiter, None)

    def work_once(self, work: Callable[[], None]) -> None:
        """Work one step as soon as no other thread does. Raises as `work_until`."""
        has_worked = False

        def work_and_tell() -> None:
            nonlocal has_worked
            has_worked = True
            work()

        self.work_until(lambda: has_worked, work_and_tell)

    def try_work(self, work: Callable[[], None]) -> bool:
        """Work one step if no other thread does at this moment; return whether it was worked."""
        return self._holder is None and self._work(None, lambda: False, work)

    def _work(self, waiter: _Waiter | None, is_done: Callable[[], bool], work: Callable[[], None]) -> bool:
        """Take the lock and work one step, if that is still needed; return whether the lock was free.

        Args:
            waiter: of this thread, which need not be woken by its own step.
        """
        hold = object()
        thread = threading.get_ident()
        try:
            with self._lock:  # nothing is called in here: a collected iterator may want the lock amid any call
                if self._holder is None:
                    self._thread = thread
                    self._holder = hold
            if self._holder is not hold:
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
            if self._holder is hold:
                self._thread = 0
                self._holder = None
                if self._waiting:
                    self._wake_others(waiter)

    def _wake_others(self, own: _Waiter | None) -> None:
        """Wake all threads that wait, but for this one."""
        for waiter in list(self._waiting):
            if waiter is not own:
                waiter.put(None)


class InheritedStepLock(StepLock):
    """Step lock of an engine that a forked child inherited: no step is worked, and no thread waits for another."""

    def work_until(self, is_done: Callable[[], bool], work: Callable[[], None]) -> None:
        """Return if `is_done` is true already.

        Raises:
            SessionStateError: it is not.
        """
        if not is_done():
            raise inherited()

    def try_work(self, work: Callable[[], None]) -> bool:
        """Return False: nothing is worked."""
        return False
