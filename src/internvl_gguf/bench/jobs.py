"""What one child process is asked to measure, and the lines it answers with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from internvl_gguf.bench.plain_json import as_plain, from_plain
from internvl_gguf.bench.results import AccuracyResult, MemoryResult, QualityResult, SpeedResult

Part = Literal["speed", "memory", "quality", "accuracy"]
"""What can be measured of a configuration."""

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
    """How speed is measured.

    Attributes:
        n_prompt: tokens of the prompt that is read.
        n_gen: tokens of the answer.
        repetitions: of each measurement, after one that does not count.
        parallel: answers decoded together in one more measurement; 1 leaves that out.
    """

    n_prompt: int
    n_gen: int
    repetitions: int
    parallel: int = 1


@dataclass(frozen=True)
class Scoring:
    """What to score, and on which side of the comparison: `quality.QualityJob`, without what that imports.

    Attributes:
        folder: of the reference's distributions.
        role: "write" for the reference itself, "read" for all others.
        text, pictures: paths of the sets; None for those that come with the package, "off" for none.
        chunks: of the text that are scored, at most; None for all of it.
    """

    folder: str
    role: Literal["write", "read"]
    text: str | None = None
    pictures: str | None = None
    chunks: int | None = None


@dataclass(frozen=True)
class Job:
    """One configuration and what to measure of it.

    Attributes:
        text, mmproj: paths of the files.
        engine: fields of `EngineConfig`.
        speed: how to measure speed; None to leave it out.
        memory: whether to measure memory.
        quality: what to score, and against what; None to leave it out.
        tasks: the tasks to ask, by their paths; None for the one that comes with the package.
    """

    text: str
    mmproj: str
    engine: dict[str, Any] = field(default_factory=dict)
    speed: SpeedJob | None = None
    memory: bool = False
    quality: Scoring | None = None
    tasks: tuple[str | None, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to measure."""
        return not (self.speed or self.memory or self.quality or self.tasks)


@dataclass(frozen=True)
class MachineFacts:
    """What a benchmark ran on.

    Attributes:
        machine: in one line.
        build: of llama.cpp.
        host: bytes of host memory that are free.
        gpus: bytes that each GPU has free.
        is_unified: whether a GPU's memory is the host's.
    """

    machine: str
    build: str
    host: int
    gpus: tuple[int, ...]
    is_unified: bool


def job_as_line(job: Job) -> str:
    """A job as a child reads it."""
    return json.dumps(as_plain(job))


def job_of_line(line: str) -> Job:
    """The job that `job_as_line` wrote.

    Raises:
        InvalidRequestError, ValueError: it did not.
    """
    return from_plain(Job, json.loads(line))
