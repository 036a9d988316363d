"""The job of one child process, and the types of its answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from internvl_gguf.bench.best_of.settings import BestOfSettings
from internvl_gguf.bench.plain_json import as_plain, from_plain
from internvl_gguf.bench.results import AccuracyResult, BestOfResult, MemoryResult, QualityResult, SpeedResult

Part = Literal["speed", "memory", "quality", "accuracy", "best_of"]
"""A part of a configuration's results."""

PARTS: Final[tuple[Part, ...]] = tuple(part for part in get_args(Part) if part != "best_of")
"""The parts that are measured by default; several answers to a question are compared only on request."""

PartResult = SpeedResult | MemoryResult | QualityResult | AccuracyResult | BestOfResult
KINDS: Final[dict[Part, type[PartResult]]] = {
    "speed": SpeedResult,
    "memory": MemoryResult,
    "quality": QualityResult,
    "accuracy": AccuracyResult,
    "best_of": BestOfResult,
}


@dataclass(frozen=True)
class SpeedJob:
    """Settings of the speed measurements.

    Attributes:
        n_prompt: tokens of the prompt.
        n_gen: tokens of the answer.
        repetitions: runs of each measurement, after one warm-up that does not count.
        parallel: answers decoded together in one more measurement; 1 leaves that out.
    """

    n_prompt: int
    n_gen: int
    repetitions: int
    parallel: int = 1


@dataclass(frozen=True)
class ScoringJob:
    """The texts and pictures to score, and the role in the comparison: `quality.QualityJob` without its imports.

    Attributes:
        folder: of the reference's distributions.
        role: "write" for the reference itself, "read" for all others.
        text, pictures: paths of the sets; None for those that come with the package, "off" for none.
        chunks: most chunks of the text that are scored; None for all of it.
    """

    folder: str
    role: Literal["write", "read"]
    text: str | None = None
    pictures: str | None = None
    chunks: int | None = None


@dataclass(frozen=True)
class BestOfJob:
    """Several answers to each question.

    Attributes:
        settings: how many, and how they are made and judged.
        tasks: paths of the tasks to ask; None for the one that comes with the package.
    """

    settings: BestOfSettings
    tasks: tuple[str | None, ...]


@dataclass(frozen=True)
class Job:
    """One configuration and the parts to measure.

    Attributes:
        text, mmproj: paths of the files.
        engine: fields of `EngineConfig`.
        speed: how to measure speed; None to leave it out.
        memory: whether to measure memory.
        quality: how to measure quality; None to leave it out.
        tasks: paths of the tasks to ask; None for the one that comes with the package.
        best_of: which tasks to answer several times, and how; None to leave it out.
    """

    text: str
    mmproj: str
    engine: dict[str, Any] = field(default_factory=dict)
    speed: SpeedJob | None = None
    memory: bool = False
    quality: ScoringJob | None = None
    tasks: tuple[str | None, ...] = ()
    best_of: BestOfJob | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to measure."""
        return not (self.speed or self.memory or self.quality or self.tasks or self.best_of)


@dataclass(frozen=True)
class MachineFacts:
    """The machine and the llama.cpp build that a benchmark runs on.

    Attributes:
        machine: description in one line.
        build: build of llama.cpp.
        host: free bytes of host memory.
        gpus: free bytes of each GPU.
        is_unified: whether a GPU's memory is the host's.
    """

    machine: str
    build: str
    host: int
    gpus: tuple[int, ...]
    is_unified: bool


def job_as_line(job: Job) -> str:
    """Return a job as the line that a child process reads."""
    return json.dumps(as_plain(job))


def job_of_line(line: str) -> Job:
    """Return the job that `job_as_line` wrote.

    Raises:
        InvalidRequestError, ValueError: the line is not such a job.
    """
    return from_plain(Job, json.loads(line))
