"""Parent side of the child process that quantises: jobs in, plans and files out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from internvl_gguf.errors import LibraryError
from internvl_gguf.utils.child_process import (
    end_child,
    error_file,
    object_of,
    python_module,
    start_child,
    stdin_of,
    stdout_of,
)
from internvl_gguf.utils.process_end import describe_end, last_error_line

_COMMAND: Final = python_module("internvl_gguf.llama.quantize_process")
_NO_FALLBACK: Final = "no tensor type fallback"
_NOT_WRITTEN: Final = "iostream"  # C++'s error for a file that cannot be written
_BAD_VALUES: Final = ("validation failed", "invalid data")


@dataclass(frozen=True)
class Fallback:
    """A matrix whose rows do not divide into the blocks of its type, and the type it is stored in instead.

    Attributes:
        tensor: its name.
        wanted, given: names of the types, such as Q4_K and Q5_0.
    """

    tensor: str
    wanted: str
    given: str


@dataclass(frozen=True)
class Job:
    """A file to make.

    Attributes:
        source: the model; the first part of a split one.
        label: the type.
        n_threads: CPU threads; 0 for all.
        is_pure: whether every matrix gets the type's own format instead of llama.cpp's mixture.
        requantise: whether weights in blocks may be quantised again.
        matrix: an .npz with the mean squares of each tensor's inputs, or None.
        metadata: keys to set in the output.
    """

    source: Path
    label: str
    n_threads: int = 0
    is_pure: bool = False
    requantise: bool = False
    matrix: Path | None = None
    metadata: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The result that a job would have.

    Attributes:
        types: the type of each tensor that changes, such as Q6_K, by the tensor's name.
        fallbacks: matrices that do not get the type they should.
        needs_matrix: whether it cannot be made without an importance matrix.
    """

    types: Mapping[str, str]
    fallbacks: tuple[Fallback, ...]
    needs_matrix: bool


class QuantizeProcess:
    """llama.cpp in a child process, started when needed and again after it died. Close it.

    A call cannot be stopped, so an exception while one runs, Ctrl-C included, ends the process.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = error_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Closing twice is harmless."""
        self._end()
        self._stderr.close()

    def plan(self, job: Job) -> Plan:
        """Return the result that a job would have; takes a moment, writes nothing.

        Raises:
            LibraryError: llama.cpp refused, or died.
        """
        types: dict[str, str] = {}
        fallbacks: list[Fallback] = []
        needs_matrix = False

        def take(answer: Mapping[str, Any]) -> None:
            nonlocal needs_matrix
            if answer.get("type"):
                types[answer["tensor"]] = answer["type"].upper()
            elif "fallback" in answer:
                fallbacks.append(_fallback(answer))
            needs_matrix |= "needs_matrix" in answer

        self._do(job, None, take)
        return Plan(types, tuple(fallbacks), needs_matrix)

    def run(self, job: Job, output: Path, on_tensor: Callable[[int, int], None]) -> tuple[Fallback, ...]:
        """Run a job.

        Args:
            job: what to make.
            output: the file, replaced if it is there.
            on_tensor: called with the numbers of tensors done and in all.

        Returns:
            Matrices that did not get the type they should.

        Raises:
            LibraryError: llama.cpp refused, or died.
        """
        fallbacks: list[Fallback] = []

        def take(answer: Mapping[str, Any]) -> None:
            if "tensor" in answer:
                on_tensor(answer["index"], answer["count"])
            elif "fallback" in answer:
                fallbacks.append(_fallback(answer))

        self._do(job, output, take)
        return tuple(fallbacks)

    def _do(self, job: Job, output: Path | None, take: Callable[[Mapping[str, Any]], None]) -> None:
        """Run a job; `take` is called with each answer of the process about it."""
        request = {
            "source": str(job.source),
            "output": None if output is None else str(output),
            "type": job.label,
            "threads": job.n_threads,
            "pure": job.is_pure,
            "requantize": job.requantise,
            "matrix": None if job.matrix is None else str(job.matrix),
            "metadata": dict(job.metadata),
        }
        try:
            for answer in self._ask(request):
                if "done" in answer:
                    return
                if "error" in answer:
                    break
                take(answer)
            else:
                raise self._death_error(job)
        except BaseException:
            self._end()
            raise
        raise _refusal_error(job, answer["error"], answer["hint"])

    def _ask(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the answers to a request, until the process ends."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = start_child(_COMMAND, self._stderr)
        try:
            stdin_of(self._process).write(json.dumps(request).encode() + b"\n")
            stdin_of(self._process).flush()
        except BrokenPipeError:
            return
        for line in stdout_of(self._process):
            yield from object_of(line)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            end_child(process)

    def _death_error(self, job: Job) -> LibraryError:
        status = self._process.wait() if self._process else 0
        self._end()
        return LibraryError(
            f"llama.cpp {describe_end(status, last_error_line(self._stderr))} while making {job.label} of "
            f"{job.source.name}.",
            "Make another type, and report this with the model's name.",
        )


def _fallback(answer: Mapping[str, Any]) -> Fallback:
    tensor, wanted, given = answer["fallback"]
    return Fallback(tensor, wanted.upper(), given.upper())


def _refusal_error(job: Job, reason: str, hint: str) -> LibraryError:
    if _NOT_WRITTEN in reason:
        return LibraryError(
            f"{job.label} of {job.source.name} could not be written.", "Free some space, or name another folder."
        )
    if not hint:
        if _NO_FALLBACK in reason:
            hint = "The rows of a matrix do not divide into its blocks: make another type."
        elif any(words in reason for words in _BAD_VALUES):
            hint = "A weight is not a number, or too large for this type: make BF16 or Q8_0, or check the source."
        else:
            hint = "Make another type, or check the source."
    return LibraryError(f"llama.cpp cannot make {job.label} of {job.source.name}: {reason}.", hint)
