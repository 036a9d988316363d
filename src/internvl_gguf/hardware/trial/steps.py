"""The steps from full use of a device down to refusal, and the checks that a model depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from internvl_gguf.config import FlashAttention, KVType, is_quantised
from internvl_gguf.hardware.trial.outcomes import Outcome, Outcomes

UNREACHED: Final = "the others"
"""Name of the outcome that says why a trial did not reach all of its checks."""

EXPERTS: Final = "experts "
"""Beginning of the names of checks that are done only for models that have experts."""

HEAD_NORMS: Final = "norms of heads"
"""Name of the check of norms of each head's queries and keys, which Qwen3 has."""


@dataclass(frozen=True)
class Step:
    """One way to use a device.

    Attributes:
        device: name of a GPU; "" for the CPU.
        description: what the driver calls the GPU: another one may get the same name.
        extra_buffers: use llama.cpp's extra buffer types: CPU weights in layouts for AMX and reordered kernels.
        flash_attn: use flash attention if it is wanted.
    """

    device: str = ""
    description: str = ""
    extra_buffers: bool = True
    flash_attn: bool = True

    @property
    def name(self) -> str:
        """Name that outcomes are kept under."""
        device = f"{self.device} ({self.description})" if self.description else self.device or "CPU"
        less = [word for word, used in (("plain", self.extra_buffers), ("no flash", self.flash_attn)) if not used]
        return ", ".join([device, *less])

    @property
    def request(self) -> dict[str, Any]:
        """Request to the process that tries this step."""
        return {"device": self.device, "extra_buffers": self.extra_buffers, "flash_attn": self.flash_attn}

    def fallbacks(self) -> tuple[Step, ...]:
        """Return this step and those below it, in the order they are tried; extra buffers concern the CPU alone."""
        kept = (True,) if self.device else (True, False)
        return tuple(replace(self, extra_buffers=extra, flash_attn=flash) for flash in (True, False) for extra in kept)


@dataclass(frozen=True)
class Needs:
    """Settings of a model that the trial has checks for.

    Attributes:
        kinds: element types of the text model's matrices that all tokens go through, such as "Q4_K".
        expert_kinds: element types of the matrices of its experts; none if it has no experts.
        head_norms: whether it has norms of each head's queries and keys.
        encoder_kinds: element types of the vision encoder's weights.
        kv_type: element type of the KV cache.
        flash_attn: "auto" means on for GPUs and for a quantised cache.
    """

    kinds: frozenset[str] = frozenset()
    encoder_kinds: frozenset[str] = field(default=frozenset(("F32",)))
    kv_type: KVType = "f16"
    flash_attn: FlashAttention = "auto"
    expert_kinds: frozenset[str] = frozenset()
    head_norms: bool = False

    def checks(self, step: Step) -> tuple[str, ...] | None:
        """Return the names of the checks that must pass; None if the step leaves out a needed feature."""
        has_blocks = is_quantised(self.kv_type)
        if has_blocks and not step.flash_attn:
            return None
        wanted = has_blocks or bool(step.device) if self.flash_attn == "auto" else self.flash_attn
        attention = f"{'flash ' if wanted and step.flash_attn else ''}attention {self.kv_type}"
        weights = (f"weights {kind}" for kind in sorted(self.kinds))
        experts = (f"{EXPERTS}{kind}" for kind in sorted(self.expert_kinds))
        norms = (HEAD_NORMS,) if self.head_norms else ()
        encoders = (f"encoder {kind}" for kind in sorted(self.encoder_kinds))
        return (*weights, *experts, *norms, attention, *encoders)


def done_if_needed(step: Step, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the named checks that a step does only for models that need them.

    On a GPU these are all, as its driver may take minutes to compile the kernels of every check; on the CPU those of
    experts, which few models have.
    """
    return tuple(name for name in names if step.device or name.startswith(EXPERTS))


def failures(outcomes: Outcomes, names: Iterable[str]) -> dict[str, Outcome]:
    """Return the named checks that failed, with their outcomes.

    A check that does not exist counts as passed, unless the trial ended before it reached all checks.
    """
    unreached = outcomes.get(UNREACHED)
    found = {name: outcomes.get(name, unreached) for name in names}
    return {name: outcome for name, outcome in found.items() if outcome is not None and outcome.failed}
