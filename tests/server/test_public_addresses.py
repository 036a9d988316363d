"""Which addresses belong to the public internet."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

import psutil
import pytest

from internvl_gguf.server.public_addresses import attached_networks, is_public, is_remote
from tests.support.strangers import INNER

OUTER = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.215.14",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2001:200::1",
    "2a00:1450:4001:80b::200e",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", INNER)
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", OUTER)
def test_an_address_outside_is_public(address: str) -> None:
    assert is_public(ip_address(address))


def interface(address: str, netmask: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(address=address, netmask=netmask)


def test_neighbours_with_public_addresses_are_not_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is this machine by its own; whoever has an IPv6 network has one for every printer in it."""
    found = {
        "eth0": [
            interface("20.1.2.3", "255.255.255.0"),
            interface("2a00:1::5", "ffff:ffff:ffff:ffff::"),
            interface("fe80::1%eth0", "ffff:ffff:ffff:ffff::"),
            interface("02:00:00:00:00:01"),
        ],
        "Ethernet 2": [interface("2a00:2::5"), interface("20.9.9.9")],
        "tun0": [interface("20.7.7.7", "0.0.0.0"), interface("2a00:3::5", "::")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    near = ["20.1.2.3", "20.1.2.200", "2a00:1::99", "2a00:2::99", "20.9.9.9"]
    far = ["20.1.3.1", "2a00:1:0:1::1", "20.9.9.8", "20.7.7.8", "2a00:3::6", "8.8.8.8"]
    assert [is_remote(ip_address(each)) for each in near + far] == [False] * len(near) + [True] * len(far)
    assert is_public(ip_address(near[0]))


def test_the_networks_of_this_machine_are_known() -> None:
    assert any(ip_address("127.0.0.1") in network for network in attached_networks())
