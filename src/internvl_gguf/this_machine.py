"""What this machine has for a model: memory of the host and of each GPU that the installed llama.cpp can use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from internvl_gguf.errors import InvalidRequestError, LibraryError
from internvl_gguf.planning.workload import Budget

if TYPE_CHECKING:
    from internvl_gguf.llama.library import Device

_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MachineBudget:
    """What may be taken on this machine.

    Attributes:
        budget: bytes of each device.
        gpus: the GPUs, as the budget numbers them.
        notices: what a person should know about it, one line each.
    """

    budget: Budget
    gpus: tuple[Device, ...]
    notices: tuple[str, ...] = ()


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
        return MachineBudget(Budget(host), (), (notice,) if vram else ())
    if vram is not None and len(vram) > len(gpus):
        raise InvalidRequestError(
            f"{len(vram)} GPU budgets were given, but this machine has {len(gpus)}: "
            f"{', '.join(gpu.description for gpu in gpus)}.",
            "Give one size for all of them, or one for each.",
        )
    allowed: Sequence[int | None] = [None] * len(gpus)
    if vram is not None:
        # GPUs that no size was given for are not to be used.
        allowed = list(vram) * len(gpus) if len(vram) == 1 else [*vram, *[0] * (len(gpus) - len(vram))]
    untold = [gpu for gpu, limit in zip(gpus, allowed, strict=True) if _tells_nothing(gpu) and limit is None]
    budget = Budget(
        host,
        tuple(_room(gpu, limit) for gpu, limit in zip(gpus, allowed, strict=True)),
        is_unified=any(map(_shares_host_memory, gpus)),
        offloading=None if all(gpu.offloads for gpu in gpus) else tuple(gpu.offloads for gpu in gpus),
    )
    if vram == ():
        budget = budget.smaller()[-1]
    return MachineBudget(budget, tuple(gpus), tuple(map(_untold_notice, untold)))


def _room(gpu: Device, allowed: int | None) -> int:
    """Bytes that may be taken of a GPU: what is free, no more than a person allows."""
    if allowed is None:
        return gpu.free_bytes
    return allowed if _tells_nothing(gpu) else min(gpu.free_bytes, allowed)


def _tells_nothing(gpu: Device) -> bool:
    """Whether a GPU does not say how much memory it has, as some drivers do not and others do in trouble."""
    return gpu.total_bytes == 0


def _untold_notice(gpu: Device) -> str:
    return (
        f"{gpu.name} ({gpu.description}) does not tell how much memory it has, and is left alone: "
        "--vram SIZE (vram) says how much of it may be used."
    )


def _shares_host_memory(gpu: Device) -> bool:
    is_managed = gpu.name.startswith("CUDA") and "GGML_CUDA_ENABLE_UNIFIED_MEMORY" in os.environ
    return gpu.kind == "igpu" or gpu.name.startswith(("Metal", "MTL")) or is_managed


def free_host_memory() -> int:
    """Bytes that this process could still take without swapping, by the system and by a container's limit."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        limit = int((_CGROUP / "memory.max").read_text("ascii"))
        used = int((_CGROUP / "memory.current").read_text("ascii"))
        free = min(free, max(limit - used, 0))
    return free


def total_host_memory() -> int:
    """Bytes of memory this machine has, or a container's limit."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int((_CGROUP / "memory.max").read_text("ascii")))
    return total


def usable_cores() -> tuple[int, ...]:
    """Numbers of the logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_threads() -> int:
    """Threads that can run at once: one for each usable core, within a container's limit of CPU time."""
    usable = len(usable_cores())
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        quota, period = map(int, (_CGROUP / "cpu.max").read_text("ascii").split())
        usable = min(usable, -(-quota // period))
    return max(1, usable)


def default_threads() -> int:
    """One thread for each physical core this process may use; more of them slow llama.cpp down."""
    usable = usable_threads()
    return min(usable, psutil.cpu_count(logical=False) or usable)


def _gpus() -> list[Device]:
    """The GPUs that a model may lie on."""
    try:
        from internvl_gguf.llama import library
    except LibraryError:  # not installed: planning for another machine still works
        return []
    return library.gpus(library.devices())
