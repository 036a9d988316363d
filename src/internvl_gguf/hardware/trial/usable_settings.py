"""Find settings with which a model can run here: the wanted ones if they work, else the first reduction that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.trial.circumstances import Circumstances, circumstances
from internvl_gguf.hardware.trial.outcomes import Outcome, Outcomes
from internvl_gguf.hardware.trial.record import found_here, record, recorded
from internvl_gguf.hardware.trial.steps import UNREACHED, Needs, Step, done_if_needed, failures
from internvl_gguf.hardware.trial.trial_wording import not_saved_notice, reduction_notice, refusal, skipped_gpu_notice
from internvl_gguf.hardware.trial.try_step import try_step

_ENCODER: Final = "encoder "


@dataclass(frozen=True)
class UsableSettings:
    """Settings with which a model can run on this machine.

    Attributes:
        extra_buffers: whether the CPU may store weights in layouts of its own.
        flash_attn: whether flash attention works, in the text model and in the vision encoder.
        positions_are_shifted: whether position rows of vision encoders have to be corrected.
        unusable: names of GPUs that are not to be used.
        notices: new findings that a user should know, one line each.
    """

    extra_buffers: bool = True
    flash_attn: bool = True
    positions_are_shifted: bool = False
    unusable: frozenset[str] = frozenset()
    notices: tuple[str, ...] = ()


def find_usable_settings(needs: Needs, gpus: Mapping[str, str] | None = None) -> UsableSettings:
    """Find settings with which a model can run; checks that were not run here before run now, in seconds.

    Args:
        needs: the wanted settings.
        gpus: descriptions of the GPUs that may be used, by their names.

    Raises:
        LibraryError: no settings work on this CPU; the error says what fails and how to build a library that works.
    """
    table = TrialTable(circumstances())
    cpu = table.first_working_step(needs, "")
    if cpu is None:
        raise LibraryError(*refusal(table.first_failure))
    used, unusable = [cpu], []
    for name, description in (gpus or {}).items():
        step = table.first_working_step(needs, name, description)
        if step:
            used.append(step)
        else:
            unusable.append(name)
            table.add_notice(skipped_gpu_notice(name, description, table.first_failure))
    return UsableSettings(
        extra_buffers=cpu.extra_buffers,
        flash_attn=all(step.flash_attn for step in used),
        positions_are_shifted=has_shifted_positions(table.outcomes(cpu)),
        unusable=frozenset(unusable),
        notices=tuple(table.notices),
    )


class TrialTable:
    """Known outcomes of each step; a step without outcomes is tried when asked for.

    Attributes:
        first_failure: check and outcome that made the last call of `first_working_step` leave its highest step.
        notices: new findings for the user.
    """

    def __init__(self, here: Circumstances) -> None:
        self._here = here
        self._known = recorded(here)
        self._tried_now = self._is_unwritten = False
        self.first_failure: tuple[str, Outcome] | None = None
        self.notices: list[str] = []

    def first_working_step(self, needs: Needs, device: str, description: str = "") -> Step | None:
        """Return the highest step of a device with which everything needed works; None if there is none."""
        self.first_failure, self._tried_now = None, False
        for step in Step(device, description).fallbacks():
            names = needs.checks(step)
            if names is None:
                continue
            failed = self._failed(step, names)
            if not failed:
                if self.first_failure:
                    self.add_notice(reduction_notice(step, self.first_failure, self._known.features))
                return step
            self.first_failure = self.first_failure or next(iter(failed.items()))
        return None

    def _failed(self, step: Step, names: Sequence[str]) -> dict[str, Outcome]:
        """Return the needed checks that failed, by name; they run again if the failure may have been an accident."""
        needed = done_if_needed(step, names)
        failed = failures(self.outcomes(step, needed), names)
        tried_here = step.name in found_here(self._here).steps
        if not tried_here and not all(outcome.lasts for outcome in failed.values()):
            self._try(step, needed if step.device else ())
            failed = failures(self.outcomes(step, needed), names)
        return failed

    def outcomes(self, step: Step, needed: Sequence[str] = ()) -> Outcomes:
        """Return the outcomes of the checks of a step, trying it first if necessary.

        Args:
            step: the step.
            needed: names of checks that `done_if_needed` gives; on a GPU they suffice. Empty for all but those of
                experts.
        """
        if step.name not in self._known.whole and not (step.device and needed):
            self._try(step, ())
        known = self._known.steps.get(step.name, {})
        missing = [name for name in needed if name not in known]
        if missing and UNREACHED not in known:
            self._try(step, missing)
        return self._known.steps[step.name]

    def _try(self, step: Step, needed: Sequence[str]) -> None:
        self._tried_now = True
        unwritten = record(self._here, try_step(step, needed))
        self._known = recorded(self._here)
        if unwritten and not self._is_unwritten:
            self._is_unwritten = True
            self.add_notice(not_saved_notice(unwritten))

    def add_notice(self, notice: str) -> None:
        """Add a notice if a trial ran just now, so that users see it once."""
        if self._tried_now:
            self.notices.append(notice)


def has_shifted_positions(outcomes: Outcomes) -> bool:
    """Return whether position rows are shifted, by the vision encoder checks that passed.

    Raises:
        LibraryError: none passed.
    """
    encoders = {name: outcome for name, outcome in outcomes.items() if name.startswith(_ENCODER)}
    known = [outcome.shifted for outcome in encoders.values() if outcome.kind == "right"]
    if not known:
        raise LibraryError(*refusal(next(iter(failures(outcomes, encoders).items()), None)))
    return bool(known[0])
