"""`internvl bench --rpc`: the RPC servers that models are measured on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from internvl_gguf.cli import options
from internvl_gguf.cli.judges import is_critic
from internvl_gguf.cli.output import say
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    from internvl_gguf.bench.best_of.settings import BestOfSettings
    from internvl_gguf.bench.jobs import MachineFacts
    from internvl_gguf.bench.sweep import Sweep


@dataclass(frozen=True)
class NamedServers:
    """The servers that were named.

    Attributes:
        addresses: where they listen; empty for none.
        is_insecure_allowed: whether they may be of other machines.
    """

    addresses: tuple[str, ...]
    is_insecure_allowed: bool

    @classmethod
    def parse(cls, rpc: str | None, is_insecure_allowed: bool) -> Self:
        """Return the servers that the options of the command name.

        Raises:
            InvalidRequestError: an address that is none, or of another machine.
        """
        return cls(options.rpc_servers(rpc, is_insecure_allowed), is_insecure_allowed)

    def refuse_critics(self, several: BestOfSettings | None) -> None:
        """Refuse critics among the judges where models lie on servers: both are loaded at once.

        Raises:
            InvalidRequestError: there is one.
        """
        critic = next(filter(is_critic, several.judges), None) if several and self.addresses else None
        if critic is not None:
            raise InvalidRequestError(
                f"{critic} and the model cannot share the RPC servers: each has one client at a time.",
                "Leave --rpc out, or give --judge vote or certainty.",
            )

    def under(self, sweep: Sweep) -> Sweep:
        """Return a sweep whose models lie on the servers, which are asked what they are.

        Raises:
            LibraryError: the installed llama.cpp has no RPC.
            RPCServerError: one cannot be reached, gives no answer in time, or speaks another version.
        """
        if not self.addresses:
            return sweep
        from internvl_gguf.bench.servers import MeasuredServers

        asked = MeasuredServers.asked(self.addresses, is_insecure_allowed=self.is_insecure_allowed)
        if asked.warning:
            say(asked.warning)
        return replace(sweep, servers=asked)


def with_servers(machine: MachineFacts, sweep: Sweep) -> MachineFacts:
    """Return the facts of this machine, and of the servers that a sweep is measured on."""
    return sweep.servers.added_to(machine) if sweep.servers else machine
