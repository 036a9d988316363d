"""The RPC servers that models are measured on: what is asked of them, and what results depend on.

A server has one client at a time: each configuration is measured in a process of its own, which ends before the next
one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from internvl_gguf.bench.jobs import MachineFacts
from internvl_gguf.config import EngineOptions
from internvl_gguf.hardware.rpc.handshake import ServerReport, ask_servers
from internvl_gguf.hardware.rpc.protocol import installed_protocol
from internvl_gguf.planning import MemoryBudget
from internvl_gguf.planning.remote_devices import room_at, with_servers
from internvl_gguf.utils.rpc_addresses import network_warning
from internvl_gguf.utils.sizes import rounded_size


@dataclass(frozen=True)
class MeasuredServers:
    """RPC servers that were asked.

    Attributes:
        reports: what each said.
        is_insecure_allowed: whether they may be of other machines.
    """

    reports: tuple[ServerReport, ...]
    is_insecure_allowed: bool = False

    @classmethod
    def asked(cls, servers: Sequence[str], *, is_insecure_allowed: bool) -> Self:
        """Ask servers what they are.

        Args:
            servers: their addresses.
            is_insecure_allowed: as the attribute.

        Raises:
            LibraryError: the installed llama.cpp has no RPC.
            RPCServerError: one cannot be reached, gives no answer in time, or speaks another version.
        """
        return cls(tuple(ask_servers(servers, installed_protocol())), is_insecure_allowed)

    @property
    def engine(self) -> EngineOptions:
        """The fields of `EngineConfig` that name them."""
        addresses = tuple(str(report.address) for report in self.reports)
        return {"rpc": addresses, "rpc_insecure_network": self.is_insecure_allowed}

    @property
    def warning(self) -> str:
        """The warning about servers of other machines; "" where there is none."""
        return network_warning([str(report.address) for report in self.reports])

    @property
    def description(self) -> str:
        """Their addresses and devices: another machine behind the same address has other results."""
        return ", ".join(f"{report.address} ({_devices(report)})" for report in self.reports)

    def added_to(self, facts: MachineFacts) -> MachineFacts:
        """Return the facts of a machine with the devices of the servers, which come first, as in llama.cpp."""
        rooms = tuple(room_at(device) for report in self.reports for device in report.devices)
        machine = f"{facts.machine}, RPC servers {self.description}"
        return replace(facts, machine=machine, gpus=(*rooms, *facts.gpus))

    def added_to_budget(self, budget: MemoryBudget) -> MemoryBudget:
        """Return the memory of a machine with that of the servers."""
        return with_servers(budget, self.reports)


def _devices(report: ServerReport) -> str:
    return ", ".join(
        f"a {device.remote.kind.upper()} with {rounded_size(device.total_bytes)}" for device in report.devices
    )
