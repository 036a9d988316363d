"""The process in which one configuration is loaded, measured and freed: `python -m internvl_gguf.bench.child`.

It reads a job as one line of JSON from stdin (`jobs.Job`) and answers with lines of JSON on stdout: `stage` with what
is measured and how much of it is `done`, `notice`, and `part` with its `value` as soon as that is whole. An `error`
ends it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from internvl_gguf.bench.jobs import Job, Part, PartResult, Scoring, job_of_line
from internvl_gguf.bench.peak_memory import MemoryMeter
from internvl_gguf.bench.plain_json import as_plain
from internvl_gguf.bench.quality.accuracy import measure_accuracy
from internvl_gguf.bench.quality.measure import QualityJob, measure_quality
from internvl_gguf.bench.quality.scoring import N_DRAFT
from internvl_gguf.bench.results import QualityResult
from internvl_gguf.bench.speed import measure_loads, measure_parallel, measure_rates, speed_result
from internvl_gguf.config import EngineConfig, EngineOptions
from internvl_gguf.errors import InsufficientMemoryError, InternVLError
from internvl_gguf.session import Session


def main() -> None:
    """Do the job that comes on stdin; errors are answers, too."""
    try:
        for part, result in _measure(job_of_line(sys.stdin.readline())):
            _answer(part=part, value=as_plain(result))
    except InternVLError as error:
        status = "out of memory" if isinstance(error, InsufficientMemoryError) else "failed"
        _answer(error={"status": status, "message": error.message, "hint": error.hint})
    except MemoryError:
        hint = "Take a smaller quant or context, or end other programs."
        _answer(error={"status": "out of memory", "message": "There was no memory left.", "hint": hint})
    except BrokenPipeError:  # who asked is gone
        sys.exit(1)


def _measure(job: Job) -> Iterator[tuple[Part, PartResult]]:
    """The parts of a job, each as soon as it is measured."""
    if job.speed or job.memory:
        yield from _measure_machine(job)
    if job.quality:
        yield "quality", _measure_quality(job, job.quality)
    if job.tasks:
        with _open(job, {}) as session:
            for task in job.tasks:
                yield "accuracy", measure_accuracy(session, task, _tell, _notice)


def _measure_machine(job: Job) -> Iterator[tuple[Part, PartResult]]:
    """Speed and memory: nothing comes from the disk's cache of embeddings, and nothing goes there."""

    def opened(others: EngineOptions) -> Session:
        return _open(job, {"embedding_disk_bytes": 0, **others})

    meter = MemoryMeter() if job.memory else None
    rates = None
    _tell("load", 0.0)
    with opened({}) as session:
        if meter:  # first: nothing else has taken any
            yield "memory", meter.measure(session, _tell)
        if job.speed:
            rates = measure_rates(session, job.speed, _tell)
    if job.speed and rates:
        load = measure_loads(opened, job.speed.repetitions, _tell)
        yield "speed", speed_result(job.speed, rates, load, measure_parallel(opened, job.speed, _tell))


def _measure_quality(job: Job, scoring: Scoring) -> QualityResult:
    """Quality. Room for guesses lets the engine look at so many distributions in one computation."""
    room = job.engine.get("n_batch", EngineConfig.n_batch) - 1
    with _open(job, {"n_draft": min(N_DRAFT, room)}) as session:
        quality = QualityJob(scoring.folder, scoring.role, scoring.text, scoring.pictures, n_chunks=scoring.chunks)
        return measure_quality(session, quality, _tell, _notice)


def _open(job: Job, others: EngineOptions) -> Session:
    engine: dict[str, Any] = {**job.engine, **others}
    return Session.open(job.text, job.mmproj, on_notice=_notice, **engine)


def _notice(line: str) -> None:
    _answer(notice=line)


def _tell(what: str, done: float) -> None:
    _answer(stage=what, done=done)


def _answer(**fields: Any) -> None:
    sys.stdout.write(f"{json.dumps(fields)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
