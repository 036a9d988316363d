"""A background thread for long work, so that the main thread can react to Ctrl-C at any time.

All work uses one thread: llama.cpp keeps a pool of threads for each thread that calls it.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupt:
    """Event: Ctrl-C was pressed while a task ran."""


@dataclass(frozen=True)
class _TaskEnd:
    """The last event of a task.

    Attributes:
        error: the error that ended the task; None if it finished.
    """

    error: BaseException | None = None


class Task:
    """A task in the background thread, with a queue of its events. Made by `BackgroundThread.start`."""

    def __init__(self) -> None:
        # A SimpleQueue may be written to by a signal handler that interrupts its reader.
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()

    def events(self, tick: float) -> Iterator[object]:
        """Yield the events of the task until its end; None whenever `tick` seconds passed without an event.

        Raises:
            The error that the task raised.
        """
        while True:
            try:
                event = self._events.get(timeout=tick)
            except queue.Empty:
                event = None
            if isinstance(event, _TaskEnd):
                if event.error is not None:
                    raise event.error
                return
            yield event

    def unread(self) -> Iterator[object]:
        """Yield the events that came after its end, as a Ctrl-C at that moment."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._events.get_nowait()

    def post(self, event: object) -> None:
        """Add an event; callable from any thread."""
        self._events.put(event)

    def run(self, source: Callable[[], Iterable[object]]) -> None:
        """Run the task, in the background thread."""
        try:
            for event in source():
                self.post(event)
            self.post(_TaskEnd())
        except BaseException as error:  # it is raised where the events are read
            self.post(_TaskEnd(error))


class BackgroundThread:
    """Runs tasks one after the other in a daemon thread."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Task, Callable[[], Iterable[object]]] | None] = queue.SimpleQueue()
        self._task: Task | None = None
        self._thread = threading.Thread(target=self._work, name="internvl-chat", daemon=True)
        self._thread.start()

    def start(self, source: Callable[[], Iterable[object]]) -> Task:
        """Start a task. Its events are those that `source` yields and those posted meanwhile; read them to the end."""
        task = Task()
        self._jobs.put((task, source))
        return task

    def post(self, event: object) -> bool:
        """Add an event to the running task; callable from any thread. Return False if none runs."""
        task = self._task
        if task is not None:
            task.post(event)
        return task is not None

    def close(self) -> None:
        """Wait for the running task, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._task, source = job
            self._task.run(source)
            self._task = None


@contextmanager
def interrupts_as_events(task: Task) -> Iterator[None]:
    """Turn each Ctrl-C into an event of the task, instead of a KeyboardInterrupt."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return

    def post_interrupt(number: int, frame: FrameType | None) -> None:
        task.post(Interrupt())

    signal.signal(signal.SIGINT, post_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
