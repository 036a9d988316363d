"""`--rpc` and `internvl rpc-server` on the command line: what is refused, and plans over this machine and servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from internvl_gguf.hardware.rpc.library_file import VARIABLE, find_rpc_library
from tests.cli.test_commands import assert_two_lines, run
from tests.cli.test_pick import OFFLINE
from tests.support.stand_in_rpc import GIB, StandIn, nobody, silent, stand_in

QUESTION = ("ask", "demo", "What number is written?")
stock = pytest.mark.skipif(find_rpc_library() is not None, reason="this llama.cpp has RPC")
WITHOUT: Any = {VARIABLE: ""}
ELSEWHERE: Any = OFFLINE


@pytest.mark.parametrize(
    ("server", "said", "todo"),
    [
        ("gpu-box", "--rpc is 'gpu-box', which has no port.", "Write HOST:PORT"),
        ("127.0.0.1:1,127.0.0.1:1", "--rpc names 127.0.0.1:1 twice.", "Name each server once"),
        ("[::1]:50052", "takes IPv4 addresses", "Write HOST:PORT"),
        ("gpu-box:50052", "gpu-box:50052 is on another machine", "`ssh -N -L 50052:127.0.0.1:50052 gpu-box`"),
    ],
)
@pytest.mark.parametrize(
    "command", [QUESTION, ("chat", "demo"), ("serve", "demo"), ("pick", "demo"), ("doctor",), ("bench", "demo")]
)
def test_wrong_addresses_are_wrong_usage(command: tuple[str, ...], server: str, said: str, todo: str) -> None:
    done = run(*command, "--rpc", server)
    assert_two_lines(done, 2)
    what, hint = done.stderr.splitlines()
    assert said in what
    assert todo in hint
    if "another machine" in said:
        assert "--rpc 127.0.0.1:50052; --rpc-insecure-network connects as it is." in hint


@stock
def test_a_build_without_rpc_is_two_lines() -> None:
    done = run(*QUESTION, "--rpc", "127.0.0.1:50052", **WITHOUT)
    assert_two_lines(done)
    assert "built without RPC" in done.stderr
    assert "GGML_RPC=on" in done.stderr


@stock
def test_a_benchmark_needs_a_build_with_rpc() -> None:
    done = run("bench", "demo", "--rpc", "127.0.0.1:50052", **WITHOUT)
    assert_two_lines(done)
    assert "built without RPC" in done.stderr


def test_a_benchmark_loads_no_critic_beside_a_model_on_servers() -> None:
    done = run("bench", "demo", "--best-of", "2", "--judge", "demo", "--rpc", "127.0.0.1:50052")
    assert_two_lines(done, 2)
    assert "demo and the model cannot share the RPC servers" in done.stderr


@stock
def test_the_server_needs_a_build_with_rpc() -> None:
    done = run("rpc-server", "--port", "0", **WITHOUT)
    assert_two_lines(done)
    assert "built without RPC" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said", "todo"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0 can be reached from other machines", "--rpc-insecure-network"),
        (["--host", "192.168.1.2"], "192.168.1.2 can be reached from other machines", "ssh -L"),
        (["--host", "gpu-box"], "listens on IPv4 addresses only", "Leave it out"),
        (["--host", "::1"], "listens on IPv4 addresses only", "Leave it out"),
        (["--port", "70000"], "--port is 70000", "0 to 65535"),
        (["--cache", "lots"], "lots", "Write"),
        (["--threads", "0"], "--threads is 0", "1 to 512"),
    ],
)
def test_a_server_that_is_not_started(arguments: list[str], said: str, todo: str) -> None:
    done = run("rpc-server", *arguments)
    assert_two_lines(done, 2)
    assert said in done.stderr
    assert todo in done.stderr


def test_pick_plans_over_this_machine_and_servers() -> None:
    server = StandIn(devices=((23 * GIB, 24 * GIB),))
    with stand_in(server):
        arguments = ("pick", "InternVL3-14B-Instruct", "--ram", "16GiB", "--vram", "none", "--rpc", server.endpoint)
        found = json.loads(run(*arguments, "--json", **ELSEWHERE).stdout)
        shown = run(*arguments, **ELSEWHERE)
        alone = json.loads(run(*arguments[:-2], "--json", **ELSEWHERE).stdout)
    assert found["budget"]["vram"] == [23 * GIB]
    best = found["picks"][0]
    assert best["gpu_layers"] == best["layers"] == 49
    assert not best["mmproj"]["on_gpu"]
    assert [device["device"] for device in best["memory"]["devices"]] == ["CPU", "RPC0"]
    assert best["memory"]["devices"][1]["weights"] > 8 * GIB
    assert "at the RPC server" in " ".join(best["speed"]["assumed"])
    assert len(alone["picks"]) < len(found["picks"])
    assert "all 49 layers on the RPC server, the encoder on the CPU" in shown.stdout
    assert f"with 23 GiB at {server.endpoint}" in shown.stdout
    assert f"--rpc {server.endpoint}" in shown.stdout.splitlines()[-1]


def test_pick_and_doctor_name_a_server_that_does_not_answer() -> None:
    with nobody() as endpoint:
        done = run("pick", "demo", "--rpc", endpoint, "--vram", "none", **ELSEWHERE)
        assert_two_lines(done)
        assert f"The RPC server {endpoint} cannot be reached" in done.stderr
        report = json.loads(run("doctor", "--json", "--rpc", endpoint).stdout)
    assert report["rpc"]["servers"] == []
    assert any(f"The RPC server {endpoint} cannot be reached" in problem for problem in report["problems"])


def test_pick_gives_up_a_server_that_is_busy() -> None:
    with silent() as endpoint:
        done = run("pick", "demo", "--vram", "none", **{**ELSEWHERE, "INTERNVL_RPC": endpoint})
    assert_two_lines(done)
    assert "gave no answer in 5 seconds" in done.stderr


def test_doctor_shows_servers() -> None:
    with stand_in(StandIn(devices=((16 * GIB, 16 * GIB),))) as server:
        done = run("doctor", "--rpc", server.endpoint, COLUMNS="400")
    assert f"{server.endpoint}" in done.stdout
    assert "version 7.0.0, a CPU with 16 GiB free of 16 GiB; " in done.stdout
    assert "ms to an answer" in done.stdout
