"""One thread for what takes long, so that the thread at the terminal hears Ctrl-C at any time.

It is always the same: the library keeps a team of threads for each that calls it.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted:
    """Somebody pressed Ctrl-C while a task ran."""


@dataclass(frozen=True)
class _Over:
    """The last of a task's events.

    Attributes:
        error: what ended it before its time.
    """

    error: BaseException | None = None


class Task:
    """Something that runs in the worker's thread and tells how it goes. Made by `Worker.start`."""

    def __init__(self) -> None:
        # A SimpleQueue may be written to by a signal handler that interrupts its reader.
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()

    def events(self, tick: float) -> Iterator[object]:
        """What happens, as it happens; None whenever `tick` seconds passed without anything. Ends with the task.

        Raises:
            What the task raised.
        """
        while True:
            try:
                event = self._events.get(timeout=tick)
            except queue.Empty:
                event = None
            if isinstance(event, _Over):
                if event.error is not None:
                    raise event.error
                return
            yield event

    def tell(self, event: object) -> None:
        """Hand an event to the reader, from any thread."""
        self._events.put(event)

    def run(self, source: Callable[[], Iterable[object]]) -> None:
        """Do it; in the worker's thread."""
        try:
            for event in source():
                self.tell(event)
            self.tell(_Over())
        except BaseException as error:  # it is raised where the events are read
            self.tell(_Over(error))


class Worker:
    """Runs tasks one after the other in a thread of its own, which does not outlive the process."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Task, Callable[[], Iterable[object]]] | None] = queue.SimpleQueue()
        self._task: Task | None = None
        self._thread = threading.Thread(target=self._work, name="internvl-chat", daemon=True)
        self._thread.start()

    def start(self, source: Callable[[], Iterable[object]]) -> Task:
        """Run `source`; the events are what it yields and what is told meanwhile, and are read to the end."""
        task = Task()
        self._jobs.put((task, source))
        return task

    def tell(self, event: object) -> bool:
        """Hand an event to whoever reads the task that runs; from any thread. False where none runs."""
        task = self._task
        if task is not None:
            task.tell(event)
        return task is not None

    def close(self) -> None:
        """Wait for the task that runs, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._task, source = job
            self._task.run(source)
            self._task = None


@contextmanager
def interrupts_told(task: Task) -> Iterator[None]:
    """Turn each Ctrl-C into an event of the task, where Python would raise KeyboardInterrupt."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return

    def tell(number: int, frame: FrameType | None) -> None:
        task.tell(Interrupted())

    signal.signal(signal.SIGINT, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
