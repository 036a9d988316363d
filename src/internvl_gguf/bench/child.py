"""The child process that loads, measures and frees one configuration: `python -m internvl_gguf.bench.child`.

It reads a job as one line of JSON from stdin (`jobs.Job`) and answers with lines of JSON on stdout: `stage` with the
measurement in progress and the fraction of it that is `done`, `notice`, and `part` with its `value` as soon as that is
complete. An `error` ends it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_gguf.bench.best_of.judges import opened_judges
from internvl_gguf.bench.best_of.measure import measure_best_of
from internvl_gguf.bench.best_of.timing import with_seconds
from internvl_gguf.bench.jobs import BestOfJob, Job, Part, PartResult, ScoringJob, job_of_line
from internvl_gguf.bench.local_runtime import open_here
from internvl_gguf.bench.peak_memory import MemoryMeter
from internvl_gguf.bench.plain_json import as_plain
from internvl_gguf.bench.quality.accuracy import measure_accuracy
from internvl_gguf.bench.quality.measure_quality import QualityJob, measure_quality
from internvl_gguf.bench.quality.scoring import N_DRAFT
from internvl_gguf.bench.results import BestOfResult, QualityResult
from internvl_gguf.bench.speed import measure_loads, measure_parallel, measure_rates, speed_result
from internvl_gguf.config import EngineConfig, EngineOptions
from internvl_gguf.errors import InsufficientMemoryError, InternVLError

if TYPE_CHECKING:
    from internvl_gguf.bench.best_of.critic_files import CriticFiles
    from internvl_gguf.critics import Critic
    from internvl_gguf.session import Session


def main() -> None:
    """Do the job read from stdin; errors are sent as answers, too."""
    try:
        for part, result in _measure(job_of_line(sys.stdin.readline())):
            _send(part=part, value=as_plain(result))
    except InternVLError as error:
        status = "out of memory" if isinstance(error, InsufficientMemoryError) else "failed"
        _send(error={"status": status, "message": error.message, "hint": error.hint})
    except MemoryError:
        hint = "Take a smaller quant or context, or end other programs."
        _send(error={"status": "out of memory", "message": "There was no memory left.", "hint": hint})
    except BrokenPipeError:  # the parent process is gone
        sys.exit(1)


def _measure(job: Job) -> Iterator[tuple[Part, PartResult]]:
    """Measure the parts of a job; yield each as soon as it is measured."""
    if job.speed or job.memory:
        yield from _measure_machine(job)
    if job.quality:
        yield "quality", _measure_quality(job, job.quality)
    if job.tasks:
        with _open(job, {}) as session:
            for task in job.tasks:
                yield "accuracy", measure_accuracy(session, task, _report_stage, _notice)
    if job.best_of:
        for task in job.best_of.tasks:
            yield "best_of", _measure_best_of(job, job.best_of, task)


def _measure_machine(job: Job) -> Iterator[tuple[Part, PartResult]]:
    """Measure speed and memory, without the embedding cache on disk."""

    def opened(others: EngineOptions) -> Session:
        return _open(job, {"embedding_disk_bytes": 0, **others})

    meter = MemoryMeter() if job.memory else None
    rates = None
    _report_stage("load", 0.0)
    with opened({}) as session:
        if meter:  # first: nothing else has taken any
            yield "memory", meter.measure(session, _report_stage)
        if job.speed:
            rates = measure_rates(session, job.speed, _report_stage)
    if job.speed and rates:
        load = measure_loads(opened, job.speed.repetitions, _report_stage)
        yield "speed", speed_result(job.speed, rates, load, measure_parallel(opened, job.speed, _report_stage))


def _measure_best_of(job: Job, wanted: BestOfJob, task: str | None) -> BestOfResult:
    """Count right answers, and take the time with nothing of the pictures known."""

    def open_critic(files: CriticFiles) -> Critic:
        engine: dict[str, Any] = {**job.engine, "n_parallel": 1, "n_candidates": 1, "n_draft": 0}
        return files.open(_notice, **engine)

    with opened_judges(wanted.settings, open_critic) as judges, _open(job, {}) as session:
        measured = measure_best_of(session, task, wanted.settings, judges, _report_stage, _notice)
    with _open(job, {"embedding_cache_bytes": 0, "embedding_disk_bytes": 0}) as session:
        return with_seconds(session, measured, wanted.settings, _report_stage)


def _measure_quality(job: Job, scoring: ScoringJob) -> QualityResult:
    """Measure quality. `n_draft` lets one computation give that many more rows of logits."""
    room = job.engine.get("n_batch", EngineConfig.n_batch) - 1
    with _open(job, {"n_draft": min(N_DRAFT, room)}) as session:
        quality = QualityJob(scoring.folder, scoring.role, scoring.text, scoring.pictures, n_chunks=scoring.chunks)
        return measure_quality(session, quality, _report_stage, _notice)


def _open(job: Job, others: EngineOptions) -> Session:
    engine: dict[str, Any] = {"n_parallel": 1, **job.engine, **others}  # chosen, so that no batch suggests another
    return open_here(Path(job.text), Path(job.mmproj), _notice, **engine)


def _notice(line: str) -> None:
    _send(notice=line)


def _report_stage(what: str, done: float) -> None:
    _send(stage=what, done=done)


def _send(**fields: Any) -> None:
    sys.stdout.write(f"{json.dumps(fields)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
