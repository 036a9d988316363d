"""Memory that this machine has for a model: of the host and of each GPU that the installed llama.cpp can use."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import psutil

from internvl_gguf.errors import InvalidRequestError, LibraryError
from internvl_gguf.hardware.cgroups import memory_limits
from internvl_gguf.planning.workload import MARGIN, MemoryBudget

if TYPE_CHECKING:
    from internvl_gguf.hardware.rpc.handshake import ServerReport
    from internvl_gguf.llama.library import Device


_MOST_FOR_SYSTEM: Final = 4 * 2**30
_LARGE_MAC: Final = 36 * 2**30
_SHARE_OF_MAC: Final = 2 / 3
_SHARE_OF_LARGE_MAC: Final = 3 / 4


@dataclass(frozen=True)
class MachineBudget:
    """Memory that may be taken on this machine.

    Attributes:
        budget: bytes of each device.
        gpus: the GPUs, numbered as in the budget.
        notices: facts that the user should know about it, one line each.
    """

    budget: MemoryBudget
    gpus: tuple[Device, ...]
    notices: tuple[str, ...] = ()

    @property
    def usable(self) -> dict[str, str]:
        """Descriptions of the local GPUs that memory may be taken of, by their names.

        Remote GPUs are left out: another library on another CPU computes there, and a server has one client at a time,
        so that no second process could check it.
        """
        numbers = self.budget.gpu_numbers
        used = [self.gpus[number] for number, room in zip(numbers, self.budget.gpus, strict=True) if room > 0]
        return {gpu.name: gpu.description for gpu in used if not gpu.is_remote}

    def without(self, names: Collection[str]) -> MemoryBudget:
        """Return the budget without some of the GPUs."""
        if not names:
            return self.budget
        numbers = enumerate(self.budget.gpu_numbers)
        return self.budget.with_gpus([index for index, number in numbers if self.gpus[number].name not in names])


def machine_budget(
    vram: Sequence[int] | None = None,
    ram: int | None = None,
    gpus: Sequence[Device] | None = None,
    servers: Sequence[ServerReport] = (),
) -> MachineBudget:
    """Return the free memory of this machine, or less if the user allows less.

    Of the host's a fiftieth stays free for what the plan may miss; the planner keeps as much of each GPU's.

    Args:
        vram: bytes allowed on each GPU; one size counts for every GPU. None allows what is free.
        ram: bytes allowed of host memory; None allows what is free.
        gpus: the GPUs that a model may lie on; None asks the installed llama.cpp.
        servers: what the RPC servers said that llama.cpp is connected to.

    Raises:
        InvalidRequestError: sizes for more GPUs than there are.
        LibraryError: the installed llama.cpp is not the build this package is made for.
    """
    gpus = with_reports(usable_gpus() if gpus is None else gpus, servers)
    free = int(free_host_memory() * (1 - MARGIN))
    host = free if ram is None else min(ram, free)
    if vram is not None and not gpus:
        notice = "No GPU that the installed llama.cpp can use: a budget of GPU memory has no effect here."
        return MachineBudget(MemoryBudget(host), (), (notice,) if vram else ())
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
    budget = MemoryBudget(
        host,
        tuple(_room(gpu, limit) for gpu, limit in zip(gpus, allowed, strict=True)),
        is_unified=any(map(_shares_host_memory, gpus)),
        remote=tuple(gpu.remote for gpu in gpus) if any(gpu.is_remote for gpu in gpus) else None,
    )
    if vram == ():
        budget = budget.smaller()[-1]
    return MachineBudget(budget, tuple(gpus), tuple(map(_untold_notice, untold)))


def with_reports(gpus: Sequence[Device], reports: Sequence[ServerReport]) -> list[Device]:
    """Return devices with what their servers said: their kind and the network to them.

    Args:
        gpus: devices of the installed llama.cpp, of which those of servers have the endpoint as their description.
        reports: what the servers said.
    """
    found: list[Device] = []
    left = {report.endpoint: list(report.devices) for report in reports}
    addresses = {report.endpoint: str(report.address) for report in reports}
    for gpu in gpus:
        if gpu.is_remote and left.get(gpu.description):
            said = left[gpu.description].pop(0)
            gpu = replace(gpu, remote=said.remote, description=addresses[gpu.description])
        found.append(gpu)
    return found


def host_budget(memory: int) -> int:
    """Return what a model may take of the memory of a PC or a server: the rest is left to the system and to programs.

    An eighth, as of a Mac, and at most 4 GiB: a desktop with a browser takes 2 to 4 GiB, of a larger machine, too.
    """
    return memory - min(memory // 8, _MOST_FOR_SYSTEM)


def mac_budget(memory: int) -> MemoryBudget:
    """Return what a model may take of a Mac with so much memory: an eighth is left to the system and to programs.

    macOS lets the GPU have two thirds of the memory, of 36 GiB and more three quarters
    (`recommendedMaxWorkingSetSize` of Metal, by which llama.cpp goes).
    """
    share = _SHARE_OF_LARGE_MAC if memory >= _LARGE_MAC else _SHARE_OF_MAC
    room = memory * 7 // 8
    return MemoryBudget(room, (min(int(memory * share), room),), is_unified=True)


def _room(gpu: Device, allowed: int | None) -> int:
    """Return the bytes that may be taken of a GPU: free bytes, at most what the user allows.

    A server's CPU calls all memory of its machine free, which it shares with the system there.
    """
    is_cpu = gpu.remote is not None and gpu.remote.kind == "cpu"
    free = host_budget(gpu.total_bytes) if is_cpu else gpu.free_bytes
    if allowed is None:
        return free
    return allowed if _tells_nothing(gpu) else min(free, allowed)


def _tells_nothing(gpu: Device) -> bool:
    """Return whether a GPU does not report its memory, as some drivers never do and others in trouble."""
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
    """Return the bytes that this process can take without swapping, within a container's limit."""
    return min([int(psutil.virtual_memory().available), *(max(0, limit - used) for limit, used in memory_limits())])


def total_host_memory() -> int:
    """Return the bytes of memory of this machine, or a container's limit."""
    return min([int(psutil.virtual_memory().total), *(group.limit for group in memory_limits())])


def usable_gpus() -> list[Device]:
    """Return the GPUs that a model may lie on."""
    try:
        from internvl_gguf.llama import library
    except LibraryError:  # not installed: planning for another machine still works
        return []
    return library.gpus(library.devices())
