"""RPC servers are asked before the native library meets them: what is found out, and what is refused in time."""

from __future__ import annotations

import socket
import sys
import threading
import time

import pytest

from internvl_gguf.errors import RPCServerError
from internvl_gguf.hardware.rpc.handshake import ask_servers
from internvl_gguf.hardware.rpc.lost import lost_servers
from internvl_gguf.hardware.rpc.protocol import ProtocolVersion
from tests.support.stand_in_rpc import GIB, VERSION, StandIn, dropping, nobody, silent, stand_in

OURS = ProtocolVersion(*VERSION)
SECONDS = 0.3
LOST = "ended with status 1 (Error: llama.cpp gave up: Remote RPC server crashed or returned malformed response [x].)"


def refusal(*servers: str, seconds: float = 5.0, ours: ProtocolVersion | None = OURS) -> RPCServerError:
    with pytest.raises(RPCServerError) as caught:
        ask_servers(servers, ours, seconds)
    for line in (caught.value.message, caught.value.hint):
        assert "\n" not in line
        assert line.endswith(".")
    return caught.value


def test_devices_memory_and_network() -> None:
    server = StandIn(devices=((16 * GIB, 16 * GIB), (7 * GIB, 8 * GIB)))
    with stand_in(server):
        (report,) = ask_servers([server.endpoint.replace("127.0.0.1", "localhost")], OURS)
    assert report.endpoint == server.endpoint
    assert report.protocol == OURS
    assert [(device.free_bytes, device.total_bytes) for device in report.devices] == list(server.devices)
    assert [device.remote.kind for device in report.devices] == ["cpu", "gpu"]
    for device in report.devices:
        assert 0 < device.remote.round_trip < 1
        assert device.remote.bandwidth > 1e6
    assert server.endings == ["closed"]


@pytest.mark.skipif(sys.platform != "linux", reason="others refuse")
def test_an_address_whose_packets_are_dropped_is_given_up_in_time() -> None:
    with dropping() as endpoint:
        started = time.monotonic()
        assert f"{endpoint} gave no answer in 0.3 seconds" in refusal(endpoint, seconds=SECONDS).message
    assert time.monotonic() - started < 3


def test_a_full_device_leaves_the_bandwidth_to_an_assumption() -> None:
    with stand_in(StandIn(has_room=False)) as server:
        (report,) = ask_servers([server.endpoint], OURS)
    assert report.devices[0].remote.bandwidth == 110e6


@pytest.mark.parametrize(
    ("version", "is_understood"),
    [((7, 0, 9), True), ((7, 1, 0), False), ((6, 0, 0), False), ((8, 0, 0), False)],
)
def test_versions_are_compared_as_the_native_client_does(version: tuple[int, int, int], is_understood: bool) -> None:
    with stand_in(StandIn(version)) as server:
        if is_understood:
            assert ask_servers([server.endpoint], OURS)[0].protocol == ProtocolVersion(*version)
            return
        error = refusal(server.endpoint)
    assert error.message == (
        f"The RPC server {server.endpoint} speaks version {'.'.join(map(str, version))} of the protocol, and the "
        "installed llama.cpp 7.0.0."
    )
    assert "same version of llama.cpp" in error.hint


def test_a_version_of_the_time_before_capabilities_is_told() -> None:
    """Its answer was three bytes, and a server closes the connection at the longer question of today."""
    with stand_in(StandIn(b"\x03\0\0\0\0\0\0\0\x02\0\0")) as server:
        assert "speaks version 2.0.0" in refusal(server.endpoint).message


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\0\0\0\0\0\0\0\x07", b"\0" * 8])
def test_other_programs_are_told_apart(answer: bytes) -> None:
    with stand_in(StandIn(answer)) as server:
        message = refusal(server.endpoint).message
    assert "does not answer as an RPC server" in message or "none of this version" in message


@pytest.mark.parametrize("count", [0, 17])
def test_numbers_that_cannot_be(count: int) -> None:
    with stand_in(StandIn(devices=((1, 1),) * count)) as server:
        assert "none of this version" in refusal(server.endpoint).message


def test_a_program_that_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=lambda: listening.accept()[0].close(), daemon=True).start()
        message = refusal(f"127.0.0.1:{listening.getsockname()[1]}").message
    assert "does not answer as an RPC server" in message


def test_a_busy_or_stopped_server_is_given_up_in_time() -> None:
    """The native client waits for ever."""
    with silent() as endpoint:
        started = time.monotonic()
        error = refusal(endpoint, seconds=SECONDS)
        assert time.monotonic() - started < 10 * SECONDS
    assert error.message == (
        f"The RPC server {endpoint} gave no answer in 0.3 seconds: it is busy with another client, stopped, or out of "
        "reach."
    )
    assert "one client at a time" in error.hint


def test_who_was_given_up_does_not_end_the_server_later() -> None:
    """llama.cpp's own server dies of SIGPIPE when it answers a connection that was closed in order; not a reset one."""
    server = StandIn()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint = f"127.0.0.1:{listening.getsockname()[1]}"
        refusal(endpoint, seconds=SECONDS)
        client, _ = listening.accept()
        with client:
            server._serve_one(client)
    assert server.endings == ["reset"]


def test_nobody_there() -> None:
    with nobody() as endpoint:
        error = refusal(endpoint)
    assert error.message.startswith(f"The RPC server {endpoint} cannot be reached: ")
    assert f"internvl rpc-server --port {endpoint.partition(':')[2]}" in error.hint


def test_two_names_of_one_server() -> None:
    with stand_in() as server:
        other = server.endpoint.replace("127.0.0.1", "localhost")
        assert refusal(server.endpoint, other).message == f"{server.endpoint} and {other} are the same RPC server."


def test_the_server_that_went_away_is_named() -> None:
    with stand_in() as alive, nobody() as dead:
        lost = lost_servers([alive.endpoint, dead], LOST)
        assert lost is not None
        assert lost.message == f"The RPC server {dead} went away."
        assert lost.hint == "Nothing that was answered is lost: start it again, and ask again."
        back = lost_servers([alive.endpoint], LOST)
        assert back is not None
        assert "it answers again" in back.hint
        assert lost_servers([dead], "was killed by SIGKILL") is None
        assert lost_servers([], LOST) is None
