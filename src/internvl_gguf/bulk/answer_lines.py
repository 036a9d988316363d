"""Answer the lines of a batch: in this process, or by workers that share the machine."""

from __future__ import annotations

from dataclasses import replace

from internvl_gguf.bulk.answerer import Answered, Answering, PlacedLines, open_answerer
from internvl_gguf.bulk.layout import Layout, Workers, shared_threads
from internvl_gguf.bulk.pool import Told, WorkerPool, find_layout
from internvl_gguf.bulk.worker_trial import (
    Measured,
    RateWindow,
    WorkerTrial,
    is_worth_a_trial,
    known_workers,
    trial_key,
    work_of,
)
from internvl_gguf.config import EngineOptions
from internvl_gguf.utils.sizes import counted


def answer_lines(answering: Answering, lines: PlacedLines, count: int, told: Told, workers: Workers = 1) -> None:
    """Answer lines, and tell each outcome as soon as it is there.

    Args:
        answering: how they are answered.
        lines: the lines; read as they are needed.
        count: how many there are.
        told: what is told of them.
        workers: 1 for none beside this process; "auto" for one for each GPU, on a CPU for as many as measured best.

    Raises:
        InsufficientMemoryError: there is no memory for so many workers.
        InternVLError: the model cannot be loaded, or options of all lines cannot be used.
        WorkerDiedError: workers died one after the other without an answer.
    """
    layout = Layout(({},)) if workers == 1 else find_layout(answering, workers, told.notice)
    if layout.most == 1 and len(layout.engines) == 1:
        _answer_alone(answering.with_engine(**layout.engines[0]), lines, told)
    elif layout.most == 1:
        WorkerPool(answering, lines, told).run(layout.engines)
    else:
        _Measured(answering, lines, count, told, layout).run()


def _answer_alone(answering: Answering, lines: PlacedLines, told: Told) -> None:
    with open_answerer(answering, told.load, told.notice, told.load_critic) as answerer:
        told.ready(answerer.facts, 1)
        answerer.answer(lines, told.answered)


class _Measured:
    """Answers lines with as many workers on a CPU as the first lines show to be best."""

    def __init__(
        self,
        answering: Answering,
        lines: PlacedLines,
        count: int,
        told: Told,
        layout: Layout,
    ) -> None:
        self._key = trial_key(answering, layout.n_threads)
        self._layout = layout
        self._left = count
        self._told = told
        self._pool = WorkerPool(answering, lines, replace(told, answered=self._answered))
        self._trial = WorkerTrial(layout.most)
        self._window: RateWindow | None = None

    def run(self) -> None:
        """Answer them."""
        known = known_workers(self._key)
        if known is not None:
            self._trial.workers, self._trial.is_settled = min(known, self._layout.most), True
            self._told.notice(_found(self._trial.workers, "by an earlier run"))
        while not self._pool.is_done:
            self._window = None
            self._pool.run(self._engines(), until=self._changes)

    def _engines(self) -> list[EngineOptions]:
        workers = self._trial.workers
        return shared_threads(self._layout.n_threads, workers) if workers > 1 else [{}]

    def _changes(self) -> bool:
        """Return whether another number of workers is to go on, now that enough was seen of this one."""
        if self._window is None or not self._window.is_over:
            return False
        workers, places, rate = self._trial.workers, self._window.places, self._window.rate
        self._window = None
        self._trial.add(rate, may_grow=is_worth_a_trial(self._left, 2 * places))
        if self._trial.is_proven:
            Measured(self._trial.workers, self._trial.rates).keep(self._key)
            self._told.notice(_found(self._trial.workers, "on the first lines"))
        return self._trial.workers != workers

    def _answered(self, answered: Answered) -> None:
        self._left -= 1
        self._told.answered(answered)
        facts = self._pool.facts
        if self._trial.is_settled or facts is None or self._pool.n_ready < self._trial.workers:
            return
        self._window = self._window or RateWindow(self._trial.workers * facts.n_parallel)
        self._window.add(work_of(answered.outcome, facts))


def _found(workers: int, where: str) -> str:
    return f"{counted(workers, 'worker')} {'answers' if workers == 1 else 'answer'}, as measured best {where}."
