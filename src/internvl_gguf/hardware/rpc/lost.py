"""Find the RPC servers that answer no more, after the native library has ended a process because of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.errors import RPCServerError
from internvl_gguf.hardware.rpc.handshake import ask_server
from internvl_gguf.utils.rpc_addresses import RPCAddress

_SECONDS: Final = 2.0
# What ggml-rpc.cpp gives as the reason of GGML_ABORT.
_REASONS: Final = ("RPC server", "RPC handshake", "Failed to connect to")


@dataclass(frozen=True)
class LostServers:
    """Which of the servers of a model answer no more.

    Attributes:
        gone: addresses of those that do not; all that there are, if all answer.
        answer_again: whether all answer.
    """

    gone: tuple[str, ...]
    answer_again: bool

    @property
    def message(self) -> str:
        """What happened, in one line."""
        names = " and ".join(self.gone)
        if len(self.gone) == 1:
            return f"The RPC server {names} went away."
        return f"{'One of the' if self.answer_again else 'The'} RPC servers {names} went away."

    @property
    def hint(self) -> str:
        """What to do, in one line."""
        what = "it answers again, so ask again" if self.answer_again else "start it again, and ask again"
        return f"Nothing that was answered is lost: {what}."


def lost_servers(servers: Sequence[str], ending: str) -> LostServers | None:
    """Return the servers that a process has lost; None if it ended for another reason.

    Args:
        servers: addresses of its servers.
        ending: how it ended, with llama.cpp's last line.
    """
    if not servers or not any(reason in ending for reason in _REASONS):
        return None
    gone = tuple(server for server in servers if not _answers(server))
    return LostServers(gone or tuple(servers), answer_again=not gone)


def _answers(server: str) -> bool:
    try:
        ask_server(RPCAddress.of(server), None, _SECONDS)
    except RPCServerError:
        return False
    return True
