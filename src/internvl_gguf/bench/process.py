"""Parent side of the child process that measures one configuration: start it, read its lines, explain its end."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from internvl_gguf.bench.jobs import KINDS, Job, MachineFacts, PartResult, job_as_line
from internvl_gguf.bench.plain_json import from_plain
from internvl_gguf.bench.results import Status
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.rpc.lost import lost_servers
from internvl_gguf.utils.child_process import Child, child_process, python_module
from internvl_gguf.utils.process_end import describe_end, signal_name

_MEASURE: Final = python_module("internvl_gguf.bench.child")
_FACTS: Final = python_module("internvl_gguf.bench.machine_facts")
_NO_MEMORY: Final = re.compile(r"out of memory|failed to allocate|unable to allocate|bad_alloc", re.IGNORECASE)
_AGAIN: Final = "Start it again: the same command goes on after what was measured."
_SMALLER: Final = "Take a smaller quant or context (-c), or end other programs."


@dataclass(frozen=True)
class Ending:
    """Outcome of a child process.

    Attributes:
        status: "measured" if the whole job was done.
        error: what happened and what to do, else "".
    """

    status: Status
    error: str = ""


@dataclass(frozen=True)
class Listener:
    """Callbacks for the answers of a process.

    Attributes:
        on_stage: called with the measurement in progress and the fraction that is done, 0 to 1.
        on_part: called with each part as soon as it is measured.
        on_notice: called with one line if something was done in another way than requested.
    """

    on_stage: Callable[[str, float], None]
    on_part: Callable[[PartResult], None]
    on_notice: Callable[[str], None]


def run_job(job: Job, listener: Listener) -> Ending:
    """Run a job in a child process and return how that ended; a crash of the child is an `Ending`, too.

    An exception in a callback, or Ctrl-C, kills the child at once.
    """
    with child_process(_MEASURE, job_as_line(job)) as child:
        failure = _listen(child, listener)
        code = child.wait()
        return failure or (Ending("measured") if code == 0 else _end_of(job, code, child.last_error_line()))


def _end_of(job: Job, code: int, words: str) -> Ending:
    """Explain the end of a process that measured a job: a lost RPC server, or as `_death`."""
    lost = lost_servers(job.engine.get("rpc", ()), words)
    return Ending("failed", f"{lost.message} {_AGAIN}") if lost else _death(code, words)


@cache
def ask_machine() -> MachineFacts:
    """Return the facts of this machine, determined once by a child process.

    Raises:
        LibraryError: llama.cpp does not work here.
    """
    with child_process(_FACTS) as child:
        for message in child.objects():
            if "error" in message:
                raise LibraryError(message["error"]["message"], message["error"]["hint"])
            if "machine" in message:
                return from_plain(MachineFacts, message["machine"])
        ending = _death(child.wait(), child.last_error_line())
    raise LibraryError(f"llama.cpp does not start: {ending.error}", "`internvl doctor` says more.")


def _listen(child: Child, listener: Listener) -> Ending | None:
    """Pass the answers of a process to a listener; return the error that it ended with, if any."""
    for message in child.objects():
        if "stage" in message:
            listener.on_stage(message["stage"], message["done"])
        elif "notice" in message:
            listener.on_notice(message["notice"])
        elif "part" in message:
            listener.on_part(from_plain(KINDS[message["part"]], message["value"]))
        elif "error" in message:
            error = message["error"]
            no_memory = error["status"] == "out of memory" or _NO_MEMORY.search(error["message"])
            return Ending("out of memory" if no_memory else "failed", f"{error['message']} {error['hint']}")
    return None


def _death(code: int, words: str) -> Ending:
    """Explain the end of a process from its exit status and the last line of its stderr."""
    if _NO_MEMORY.search(words):
        return Ending("out of memory", f"There was no memory left ({words}). {_SMALLER}")
    if signal_name(code) == "SIGKILL":
        return Ending("out of memory", f"Its process was killed, as the system does for want of memory. {_SMALLER}")
    return Ending("failed", f"Its process {describe_end(code, words)}.")
