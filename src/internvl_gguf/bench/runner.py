"""The benchmark itself: each configuration fetched, looked up, measured in a process of its own, kept."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from typing import Final, Literal, Protocol

from internvl_gguf.bench.entry_run import EntryRun, Reference, with_losses_apart
from internvl_gguf.bench.jobs import Job, PartResult, Scoring
from internvl_gguf.bench.keys import Subject
from internvl_gguf.bench.pairs import Pair
from internvl_gguf.bench.plan import Entry, Plan
from internvl_gguf.bench.process import Listener, run_job
from internvl_gguf.bench.results import Row
from internvl_gguf.bench.store import Store
from internvl_gguf.bench.time_left import TimeLeft
from internvl_gguf.errors import InternVLError
from internvl_gguf.models.local_files import ModelFiles

_INTERRUPTED: Final = "Interrupted. The same command goes on after what was measured."


class Watcher(Protocol):
    """Who is told how far a benchmark is."""

    def begin(self, place: int, entry: Entry) -> None:
        """The configuration at this place of the order, from 0, is next."""

    def fetch(self, pair: Pair) -> ModelFiles:
        """Have the files of a pair fetched, and show how far that is."""

    def stage(self, what: str, done: float, left: float | None) -> None:
        """What of it is measured, which part of that is done, 0 to 1, and the seconds left for everything."""

    def end(self, row: Row, seconds: float | None, left: float | None) -> None:
        """It is over, and took so many seconds; None where everything was known."""

    def say(self, line: str) -> None:
        """A line for the person."""


class Runner:
    """Runs a plan.

    Args:
        plan: what to measure.
        store: what was measured before.
        build: of the library.
        watcher: told how far it is.
        known: problems of the sets that were told before; they are not told of every configuration.

    Attributes:
        notices: what a reader of the results should know, one line each.
        is_interrupted: whether Ctrl-C ended it.
    """

    def __init__(
        self, plan: Plan, store: Store, build: str, watcher: Watcher, known: Collection[str] = frozenset()
    ) -> None:
        self._known = known
        self.notices: list[str] = []
        self.is_interrupted = False
        self._plan, self._store, self._build, self._watcher = plan, store, build, watcher
        self._runs = [EntryRun(entry) for entry in plan.entries]
        self._reference: Reference | None = None
        self._time = TimeLeft([entry.configuration.bytes for entry in plan.entries])

    def run(self) -> tuple[Row, ...]:
        """Measure everything, the reference first; rows are in the order of the plan.

        Whatever becomes of one configuration, the others are measured. Ctrl-C ends it: what was measured is in the
        rows, and is not measured again the next time.
        """
        try:
            for place, index in enumerate(self._plan.order):
                self._run_entry(place, index)
        except KeyboardInterrupt:
            self.is_interrupted = True
        earlier = sum(run.knows_earlier for run in self._runs)
        if earlier:
            self.notices.append(  # for the report, which follows at once
                f"What an earlier run measured is in {earlier} of {len(self._runs)} rows; --fresh measures it anew."
            )
        crossed = [self._plan.crossed(index) for index in range(len(self._runs))]
        return with_losses_apart([run.row() for run in self._runs], crossed)

    def _run_entry(self, place: int, index: int) -> None:
        """One configuration from its files to its row."""
        run = self._runs[index]
        started = time.monotonic()
        self._watcher.begin(place, run.entry)
        seconds: float | None = None
        try:
            is_known = self._measure(index, run)
            seconds = None if is_known or run.status != "measured" else time.monotonic() - started
        except InternVLError as error:
            run.status, run.error = "failed", f"{error.message} {error.hint}"
        except OSError as error:  # no room for another process, or for its stderr
            run.status, run.error = "failed", f"It could not be started: {error.strerror or error}."
        except KeyboardInterrupt:
            run.status, run.error = "not run", _INTERRUPTED
            raise
        finally:
            self._time.over(index, seconds)
            if index == self._plan.reference and not run.has_quality:
                self._lose_reference(run)
            self._watcher.end(run.row(), seconds, self._time.seconds())

    def _measure(self, index: int, run: EntryRun) -> bool:
        """Measure what is not known; whether all of it was.

        Raises:
            InternVLError: the files or sets cannot be had.
        """
        measures = self._plan.measures
        files = self._watcher.fetch(run.entry.pair)
        subject = Subject.of(files, self._build, run.entry.point)
        is_reference = index == self._plan.reference
        if is_reference:
            self._reference = Reference.of(subject, measures)
        run.look_up(subject, measures, self._reference, self._store)
        job = run.job(files, measures, self._scoring("write" if is_reference else "read"))
        if job.quality and not is_reference and self._reference and not self._reference.is_written(measures):
            self._write_again(self._reference)
            job = job if self._reference else replace(job, quality=None)
        if job.is_empty:
            run.status = "measured"
        else:
            self._run_job(index, run, job)
        if job.quality and self._reference:
            self._reference.keep()
        return job.is_empty

    def _scoring(self, role: Literal["write", "read"]) -> Scoring | None:
        """How quality is measured; None where there is nothing to measure it against."""
        measures = self._plan.measures
        if self._reference is None:
            return None
        return Scoring(str(self._reference.folder), role, measures.text, measures.pictures, measures.chunks)

    def _write_again(self, reference: Reference) -> None:
        """Have the reference leave its distributions: its own quality was known, so it was not run for them."""
        index = self._plan.reference
        if index is None:
            raise AssertionError("a reference that is not in the plan")
        run = self._runs[index]
        self._watcher.say(f"What {run.entry.name} expects is not kept any more: scoring it again.")
        before = run.status, run.error
        self._run_job(index, run, run.scoring_job(self._watcher.fetch(run.entry.pair), self._scoring("write")))
        if not reference.is_written(self._plan.measures):
            self._lose_reference(run)
        run.status, run.error = before

    def _run_job(self, index: int, run: EntryRun, job: Job) -> None:
        started = time.monotonic()

        def stage(what: str, done: float) -> None:
            self._watcher.stage(what, done, self._time.seconds(index, time.monotonic() - started))

        def take(result: PartResult) -> None:
            try:
                run.take(result, self._store)
            except OSError as error:
                self._notice(f"Results cannot be kept for the next time: {error.strerror}.")

        def note(line: str) -> None:
            if line not in self._known:
                self._notice(f"{run.entry.name}: {line}")

        ending = run_job(job, Listener(stage, take, note))
        run.status, run.error = ending.status, ending.error

    def _lose_reference(self, run: EntryRun) -> None:
        """The reference came to nothing, so quality cannot be measured."""
        self._reference = None
        if run.status != "not run":
            self._notice(f"Quality was not measured: the reference, {run.entry.name}, failed.")

    def _notice(self, line: str) -> None:
        """Once each."""
        if line not in self.notices:
            self.notices.append(line)
            self._watcher.say(line)
