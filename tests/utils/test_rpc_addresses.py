"""Addresses of RPC servers: what is one, and which may be used."""

from __future__ import annotations

import pytest

from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.rpc_addresses import RPCAddress, network_warning


def refusal(**options: object) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        EngineConfig(**options)  # type: ignore[arg-type]
    for line in (caught.value.message, caught.value.hint):
        assert "\n" not in line
        assert line.endswith((".", "?"))
    return caught.value


def test_addresses_come_as_a_text_or_a_list() -> None:
    expected = ("127.0.0.1:50052", "localhost:50053")
    assert EngineConfig(rpc="127.0.0.1:50052, LocalHost:50053").servers == expected
    assert EngineConfig(rpc=["127.0.0.1:50052", "localhost:50053"]).servers == expected
    assert EngineConfig(rpc=expected).servers == expected
    assert EngineConfig(rpc="").servers == EngineConfig(rpc=()).servers == ()


@pytest.mark.parametrize(
    ("rpc", "said"),
    [
        ("127.0.0.1", "rpc is '127.0.0.1', which has no port."),
        ("host:", "rpc is 'host:', which has no port."),
        (":50052", "which is no address of an RPC server."),
        ("http://127.0.0.1:50052", "which is no address of an RPC server."),
        ("a b:50052", "which is no address of an RPC server."),
        ("127.0.0.1:http", "whose port is none."),
        ("127.0.0.1:0", "whose port is none."),
        ("127.0.0.1:70000", "whose port is none."),
        ("127.0.0.1:５００５２", "whose port is none."),
        ("[::1]:50052", "takes IPv4 addresses and names."),
        ("::1:50052", "takes IPv4 addresses and names."),
        ("127.0.0.1:1,127.0.0.1:2,127.0.0.1:1", "rpc names 127.0.0.1:1 twice."),
        ("127.0.0.1:1,localhost:1", "rpc names localhost:1 twice."),
        (",".join(f"127.0.0.1:{port}" for port in range(1, 17)), "rpc names 16 servers."),
        (50052, "rpc is 50052"),
        ([50052], "rpc is 50052"),
    ],
)
def test_what_is_no_list_of_servers(rpc: object, said: str) -> None:
    assert said in refusal(rpc=rpc).message


@pytest.mark.parametrize("host", ["192.168.1.7", "0.0.0.0", "gpu-box", "gpu.example.org", "128.0.0.1"])
def test_another_machine_is_refused_with_the_tunnel_to_it(host: str) -> None:
    error = refusal(rpc=f"127.0.0.1:50052,{host}:50053")
    assert error.message == (
        f"The RPC server {host}:50053 is on another machine, and RPC neither encrypts nor asks who is there."
    )
    assert f"`ssh -N -L 50053:127.0.0.1:50053 {host}`" in error.hint
    assert 'rpc="127.0.0.1:50053"' in error.hint
    assert "rpc_insecure_network=True" in error.hint


def test_another_machine_is_warned_of() -> None:
    """As llama.cpp's own server warns."""
    config = EngineConfig(rpc=("gpu-box:50052", "127.0.0.1:50052"), rpc_insecure_network=True)
    warning = network_warning(config.servers)
    assert "Never expose an RPC server to an open network" in warning
    assert "in clear text to gpu-box:50052;" in warning
    assert network_warning(("127.0.0.1:50052", "127.4.5.6:50052", "localhost:1")) == ""


def test_an_address_in_words() -> None:
    assert str(RPCAddress.of("LOCALHOST:1")) == "localhost:1"
    assert RPCAddress.of("localhost:1").is_here
