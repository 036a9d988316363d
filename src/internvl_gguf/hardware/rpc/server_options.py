"""The options of `internvl rpc-server`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import ClassVar

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.options import between, check_options, option
from internvl_gguf.utils.rpc_addresses import DEFAULT_PORT, RPCAddress, is_loopback
from internvl_gguf.utils.sizes import parse_memory


@dataclass(frozen=True)
class RPCServerOptions:
    """What an RPC server offers, and to whom. Each field says what it does.

    Raises:
        InvalidRequestError: a value of another kind or outside its range, or an address that other machines reach.
    """

    PANEL: ClassVar = "The server"

    host: str = option(
        "127.0.0.1",
        "Listen on this IPv4 address. Others than this machine's own need --rpc-insecure-network.",
        metavar="ADDRESS",
    )
    port: int = option(
        DEFAULT_PORT, "Port; 0 takes a free one.", "--port", "-p", allows=between(0, 65535), hint="Use 0 to 65535."
    )
    rpc_insecure_network: bool = option(
        False, "Let other machines connect, without a key and in clear text.", "--rpc-insecure-network"
    )
    device: tuple[str, ...] = option(
        (),
        "Offer this device, by llama.cpp's name, such as CUDA0 or CPU; may be repeated. All GPUs, or the CPU where "
        "there is none, if left out.",
        metavar="NAME",
    )
    threads: int | None = option(
        None,
        "CPU threads.",
        "--threads",
        "-t",
        otherwise="as for a model of this machine",
        allows=between(1, 512),
        hint="Use 1 to 512 threads.",
    )
    cache: str = option(
        "0",
        "Keep up to so much of the weights that clients sent, so that they need not send them again; 0 keeps none.",
        metavar="SIZE",
    )

    def __post_init__(self) -> None:
        check_options(self)
        if not self.is_local:
            try:
                ipaddress.IPv4Address(self.host)
            except ValueError:
                raise InvalidRequestError(
                    f"--host is {self.host!r}, and llama.cpp's RPC server listens on IPv4 addresses only.",
                    "Leave it out, or give one as 127.0.0.1.",
                ) from None
            if not self.rpc_insecure_network:
                raise InvalidRequestError(
                    f"{self.host} can be reached from other machines, and RPC neither encrypts nor asks who is there.",
                    "Leave --host out and let clients come by ssh -L; --rpc-insecure-network listens there as it is.",
                )
        _ = self.cache_bytes

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def cache_bytes(self) -> int:
        """Most bytes of kept weights; 0 keeps none."""
        return 0 if self.cache.strip() == "0" else parse_memory(self.cache)

    def address(self, port: int) -> RPCAddress:
        """Return the address to listen at: numbers, as the native server takes nothing else."""
        return RPCAddress("127.0.0.1" if self.host.lower() == "localhost" else self.host, port)
