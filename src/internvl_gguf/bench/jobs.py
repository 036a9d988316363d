"""The job of one child process, and the types of its answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from internvl_gguf.bench.plain_json import as_plain, from_plain
from internvl_gguf.bench.results import AccuracyResult, MemoryResult, QualityResult, SpeedResult

Part = Literal["speed", "memory", "quality", "accuracy"]
"""A part of a configuration's results."""

PARTS: Final[tuple[Part, ...]] = get_args(Part)
PartResult = SpeedResult | MemoryResult | QualityResult | AccuracyResult
KINDS: Final[dict[Part, type[PartResult]]] = {
    "speed": SpeedResult,
    "memory": MemoryResult,
    "quality": QualityResult,
    "accuracy": AccuracyResult,
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
class Job:
    """One configuration and the parts to measure.

    Attributes:
        text, mmproj: paths of the files.
        engine: fields of `EngineConfig`.
        speed: how to measure speed; None to leave it out.
        memory: whether to measure memory.
        quality: how to measure quality; None to leave it out.
        tasks: paths of the tasks to ask; None for the one that comes with the package.
    """

    text: str
    mmproj: str
    engine: dict[str, Any] = field(default_factory=dict)
    speed: SpeedJob | None = None
    memory: bool = False
    quality: ScoringJob | None = None
    tasks: tuple[str | None, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to measure."""
        return not (self.speed or self.memory or self.quality or self.tasks)


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
