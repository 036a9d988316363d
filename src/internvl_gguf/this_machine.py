"""What this machine has for a model: memory of the host and of each GPU that the installed llama.cpp can use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from internvl_gguf.cgroups import memory_limits
from internvl_gguf.errors import InvalidRequestError, LibraryError
from internvl_gguf.planning.workload import Budget

if TYPE_CHECKING:
    from internvl_gguf.llama.library import Device


@dataclass(frozen=True)
class MachineBudget:
    """What may be taken on this machine.

    Attributes:
        budget: bytes of each device.
        gpus: names of the GPUs.
        handles: ggml's own names of them.
        names: their short names, as in "CUDA0".
        notices: what a person should know about it, one line each.
    """

    budget: Budget
    gpus: tuple[str, ...]
    handles: tuple[int, ...] = ()
    notices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def usable(self) -> dict[str, str]:
        """Descriptions of the GPUs that memory may be taken of, by their names."""
        numbers = self.budget.gpu_numbers
        used = [number for number, room in zip(numbers, self.budget.gpus, strict=True) if room > 0]
        return {self.names[number]: self.gpus[number] for number in used}

    def without(self, names: Collection[str]) -> Budget:
        """The budget without some of the GPUs."""
        if not names:
            return self.budget
        numbers = enumerate(self.budget.gpu_numbers)
        return self.budget.with_gpus([index for index, number in numbers if self.names[number] not in names])


def machine_budget(vram: Sequence[int] | None = None, ram: int | None = None) -> MachineBudget:
    """What is free on this machine, or less where a person allows less.

    Args:
        vram: bytes allowed on each GPU; one size counts for every GPU. None allows what is free.
        ram: bytes allowed of host memory; None allows what is free.

    Raises:
        InvalidRequestError: sizes for more GPUs than there are.
        LibraryError: the installed llama.cpp is not the build this package is made for.
    """
    gpus = _gpus()
    host = free_host_memory() if ram is None else min(ram, free_host_memory())
    if vram is not None and not gpus:
        notice = "No GPU that the installed llama.cpp can use: a budget of GPU memory has no effect here."
        return MachineBudget(Budget(host), (), (), (notice,) if vram else ())
    if vram is not None and len(vram) > len(gpus):
        raise InvalidRequestError(
            f"{len(vram)} GPU budgets were given, but this machine has {len(gpus)}: "
            f"{', '.join(gpu.description for gpu in gpus)}.",
            "Give one size for all of them, or one for each.",
        )
    allowed = list(vram) * len(gpus) if vram is not None and len(vram) == 1 else vram
    free = [gpu.free_bytes for gpu in gpus]
    if allowed is not None:
        # GPUs that no size was given for are not to be used.
        free = [min(*pair) for pair in zip(free, [*allowed, *[0] * (len(free) - len(allowed))], strict=True)]
    is_unified = any(gpu.kind == "igpu" or gpu.name.startswith(("Metal", "MTL")) for gpu in gpus)
    budget = Budget(host, tuple(free), is_unified)
    if vram == ():
        budget = budget.smaller()[-1]
    return MachineBudget(
        budget,
        tuple(gpu.description for gpu in gpus),
        tuple(gpu.handle for gpu in gpus),
        names=tuple(gpu.name for gpu in gpus),
    )


def free_host_memory() -> int:
    """Bytes that this process could still take without swapping, by the system and by a container's limit."""
    return min([int(psutil.virtual_memory().available), *(max(0, limit - used) for limit, used in memory_limits())])


def total_host_memory() -> int:
    """Bytes of memory this machine has, or a container's limit."""
    return min([int(psutil.virtual_memory().total), *(group.limit for group in memory_limits())])


def _gpus() -> list[Device]:
    """The GPUs that llama.cpp puts layers on: integrated ones only where there is no other (`llama_model_load`)."""
    try:
        from internvl_gguf.llama.library import devices
    except LibraryError:  # not installed: planning for another machine still works
        return []
    found = devices()
    discrete = [device for device in found if device.kind == "gpu"]
    return discrete or [device for device in found if device.kind == "igpu"][:1]
