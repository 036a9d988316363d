"""Devices of RPC servers for the planner: as the servers describe them, before llama.cpp connects and afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware.rpc.handshake import DeviceReport, ServerReport, ask_servers
from internvl_gguf.hardware.rpc.protocol import installed_protocol
from internvl_gguf.planning.machine_memory import host_budget
from internvl_gguf.planning.workload import MemoryBudget

if TYPE_CHECKING:
    from internvl_gguf.llama.library import Device


def asked_servers(servers: Sequence[str]) -> tuple[list[ServerReport], str]:
    """Ask servers what they offer, for a plan; llama.cpp need not be able to use them.

    Args:
        servers: their addresses; none asks none.

    Returns:
        What they said, and what is missing to use them here, in one line; "" if nothing is.

    Raises:
        RPCServerError: a server cannot be reached, gives no answer in time, or speaks another version.
    """
    if not servers:
        return [], ""
    try:
        ours, missing = installed_protocol(), ""
    except LibraryError as error:
        ours, missing = None, f"The RPC servers can be planned with, but not used yet. {error}"
    return ask_servers(servers, ours), missing


def reported_devices(reports: Sequence[ServerReport]) -> list[Device]:
    """Return the devices that servers offer, without handles, named as llama.cpp would name them."""
    from internvl_gguf.llama.library import Device

    offered = [(report, device) for report in reports for device in report.devices]
    return [
        Device(
            name=f"RPC{number}",
            description=str(report.address),
            kind="gpu",
            free_bytes=device.free_bytes,
            total_bytes=device.total_bytes,
            remote=device.remote,
        )
        for number, (report, device) in enumerate(offered)
    ]


def room_at(device: DeviceReport) -> int:
    """Return the bytes that a model may take of a server's device.

    A CPU calls all memory of its machine free, which it shares with the system there.
    """
    return host_budget(device.total_bytes) if device.remote.kind == "cpu" else device.free_bytes


def with_servers(budget: MemoryBudget, reports: Sequence[ServerReport]) -> MemoryBudget:
    """Return a budget with the devices of RPC servers before the GPUs, as llama.cpp takes them."""
    devices = [device for report in reports for device in report.devices]
    if not devices:
        return budget
    return replace(
        budget,
        gpus=(*map(room_at, devices), *budget.gpus),
        remote=(*(device.remote for device in devices), *(None for _ in budget.gpus)),
    )
