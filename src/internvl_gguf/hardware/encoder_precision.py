"""Choose the precision of a vision encoder for this machine: measured once and kept, or by rule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from internvl_gguf.hardware.identity import library_version, machine_identity
from internvl_gguf.utils.child_process import child_process, python_module
from internvl_gguf.utils.records import ENCODER_SPEED

# Most faithful first. The published weights are BF16, so F32 and BF16 hold them exactly, but BF16 also rounds the
# activations: KL 5.7e-7 for F16, 1.4e-5 for BF16, 6.8e-5 for Q8_0 against float32 (docs/parity.md). F32 is the slowest.
_BY_FAITHFULNESS = ("F16", "BF16", "F32", "Q8_0")
_MEASURABLE = frozenset(_BY_FAITHFULNESS)
_MAX_TIME_RATIO = 0.9  # a less faithful precision must take less than this share of the time
OPENVINO_LABELS = ("openvino f32", "openvino bf16")
_OPENVINO = "openvino"  # what labels of its encoders begin with
_IN_LLAMA_CPP, _IN_OPENVINO = "internvl_gguf.llama.measure.encoder", "internvl_gguf.vision.measure"
_TIMEOUT = 120.0  # seconds for all measurements


@dataclass(frozen=True)
class Precision:
    """A chosen precision.

    Attributes:
        label: for example F16.
        reason: the reason, to follow the label.
    """

    label: str
    reason: str


def preferred_precision(labels: Sequence[str], on_progress: Callable[[str], None] = lambda line: None) -> Precision:
    """Return the best precision on this machine of those that a model comes in.

    Args:
        labels: one or more, for example BF16, F16, F32.
        on_progress: called with one line before a measurement of a few seconds.
    """
    known = sorted((label for label in labels if label in _MEASURABLE), key=_BY_FAITHFULNESS.index)
    if not known:
        return Precision(labels[0], "the only kind there is" if len(labels) == 1 else "the first there is")
    if len(known) == 1:
        return Precision(known[0], "the only one known")
    seconds = measured_seconds(known, on_progress)
    if len(seconds) < len(known):
        return Precision(known[0], "nothing faster could be measured here")
    best = known[0]
    for label in known[1:]:
        if seconds[label] < _MAX_TIME_RATIO * seconds[best]:
            best = label
    others = ", ".join(f"{label} {seconds[label] / seconds[best]:.2f}x" for label in known if label != best)
    return Precision(best, f"of those in the repository it suits this machine best ({others} its time)")


def most_faithful_precision(labels: Sequence[str]) -> Precision:
    """Return the most faithful precision, without measuring."""
    known = sorted((label for label in labels if label in _MEASURABLE), key=_BY_FAITHFULNESS.index)
    return Precision(known[0] if known else labels[0], "the most faithful")


def measured_seconds(labels: Sequence[str], on_progress: Callable[[str], None] = lambda line: None) -> dict[str, float]:
    """Return seconds of a tile through one block of the encoder by precision, as far as they can be measured here."""
    known = known_seconds()
    missing = [label for label in labels if label not in known]
    if missing and library_version():
        on_progress("Measuring once which vision encoder is the fastest here.")
        found = _measure(missing)
        known |= found
        ENCODER_SPEED.merge(machine_identity(), _read, lambda before: {**(before or {}), **found})
    return {label: known[label] for label in labels if label in known}


def measured_afresh(labels: Sequence[str], on_progress: Callable[[str], None]) -> dict[str, float]:
    """Measure precisions whether they are known or not, and keep what was found; see `measured_seconds`."""
    on_progress(f"encoder: {', '.join(labels)}")
    found = _measure(labels)
    ENCODER_SPEED.merge(machine_identity(), _read, lambda before: {**(before or {}), **found})
    return found


def known_seconds() -> dict[str, float]:
    """Return what was measured on this machine: seconds of a tile through one block, by precision."""
    return ENCODER_SPEED.get(machine_identity(), _read) or {}


def _read(kept: Any) -> dict[str, float]:
    return {str(label): float(value) for label, value in kept.items()}


def _measure(labels: Sequence[str]) -> dict[str, float]:
    """Measure in child processes, one for each library; what cannot be had here is left out."""
    seconds: dict[str, float] = {}
    for module, is_openvino in ((_IN_LLAMA_CPP, False), (_IN_OPENVINO, True)):
        if asked := [label for label in labels if label.startswith(_OPENVINO) == is_openvino]:
            seconds |= _printed_seconds([*python_module(module), *asked])
    return seconds


def _printed_seconds(command: Sequence[str]) -> dict[str, float]:
    """Return what a process prints: a device that lacks a type may end it, and the lines before that still count."""
    seconds: dict[str, float] = {}
    with contextlib.suppress(OSError), child_process(command, timeout=_TIMEOUT, keeps_errors=False) as child:
        for line in child.objects():
            with contextlib.suppress(ValueError, TypeError):
                seconds |= _read(line)
        if child.timed_out:
            return {}
    return seconds
