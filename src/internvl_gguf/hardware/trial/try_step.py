"""Run the checks of one step on this machine in child processes, which may die or hang."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from internvl_gguf.hardware.trial.outcomes import Outcome, outcome_of
from internvl_gguf.hardware.trial.record import Entry
from internvl_gguf.hardware.trial.steps import UNREACHED, Step
from internvl_gguf.hardware.trial.trial_process import ProcessEnd, trial_process
from internvl_gguf.utils.child_process import python_module

COMMAND: Final = python_module("internvl_gguf.llama.trial")
_TIMEOUT: Final = 60.0  # seconds for one check, which takes a tenth of one on an idle CPU
_GPU_TIMEOUT: Final = 300.0  # drivers compile their kernels at first use
_MOST_DEATHS: Final = 12  # of processes; the remaining checks then count as dead, too


def try_step(step: Step, needed: Sequence[str] = ()) -> Entry:
    """Run the checks of a step; if one ends its process or hangs, the next process runs the remaining ones.

    Args:
        step: the step.
        needed: names of the checks; empty for all.
    """
    found, features = dict[str, Outcome](), tuple[str, ...]()
    for _ in range(_MOST_DEATHS):
        running, finished = UNREACHED, False
        with trial_process(
            COMMAND, {**step.request, "only": list(needed), "skip": list(found)}, _timeout(step)
        ) as process:
            for line in process.lines():
                features = tuple(line.get("features", features))
                running = line.get("start", running)
                finished = "finished" in line
                if "done" in line:
                    name = line.pop("done")
                    found[name] = outcome_of(line)
                    running = UNREACHED
        if finished:
            break
        found[running] = _outcome(process.end)
        if running == UNREACHED:  # it dies between the checks, as the next one would
            break
    else:
        found[UNREACHED] = found[running]
    if needed:
        missing = found.pop(UNREACHED, Outcome("unknown"))
        found = {**dict.fromkeys(needed, missing), **found}
    return Entry(
        imports=True, features=features, steps={step.name: found}, whole=frozenset(() if needed else (step.name,))
    )


def _timeout(step: Step) -> float:
    return _GPU_TIMEOUT if step.device else _TIMEOUT


def _outcome(end: ProcessEnd) -> Outcome:
    return Outcome("hung" if end.hung else "died", end.what, end.signal)
