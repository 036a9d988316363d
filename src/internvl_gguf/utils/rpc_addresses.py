"""Addresses of ggml RPC servers, as they are typed: "127.0.0.1:50052"."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_name

MOST_SERVERS: Final = 15
"""ggml's scheduler takes 16 devices, the CPU among them."""
DEFAULT_PORT: Final = 50052  # of llama.cpp's own rpc-server
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_LOCALHOST: Final = "localhost"
_FORM: Final = f"Write HOST:PORT, as 127.0.0.1:{DEFAULT_PORT}; commas between several."


@dataclass(frozen=True)
class RPCAddress:
    """Where an RPC server listens.

    Attributes:
        host: a name or an IPv4 address. llama.cpp's client knows no other addresses.
        port: 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, text: str, name: str = "rpc") -> RPCAddress:
        """Return the address that was typed.

        Args:
            text: the address.
            name: name of the option in errors.

        Raises:
            InvalidRequestError: it is none, or one that llama.cpp cannot connect to.
        """
        shown = safe_name(text)
        if text.count(":") > 1 and "/" not in text:
            raise InvalidRequestError(f"{name} is {shown!r}: llama.cpp's RPC takes IPv4 addresses and names.", _FORM)
        host, _, port = text.partition(":")
        if not _HOST.fullmatch(host) or "/" in text:
            raise InvalidRequestError(f"{name} is {shown!r}, which is no address of an RPC server.", _FORM)
        if not port:
            raise InvalidRequestError(f"{name} is {shown!r}, which has no port.", _FORM)
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise InvalidRequestError(f"{name} is {shown!r}, whose port is none.", "Give a port from 1 to 65535.")
        return cls(host.lower(), int(port))

    @property
    def is_here(self) -> bool:
        """Whether it can only mean this machine; a name but localhost is looked up elsewhere, and counts as remote."""
        return is_loopback(self.host)

    @property
    def tunnel(self) -> str:
        """The command that makes the server reachable under the same port of this machine, encrypted."""
        return f"ssh -N -L {self.port}:127.0.0.1:{self.port} {self.host}"


def is_loopback(host: str) -> bool:
    """Return whether an IPv4 address, or localhost, can only be reached from this machine."""
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return host.lower() == _LOCALHOST


def parse_servers(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return addresses of servers as they are written from then on.

    Args:
        name: name of the option in errors.
        texts: addresses, or several in one text with commas between them.

    Raises:
        InvalidRequestError: one that is no address, one that is named twice, or too many.
    """
    parts = [part.strip() for text in texts for part in text.split(",")]
    found = [RPCAddress.of(part, name) for part in parts if part]
    seen: set[tuple[str, int]] = set()
    for address in found:
        place = ("127.0.0.1" if address.host == _LOCALHOST else address.host, address.port)
        if place in seen:
            raise InvalidRequestError(
                f"{name} names {address} twice.", "Name each server once: it serves one client at a time."
            )
        seen.add(place)
    if len(found) > MOST_SERVERS:
        raise InvalidRequestError(f"{name} names {len(found)} servers.", f"Use at most {MOST_SERVERS}.")
    return tuple(map(str, found))


def check_reach(servers: Sequence[str], *, is_insecure_allowed: bool) -> None:
    """Refuse servers of other machines, unless that was accepted.

    Raises:
        InvalidRequestError: one of another machine.
    """
    far = next((address for address in map(RPCAddress.of, servers) if not address.is_here), None)
    if far and not is_insecure_allowed:
        raise InvalidRequestError(
            f"The RPC server {far} is on another machine, and RPC neither encrypts nor asks who is there.",
            f'Run `{far.tunnel}` and use rpc="127.0.0.1:{far.port}"; rpc_insecure_network=True connects as it is.',
        )


def network_warning(servers: Sequence[str]) -> str:
    """Return the warning about servers of other machines; "" where there is none."""
    far = [str(address) for address in map(RPCAddress.of, servers) if not address.is_here]
    if not far:
        return ""
    return (
        f"Never expose an RPC server to an open network: it is an experimental feature of llama.cpp and not secure. "
        f"The model's weights, prompts, answers and the embeddings of pictures travel in clear text to "
        f"{', '.join(far)}; so does what comes back, and whoever answers there is believed."
    )
