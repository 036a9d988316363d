"""The part of `internvl doctor` that reports the trial."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.trial.build_hint import build_command, build_hint
from internvl_gguf.hardware.trial.circumstances import circumstances
from internvl_gguf.hardware.trial.outcomes import Outcome
from internvl_gguf.hardware.trial.record import recorded
from internvl_gguf.hardware.trial.steps import Step, failures
from internvl_gguf.hardware.trial.trial_wording import short_description
from internvl_gguf.hardware.trial.usable_settings import TrialTable, has_shifted_positions


@dataclass(frozen=True)
class TriedStep:
    """Result of one step of a device.

    Attributes:
        step: the step.
        checks: how many checks were done.
        failed: those that went wrong, by name.
    """

    step: Step
    checks: int
    failed: Mapping[str, Outcome]

    @property
    def line(self) -> str:
        """The result in one line."""
        if not self.failed:
            return f"all {self.checks} checks right{_reduction(self.step)}"
        wrong = "; ".join(short_description(*failure) for failure in self.failed.items())
        return f"{len(self.failed)} of {self.checks} checks fail{_reduction(self.step)}: {wrong}"


@dataclass(frozen=True)
class TrialReport:
    """Results of the trial of every device.

    Attributes:
        tried: the steps that were tried by device, "CPU" first; the last step works if any does.
        positions_are_shifted: whether position rows have to be corrected; None if no vision encoder works.
        tried_at: time of the last trial, in ISO 8601.
    """

    tried: Mapping[str, tuple[TriedStep, ...]]
    positions_are_shifted: bool | None
    tried_at: str

    @property
    def problems(self) -> list[str]:
        """Problems that make models fail here: a CPU without a working step."""
        last = self.tried["CPU"][-1]
        return [f"llama.cpp fails on this CPU: {last.line}. {build_hint()}"] if last.failed else []

    @property
    def reductions(self) -> bool:
        """Whether some feature of the library is left out here."""
        return any(len(steps) > 1 or steps[-1].failed for steps in self.tried.values())

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Name and text of each line for a user."""
        lines = [
            ("trial" if not number else "", f"{device}: {tried.line}")
            for number, (device, tried) in enumerate(
                (device, tried) for device, steps in self.tried.items() for tried in steps
            )
        ]
        return [*lines, ("", f"build one that works: {build_command()}")] if self.reductions else lines

    def plain(self) -> dict[str, Any]:
        """Return the report for JSON."""
        devices = {
            device: [
                {
                    "extra_buffers": tried.step.extra_buffers,
                    "flash_attn": tried.step.flash_attn,
                    "checks": tried.checks,
                    "failed": {name: outcome.plain() for name, outcome in tried.failed.items()},
                }
                for tried in steps
            ]
            for device, steps in self.tried.items()
        }
        return {"tried_at": self.tried_at, "devices": devices, "build_command": build_command()}


def trial_report(gpus: Mapping[str, str]) -> TrialReport:
    """Report the trial of the CPU and of GPUs; checks that were not run before run now.

    Args:
        gpus: descriptions of the GPUs by their names.
    """
    here = circumstances()
    table = TrialTable(here)
    tried = {device or "CPU": _steps(table, Step(device, gpus.get(device, ""))) for device in ("", *gpus)}
    shifted = None
    with suppress(LibraryError):
        shifted = has_shifted_positions(table.outcomes(tried["CPU"][-1].step))
    return TrialReport(tried, shifted, recorded(here).tried_at)


def _steps(table: TrialTable, first: Step) -> tuple[TriedStep, ...]:
    """Return the steps of a device down to the first with which everything works."""
    steps = []
    for step in first.fallbacks():
        outcomes = table.outcomes(step)
        failed = failures(outcomes, outcomes)
        done = sum(outcome.kind != "unknown" for outcome in outcomes.values())
        steps.append(TriedStep(step, done, failed))
        if not failed:
            break
    return tuple(steps)


def _reduction(step: Step) -> str:
    words = [("reordered weights", step.extra_buffers), ("flash attention", step.flash_attn)]
    left = " and ".join(word for word, used in words if not used)
    return f" without {left}" if left else ""
