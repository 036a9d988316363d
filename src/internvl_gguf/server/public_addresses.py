"""Which IP addresses a stranger may have this machine connect to: those of the public internet, and no others.

The lists are written out since `ipaddress.is_global` changed within Python 3.11, 3.12 and 3.13. They follow the IANA
registries of special-purpose addresses (RFC 6890), and are stricter where a public address carries another one inside:
of the transitions from IPv4 to IPv6 only NAT64 (RFC 6052) is let through, which networks without IPv4 need.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final

import psutil

Address = IPv4Address | IPv6Address

_CLOSED_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' own; metadata at Alibaba Cloud (100.100.100.200), Tailscale
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's agent, which answers inside each of its machines only
            "169.254.0.0/16",  # link-local; metadata at most clouds (169.254.169.254)
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments; metadata at Oracle (192.0.0.192)
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and 255.255.255.255
        ),
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""What IANA gives out. Loopback, mapped IPv4, fc00::/7, fe80::/10, fec0::/10 and multicast lie outside."""
_CLOSED_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # Teredo (2001::/32), ORCHID, benchmarks
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_WIDEST: Final = {4: 8, 6: 32}
"""Shortest prefixes that are taken for a network at hand; tunnels may claim to be attached to all addresses."""


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _CLOSED_V6)


def is_remote(address: Address) -> bool:
    """Return whether an address is public and not of this machine, nor of a network that it is attached to.

    In a home or an office with IPv6, every printer has a public address; only the router keeps strangers away from it.
    """
    return is_public(address) and not any(address in network for network in attached_networks())


def attached_networks() -> Iterator[IPv4Network | IPv6Network]:
    """Yield the networks that this machine's interfaces are in."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            try:
                network = _network(each.address.partition("%")[0], each.netmask)
            except ValueError:  # a hardware address
                continue
            if network.prefixlen >= _WIDEST[network.version]:
                yield network


def _network(address: str, netmask: str | None) -> IPv4Network | IPv6Network:
    """Return an interface's network; of an IPv6 interface without a netmask (Windows), its /64."""
    if ":" not in address:
        return IPv4Interface(f"{address}/{netmask or 32}").network
    prefix = 64 if netmask is None else int(IPv6Address(netmask)).bit_count()
    return IPv6Interface(f"{address}/{prefix}").network
