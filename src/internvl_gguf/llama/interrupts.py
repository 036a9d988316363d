"""Ctrl-C while the native library runs.

Python handles signals between bytecodes of the main thread. During a long native call that means: too late; and when
the library calls back into Python (logs, progress, abort) it means: inside a ctypes callback, where KeyboardInterrupt
is printed and lost.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupts(on_interrupt: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold Ctrl-C back while a native call runs, then deliver it as it would have been.

    Args:
        on_interrupt: called at once when Ctrl-C comes while the library is calling back, to have it stop early.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append((number, frame))
        if on_interrupt:
            on_interrupt()

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held:
            previous(*held[0])
