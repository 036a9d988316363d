"""Handle Ctrl-C while the native library runs.

Python handles signals between bytecodes of the main thread. During a long native call that is too late; and when the
library calls back into Python (logs, progress, abort), it is inside a ctypes callback, where KeyboardInterrupt is
printed and lost. So the first Ctrl-C is held back until the call returns. A call may hang, so a second Ctrl-C ends the
process. A thread counts the signals: Python's C signal handler wakes it at once through a socket.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from internvl_gguf.llama.hard_exit import end_process

_INTERRUPTED: Final = 130
_SETTLE: Final = 0  # no signal's number: asks the thread whether it has seen everything


@contextmanager
def deferred_interrupts(on_interrupt: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold Ctrl-C back while a native call runs, then deliver it to the previous handler.

    A second Ctrl-C before that ends the process with status 130, since the call may never return.

    Args:
        on_interrupt: called at once when Ctrl-C arrives during a callback of the library, to make it stop early.
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

    watches = False
    signal.signal(signal.SIGINT, hold)
    if hasattr(signal, "siginterrupt"):  # else a Ctrl-C breaks off the library's own reading from a socket or a file
        signal.siginterrupt(signal.SIGINT, False)
    try:
        watches = _watch.begin()
        yield
    finally:
        if watches:
            _watch.end()
        signal.signal(signal.SIGINT, previous)
        if held:
            if watches:
                _watch.settle()
            previous(*held[0])


class _InterruptCounter:
    """Ends the process at the second Ctrl-C between `begin` and `end`. Used by the main thread alone."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._is_on = False
        self._interrupts = 0

    def begin(self) -> bool:
        """Start counting; return False if counting already or if another program in this process uses the wakeup fd."""
        if self._is_on:
            return False
        if self._thread is None or not self._thread.is_alive():  # the first time, or in a forked child
            self._start()
        before = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
            return False
        self._interrupts = 0
        self._is_on = True
        return True

    def end(self) -> None:
        """Stop counting."""
        signal.set_wakeup_fd(-1)
        self._is_on = False

    def settle(self) -> None:
        """Wait until the thread has counted all earlier signals, so that none of them counts in the next call."""
        self._settled.clear()
        self._wakeup.send(bytes([_SETTLE]))
        self._settled.wait()

    def _start(self) -> None:
        receiver, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(receiver,), name="internvl-interrupts", daemon=True)
        self._thread.start()

    def _listen(self, receiver: socket.socket) -> None:
        while numbers := receiver.recv(64):
            for number in numbers:
                if number == _SETTLE:
                    self._settled.set()
                elif number == signal.SIGINT:
                    self._interrupts += 1
                    if self._interrupts == 2 and self._is_on:
                        end_process(_INTERRUPTED, "Interrupted in the middle of a native call.")


_watch = _InterruptCounter()
