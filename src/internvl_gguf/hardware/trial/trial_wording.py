"""Messages for users about a trial."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from internvl_gguf.hardware.trial.build_hint import build_hint
from internvl_gguf.hardware.trial.outcomes import Outcome
from internvl_gguf.hardware.trial.steps import Step
from internvl_gguf.utils.records import TRIAL

_MORE: Final = "`internvl doctor` says how to build one that works."


def reduction_notice(step: Step, failure: tuple[str, Outcome], features: Collection[str]) -> str:
    """Return one line that says what a step leaves out and why.

    Args:
        step: the step that is used.
        failure: failed check of the step above and its outcome.
        features: instruction sets of the build.
    """
    parts = []
    if not step.extra_buffers:
        parts.append(f"{'AMX' if 'AMX_INT8' in features else 'Reordered'} kernels")
    if not step.flash_attn:
        parts.append("flash attention" if parts else "Flash attention")
    what, fails = " and ".join(parts), _failure_verb(failure[1], many=not step.extra_buffers)
    instead = "the plain ones are used" if not step.extra_buffers else "it is left off"
    where = f"on {step.device}" if step.device else "here"
    return f"{what} of this llama.cpp build {fails} {where} ({short_description(*failure)}); {instead}. {_MORE}"


def skipped_gpu_notice(name: str, description: str, failure: tuple[str, Outcome] | None) -> str:
    """Return one line that says that a GPU is not used and why."""
    why = f" ({short_description(*failure)})" if failure else ""
    return f"{name} ({description}) is left out: this llama.cpp build does not work on it{why}. {_MORE}"


def not_saved_notice(error: OSError) -> str:
    """Return one line that says that results of the trial cannot be kept."""
    why = error.strerror or error
    folder = TRIAL.path.parent
    return f"How llama.cpp does on this machine cannot be kept in {folder} ({why}): it is tried by each process."


def refusal(failure: tuple[str, Outcome] | None) -> tuple[str, str]:
    """Return message and hint if nothing works on the CPU."""
    why = describe(*failure) if failure else "it was not tried"
    return f"The installed llama.cpp does not work on this CPU: {why}.", build_hint()


def describe(check: str, outcome: Outcome) -> str:
    """Describe an outcome: "the trial with Q4_K weights was killed by SIGILL (...)"."""
    subject = "the answer" if outcome.kind == "wrong" else "the trial"
    verb = "was refused: " if outcome.kind == "refused" else ""
    return f"{subject} with {check_title(check)} {verb}{outcome.what.rstrip('.')}"


def short_description(check: str, outcome: Outcome) -> str:
    """Describe an outcome in short: "Q4_K weights: SIGILL"."""
    return f"{check_title(check)}: {outcome.signal or outcome.what.rstrip('.')}"


def check_title(check: str) -> str:
    """Return the name of a check in words."""
    part, _, kind = check.rpartition(" ")
    forms = {
        "weights": f"{kind} weights",
        "experts": f"{kind} experts",
        "attention": f"attention over an {kind} cache",
        "flash attention": f"flash attention over an {kind} cache",
        "encoder": f"a vision encoder in {kind}",
    }
    return forms.get(part, check)


def _failure_verb(outcome: Outcome, *, many: bool) -> str:
    """Return the verb for kernels that died, hung or computed wrong results."""
    crash = {"died": "crash", "hung": "hang"}.get(outcome.kind, "compute wrong")
    first, *rest = crash.split(" ")
    return crash if many else " ".join([f"{first}es" if first == "crash" else f"{first}s", *rest])
