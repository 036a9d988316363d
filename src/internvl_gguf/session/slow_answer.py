"""Tell once, after a slow first answer on the CPU of a machine that was not measured, what measuring would gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from internvl_gguf.hardware.identity import machine_identity
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.utils.records import SAID_ONCE

if TYPE_CHECKING:
    from internvl_gguf.planning import Configuration
    from internvl_gguf.types import Timings

SLOW_SECONDS: Final = 20.0
"""Seconds to the first token from which on the notice is worth its line."""


def slow_answer_notice(configuration: Configuration, timings: Timings) -> str:
    """Return the notice after a slow answer, the first time on this machine; then, or if it was measured, ""."""
    if timings.time_to_first_token < SLOW_SECONDS or configuration.gpu_layers:
        return ""
    key = f"{machine_identity()} unmeasured"
    if recorded_roofline() or SAID_ONCE.get(key, bool):
        return ""
    SAID_ONCE.put(key, value=True)
    return (
        f"The first token took {timings.time_to_first_token:.0f} s, and this machine was not measured: "
        "`internvl doctor --measure` (a minute or two) finds the threads, kernels and picture encoder that are fastest "
        "here, on some machines twice as fast. (Said once.)"
    )
