"""Devices of RPC servers in plans: their memory, and the network's share of the time of a token."""

from __future__ import annotations

from typing import Any

import pytest

from internvl_gguf.errors import RPCServerError
from internvl_gguf.hardware.device_speed import Range
from internvl_gguf.hardware.remote_device import RemoteDevice
from internvl_gguf.hardware.rpc.handshake import ask_servers
from internvl_gguf.memory import MemoryRequest
from internvl_gguf.memory.plan import layer_homes
from internvl_gguf.planning.machine_memory import host_budget, machine_budget, with_reports
from internvl_gguf.planning.network_share import Visit, network_seconds, visits
from internvl_gguf.planning.remote_devices import (
    asked_servers,
    reported_devices,
    room_at,
    with_servers,
)
from internvl_gguf.planning.speed_estimate import SpeedEstimate, estimate_speed
from internvl_gguf.planning.workload import MemoryBudget
from tests.planning.test_speed_estimate import MACHINE, shape
from tests.support.stand_in_rpc import GIB, StandIn, nobody, stand_in

FAST, SLOW = RemoteDevice("gpu", 50e-6, 1.2e9), RemoteDevice("gpu", 0.2, 10e6)
MODEL = shape()
LAYERS = MODEL.text.n_layers


def request(layers: int, gpus: int = 1, **more: Any) -> MemoryRequest:
    return MemoryRequest(8192, gpus=(1.0,) * gpus, n_gpu_layers=layers, flash_attn=True, offload_gpu=None, **more)


def estimate(layers: int, *remote: RemoteDevice | None) -> SpeedEstimate:
    asked = request(layers, len(remote))
    return estimate_speed(MODEL, asked, MACHINE, tiles_per_picture=0, depth=1024, remote=remote)


# --- The network ------------------------------------------------------------------------------------------------------


def test_the_stretches_on_remote_devices() -> None:
    def found(asked: MemoryRequest, *remote: RemoteDevice | None) -> list[tuple[RemoteDevice, int, bool]]:
        each = visits(layer_homes(LAYERS, asked), remote)
        return [(visit.device, visit.n_layers, visit.has_output) for visit in each]

    assert found(request(-1), FAST) == [(FAST, LAYERS, True)]
    assert found(request(5), FAST) == [(FAST, 4, True)]
    assert found(request(1), FAST) == [(FAST, 0, True)]
    assert found(request(0), FAST) == []
    assert found(request(-1), None) == found(request(-1)) == []
    first, second = found(request(-1, 2), FAST, SLOW)
    assert (first[0], first[2], second[0], second[2]) == (FAST, False, SLOW, True)
    assert first[1] + second[1] == LAYERS
    assert found(request(-1, 2), FAST, None) == [(FAST, first[1], False)]


def test_what_a_token_sends_and_fetches() -> None:
    text = MODEL.text
    visit = Visit(RemoteDevice("cpu", 2e-3, 1e6), 4, has_output=True)

    def seconds(*visits: Visit, flash_attn: bool = False, is_new_graph: bool = False) -> Range:
        return network_seconds(visits, text, tokens=1, attended=256, flash_attn=flash_attn, is_new_graph=is_new_graph)

    once = seconds(visit)
    fixed = 8 * (296 + 18)  # what describes the tensors that are sent
    sent = 4 * (text.n_embd + 256 + text.n_vocab) + fixed
    assert once.low == pytest.approx(2e-3 + sent / 1e6 + 8 * 20e-6)
    assert once.high == pytest.approx(2 * (2e-3 + sent / 1e6) + 8 * 200e-6)
    assert seconds(visit, visit).low == pytest.approx(2 * once.low)
    assert once.low - seconds(visit, flash_attn=True).low == pytest.approx(2 * 256 / 1e6)
    assert seconds(visit, is_new_graph=True).low - once.low == pytest.approx(4 * 52 * 296 / 1e6)
    assert seconds() == Range(0, 0)


def test_a_slow_network_is_slow_and_none_costs_nothing() -> None:
    near = RemoteDevice("gpu", 1e-12, 1e15)
    none, fast, slow = (estimate(-1, remote).decode for remote in (near, FAST, SLOW))
    assert slow.high < fast.low
    assert 1 / slow.high > 0.2  # a round trip for each token
    assert fast.high < none.high
    assert fast.high > none.high / 2
    assert estimate(0, SLOW).decode == estimate(0, None).decode
    assert estimate(-1, SLOW).prefill.high < estimate(-1, FAST).prefill.low


def test_what_stands_behind_a_server_is_assumed_and_said() -> None:
    (said,) = estimate(-1, FAST).assumed
    assert said == "a consumer GPU of 300 to 600 GB/s at the RPC server, assumed"
    assert "CPU of 4 to 16 cores" in estimate(-1, RemoteDevice("cpu", 1e-4, 1e9)).assumed[0]
    assert estimate(-1, FAST, None).assumed == (said,)  # this machine's GPU was measured


# --- Memory -----------------------------------------------------------------------------------------------------------


def test_a_servers_memory_is_what_it_says() -> None:
    """But of a CPU, which calls all memory free, an eighth is left to the system there."""
    server = StandIn(devices=((16 * GIB, 16 * GIB), (7 * GIB, 8 * GIB)))
    with stand_in(server):
        reports = ask_servers([server.endpoint], None)
    assert [room_at(device) for device in reports[0].devices] == [host_budget(16 * GIB), 7 * GIB]
    devices = reported_devices(reports)
    assert [(device.name, device.description) for device in devices] == [
        ("RPC0", server.endpoint),
        ("RPC1", server.endpoint),
    ]
    machine = machine_budget(gpus=devices)
    assert machine.budget.gpus == (14 * GIB, 7 * GIB)
    assert machine.budget.remote == tuple(device.remote for device in devices)
    assert machine.usable == {}
    assert not machine.budget.has_local_gpus
    assert machine_budget([2 * GIB, 20 * GIB], gpus=devices).budget.gpus == (2 * GIB, 7 * GIB)
    beside = with_servers(MemoryBudget(GIB, (12 * GIB,)), reports)
    assert beside.gpus == (14 * GIB, 7 * GIB, 12 * GIB)
    assert beside.local_gpus == (2,)
    assert beside.encoder_gpu == 2
    assert with_servers(MemoryBudget(GIB), []) == MemoryBudget(GIB)


def test_devices_of_llama_cpp_get_what_their_server_said() -> None:
    with stand_in(StandIn(devices=((GIB, GIB),))) as one, stand_in(StandIn(devices=((1, 2),))) as two:
        reports = ask_servers([one.endpoint, two.endpoint], None)
    found = reported_devices(reports[::-1])
    known = with_reports(found, reports)
    assert [device.remote.kind for device in known if device.remote] == ["gpu", "cpu"]
    assert with_reports(found, []) == found


def test_a_plan_asks_the_servers() -> None:
    assert asked_servers(()) == ([], "")
    with nobody() as endpoint, pytest.raises(RPCServerError):
        asked_servers([endpoint])
