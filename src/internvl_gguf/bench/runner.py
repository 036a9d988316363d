"""Run a benchmark: fetch each configuration, look up known results, measure the rest in a child process, save them."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from typing import Final, Literal, Protocol

from internvl_gguf.bench.benchmark_plan import BenchmarkPlan, PlannedRun
from internvl_gguf.bench.jobs import Job, PartResult, ScoringJob
from internvl_gguf.bench.keys import RunIdentity
from internvl_gguf.bench.measured_run import MeasuredRun, Reference, with_losses_apart
from internvl_gguf.bench.pairs import FilePair
from internvl_gguf.bench.process import Listener, run_job
from internvl_gguf.bench.results import Row
from internvl_gguf.bench.store import Store
from internvl_gguf.bench.time_left import TimeLeft
from internvl_gguf.errors import InternVLError
from internvl_gguf.models.local_files import ModelFiles

_INTERRUPTED: Final = "Interrupted. The same command goes on after what was measured."


class Watcher(Protocol):
    """Callbacks for the progress of a benchmark."""

    def begin(self, place: int, planned: PlannedRun) -> None:
        """Announce the next configuration, at place `place` of the order, from 0."""

    def fetch(self, pair: FilePair) -> ModelFiles:
        """Fetch the files of a pair, and show the progress."""

    def stage(self, what: str, done: float, left: float | None) -> None:
        """Show the measurement in progress, the fraction of it that is done, 0 to 1, and the seconds left for all."""

    def end(self, row: Row, seconds: float | None, left: float | None) -> None:
        """Show that a configuration is finished; `seconds` is its time, None if everything was known before."""

    def say(self, line: str) -> None:
        """Show a line to the user."""


class Runner:
    """Runs a plan.

    Args:
        plan: what to measure.
        store: results of earlier runs.
        build: build of llama.cpp.
        watcher: shows the progress.
        known: problems of the sets that the user was told already; they are not repeated for every configuration.

    Attributes:
        notices: remarks for the reader of the results, one line each.
        is_interrupted: whether Ctrl-C ended the benchmark.
    """

    def __init__(
        self, plan: BenchmarkPlan, store: Store, build: str, watcher: Watcher, known: Collection[str] = frozenset()
    ) -> None:
        self._known = known
        self.notices: list[str] = []
        self.is_interrupted = False
        self._plan, self._store, self._build, self._watcher = plan, store, build, watcher
        self._runs = [MeasuredRun(planned) for planned in plan.runs]
        self._reference: Reference | None = None
        self._time = TimeLeft([planned.configuration.bytes for planned in plan.runs])

    def run(self) -> tuple[Row, ...]:
        """Measure everything, the reference first; return rows in the order of the plan.

        If one configuration fails, the others are still measured. Ctrl-C ends the benchmark: finished parts are in the
        rows, and are not measured again the next time.
        """
        try:
            for place, index in enumerate(self._plan.order):
                self._run_one(place, index)
        except KeyboardInterrupt:
            self.is_interrupted = True
        earlier = sum(run.knows_earlier for run in self._runs)
        if earlier:
            self.notices.append(  # for the report, which follows at once
                f"What an earlier run measured is in {earlier} of {len(self._runs)} rows; --fresh measures it anew."
            )
        crossed = [self._plan.crossed(index) for index in range(len(self._runs))]
        return with_losses_apart([run.row() for run in self._runs], crossed)

    def _run_one(self, place: int, index: int) -> None:
        """Take one configuration from its files to its row."""
        run = self._runs[index]
        started = time.monotonic()
        self._watcher.begin(place, run.planned)
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
            self._time.finish(index, seconds)
            if index == self._plan.reference and not run.has_quality:
                self._lose_reference(run)
            self._watcher.end(run.row(), seconds, self._time.seconds())

    def _measure(self, index: int, run: MeasuredRun) -> bool:
        """Measure the parts that are not known; return whether all were known.

        Raises:
            InternVLError: the files or sets cannot be read or fetched.
        """
        measurements = self._plan.measurements
        files = self._watcher.fetch(run.planned.pair)
        identity = RunIdentity.of(files, self._build, run.planned.run_config)
        is_reference = index == self._plan.reference
        if is_reference:
            self._reference = Reference.of(identity, measurements)
        run.look_up(identity, measurements, self._reference, self._store)
        job = run.job(files, measurements, self._scoring("write" if is_reference else "read"))
        if job.quality and not is_reference and self._reference and not self._reference.is_written(measurements):
            self._write_again(self._reference)
            job = job if self._reference else replace(job, quality=None)
        if job.is_empty:
            run.status = "measured"
        else:
            self._run_job(index, run, job)
        if job.quality and self._reference:
            self._reference.keep()
        return job.is_empty

    def _scoring(self, role: Literal["write", "read"]) -> ScoringJob | None:
        """Return how quality is measured; None if there is no reference."""
        measurements = self._plan.measurements
        if self._reference is None:
            return None
        return ScoringJob(
            str(self._reference.folder), role, measurements.text, measurements.pictures, measurements.chunks
        )

    def _write_again(self, reference: Reference) -> None:
        """Run the reference again for its distributions, which are gone although its own quality is known."""
        index = self._plan.reference
        if index is None:
            raise AssertionError("a reference that is not in the plan")
        run = self._runs[index]
        self._watcher.say(f"What {run.planned.name} expects is not kept any more: scoring it again.")
        before = run.status, run.error
        self._run_job(index, run, run.scoring_job(self._watcher.fetch(run.planned.pair), self._scoring("write")))
        if not reference.is_written(self._plan.measurements):
            self._lose_reference(run)
        run.status, run.error = before

    def _run_job(self, index: int, run: MeasuredRun, job: Job) -> None:
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
                self._notice(f"{run.planned.name}: {line}")

        ending = run_job(job, Listener(stage, take, note))
        run.status, run.error = ending.status, ending.error

    def _lose_reference(self, run: MeasuredRun) -> None:
        """Give up quality, since the reference failed."""
        self._reference = None
        if run.status != "not run":
            self._notice(f"Quality was not measured: the reference, {run.planned.name}, failed.")

    def _notice(self, line: str) -> None:
        """Show a line and keep it for the report, unless it was shown before."""
        if line not in self.notices:
            self.notices.append(line)
            self._watcher.say(line)
