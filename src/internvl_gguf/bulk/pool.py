"""Workers: processes that answer lines side by side, each with a model of its own (`bulk.worker_main`).

This process hands out lines and takes their outcomes, and does nothing else with them: pictures are read and cut by the
workers. One that dies is replaced; `bulk.dispatcher` says what becomes of its lines.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from internvl_gguf.bulk import worker_messages as messages
from internvl_gguf.bulk.answerer import Answered, Answering, LoadedFacts, OnAnswered, PlacedLines
from internvl_gguf.bulk.dispatcher import Dispatcher, HandOut
from internvl_gguf.bulk.layout import Layout, Workers
from internvl_gguf.config import EngineOptions
from internvl_gguf.errors import InternVLError, WorkerDiedError
from internvl_gguf.session.worker.messages import Close, LogLine, NoticeLine
from internvl_gguf.session.worker.worker_process import WorkerProcess
from internvl_gguf.utils.child_process import python_module
from internvl_gguf.utils.notices import Notice

_COMMAND: Final = python_module("internvl_gguf.bulk.worker_main")
_TICK: Final = 0.2  # seconds after which Ctrl-C is noticed on Windows
_CLOSING_SECONDS: Final = 60.0  # a worker waits for its model's process, which writes embeddings
_DEATHS_BESIDE_WORKERS: Final = 3
"""Workers may die in a row without an answer between: all of them at once, where memory runs out, and a few more."""
_AGAIN: Final = "What was answered is kept: the same command goes on with the rest."
_LESS: Final = "Where memory ran out, use fewer workers (--workers), fewer --max-tiles or a smaller context (--n-ctx)."


@dataclass(frozen=True)
class Told:
    """The callbacks of a run of lines.

    Attributes:
        answered: called with the outcome of each line, in the order in which they end.
        load: called with the fraction of the model that is loaded, of all workers together.
        load_critic: the same of the critic.
        notice: called with notices for the user; several workers say the same.
        ready: called once, with facts about the model, and the number of devices that share the lines, before the first
            answer.
    """

    answered: OnAnswered
    load: Callable[[float], None]
    load_critic: Callable[[float], None]
    notice: Notice
    ready: Callable[[LoadedFacts, int], None]


@dataclass(eq=False)
class _Worker:
    """A worker.

    Attributes:
        number: from 0; a replacement has the number of the one that died.
        engine: options of the engine that it has in place of the common ones.
        is_replacement: whether another one died before it.
        process: its process.
        loaded: fraction of the model that it has loaded.
        error: the error that it ends with.
        is_closing: whether it was told to end.
        has_ended: whether its process is gone, and its last message was taken.
    """

    number: int
    engine: EngineOptions
    is_replacement: bool = False
    process: WorkerProcess = field(init=False)
    loaded: float = 0.0
    error: InternVLError | None = None
    is_closing: bool = False
    has_ended: bool = False


class _Ended:
    """The last event of a worker: its process is gone."""


_Event = tuple[_Worker, Any]


class WorkerPool:
    """Answers lines by workers, one set of them after the other.

    Args:
        answering: how lines are answered.
        lines: the lines; read as they are needed.
        told: what the run tells.

    Attributes:
        n_ready: number of workers that have loaded their model.
        facts: facts about the model; None before the first worker has loaded it.
    """

    def __init__(self, answering: Answering, lines: PlacedLines, told: Told) -> None:
        self._answering = answering
        self._dispatcher: Dispatcher[_Worker] = Dispatcher(lines)
        self._told = told
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._engines: Sequence[EngineOptions] = ()
        self._deaths_in_a_row = 0
        self._n_devices = 1
        self.n_ready = 0
        self.facts: LoadedFacts | None = None

    @property
    def is_done(self) -> bool:
        """Whether every line has its outcome."""
        return self._dispatcher.is_done

    def run(self, engines: Sequence[EngineOptions], until: Callable[[], bool] = lambda: False) -> None:
        """Answer lines with so many workers, until there are no more, or until `until` is true after an outcome.

        The first one begins to load the model before the others are started: what is found out about the machine and
        the files, once for all, is known then.

        Ctrl-C, or another error, ends the workers at once; outcomes that had ended are told before.

        Args:
            engines: for each worker the options of the engine that it has in place of the common ones.
            until: what the workers have begun is finished, the other lines are left for the next set.

        Raises:
            InternVLError: a model cannot be loaded.
            WorkerDiedError: workers died one after the other without an answer.
        """
        self.n_ready = 0
        self._n_devices = len({_gpus_of(engine) for engine in engines})
        self._dispatcher.resume()
        self._engines = engines
        try:
            self._start_workers(1)
            while not self._is_over():
                self._send_moves()
                self._take(*self._next())
                if until():
                    self._dispatcher.pause()
            self._close()
        except BaseException:
            self._kill()
            raise
        finally:
            for worker in self._workers:
                self._dispatcher.remove(worker)
            self._workers = []

    def _is_over(self) -> bool:
        return self._dispatcher.is_done or (self._dispatcher.is_paused and self._dispatcher.is_idle)

    def _start_workers(self, count: int) -> None:
        """Start workers until there are so many."""
        for number in range(len(self._workers), count):
            worker = _Worker(number, self._engines[number])
            self._workers.append(worker)
            self._start(worker)

    def _start(self, worker: _Worker) -> None:
        answering = self._answering.with_engine(**worker.engine)
        worker.process = WorkerProcess(
            lambda _, message: self._events.put((worker, message)),
            lambda _: self._events.put((worker, _Ended())),
            _COMMAND,
        )
        worker.process.send(messages.Start(answering, logging.getLogger("internvl_gguf").getEffectiveLevel()))

    def _next(self) -> _Event:
        while True:
            try:
                return self._events.get(timeout=_TICK)
            except queue.Empty:
                continue

    def _send_moves(self) -> None:
        for move in self._dispatcher.moves():
            if isinstance(move, HandOut):
                move.worker.process.send(messages.Lines(move.lines))
            else:
                move.worker.process.send(messages.WantBack(move.places))

    def _take(self, worker: _Worker, event: Any) -> None:
        """Take note of what a worker says, or of its end."""
        if isinstance(event, messages.LineAnswered):
            self._deaths_in_a_row = 0
            line = self._dispatcher.answered(worker, event.place)
            self._told.answered(Answered(event.place, line.line, event.outcome, event.is_bound))
        elif isinstance(event, messages.GivenBack):
            self._dispatcher.returned(worker, event.given, event.kept)
        elif isinstance(event, messages.Ready):
            self._is_ready(worker, event.facts)
        elif isinstance(event, messages.Loading):
            worker.loaded = event.done
            if not worker.is_replacement:
                self._told.load(sum(each.loaded for each in self._workers) / len(self._engines))
            self._start_workers(len(self._engines))
        elif isinstance(event, messages.CriticLoading):
            self._told.load_critic(event.done)
        elif isinstance(event, NoticeLine):
            self._told.notice(event.line)
        elif isinstance(event, LogLine):
            logging.getLogger(event.logger).log(event.level, "%s", event.line)
        elif isinstance(event, messages.Failed):
            self._failed(worker, event.error)
        elif isinstance(event, _Ended):
            worker.has_ended = True
            if not worker.is_closing:
                self._ended(worker)

    def _is_ready(self, worker: _Worker, facts: LoadedFacts) -> None:
        self.n_ready += 1
        self._start_workers(len(self._engines))
        if self.facts is None:
            self.facts = facts
            self._told.ready(facts, self._n_devices)
        self._dispatcher.add(worker, facts.n_parallel)

    def _failed(self, worker: _Worker, error: InternVLError) -> None:
        """Take note of the error that a worker ends with; one that cannot load the model ends the run.

        Raises:
            InternVLError: that error.
        """
        worker.error = error
        if not worker.is_replacement and not self._dispatcher.has(worker) and not isinstance(error, WorkerDiedError):
            raise error

    def _ended(self, worker: _Worker) -> None:
        """Replace a worker that has died.

        Raises:
            WorkerDiedError: too many have died in a row.
        """
        ending = f"A worker ended: {worker.error.message}" if worker.error else f"A worker {worker.process.ending}."
        self.n_ready -= self._dispatcher.has(worker)
        for line in self._dispatcher.died(worker):
            error = WorkerDiedError(f"{ending} That happened twice with this line.", _LESS)
            self._told.answered(Answered(line.place, line.line, error))
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= len(self._engines) + _DEATHS_BESIDE_WORKERS:
            raise WorkerDiedError(
                f"{ending} It was the last of {self._deaths_in_a_row} in a row without an answer between.",
                f"{_AGAIN} {_LESS}",
            )
        if self._is_over() or self._dispatcher.is_paused:
            return
        self._told.notice(f"{ending} Another one takes its place.")
        replacement = _Worker(worker.number, worker.engine, is_replacement=True)
        self._workers[worker.number] = replacement
        self._start(replacement)

    def _close(self) -> None:
        """Let the workers end by themselves; one that is still loading its model came too late, and is ended."""
        for worker in self._workers:
            worker.is_closing = True
            if self._dispatcher.has(worker):
                worker.process.send(Close())
            else:
                worker.process.kill("was stopped")
        for worker in self._workers:
            worker.process.close(_CLOSING_SECONDS)

    def _kill(self) -> None:
        """End the workers at once, and tell the outcomes that they had sent."""
        started = [worker for worker in self._workers if hasattr(worker, "process")]
        for worker in started:
            worker.is_closing = True
            worker.process.kill("was stopped")
        while not all(worker.has_ended for worker in started):
            worker, event = self._next()
            if isinstance(event, messages.LineAnswered | _Ended):
                self._take(worker, event)


def _gpus_of(engine: EngineOptions) -> tuple[int, ...]:
    """Return the numbers of the GPUs that a worker has for itself or shares; none on a CPU."""
    vram = engine.get("vram")
    return tuple(number for number, size in enumerate(vram) if size) if isinstance(vram, list) else ()


def find_layout(answering: Answering, workers: Workers, on_notice: Notice) -> Layout:
    """Find out how workers share this machine, in a process that loads llama.cpp for it.

    Raises:
        As `layout.lay_out`.
        WorkerDiedError: that process died.
    """
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    process = WorkerProcess(lambda _, message: events.put(message), lambda _: events.put(_Ended()), _COMMAND)
    level = logging.getLogger("internvl_gguf").getEffectiveLevel()
    process.send(messages.LayOut(answering, workers, level))
    try:
        while True:
            try:
                event = events.get(timeout=_TICK)
            except queue.Empty:
                continue
            if isinstance(event, messages.LaidOut):
                return event.layout
            if isinstance(event, messages.Failed):
                raise event.error
            if isinstance(event, NoticeLine):
                on_notice(event.line)
            if isinstance(event, _Ended):
                raise WorkerDiedError(
                    f"The process that looks at this machine for workers {process.ending}.",
                    "Leave --workers out; `internvl doctor` says how the library does here.",
                )
    finally:
        process.kill()
