"""RPC servers that vanish, hang, are busy, or of another version: two lines each, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from internvl_gguf import Session
from internvl_gguf.demo.__main__ import EXAMPLE
from internvl_gguf.errors import RPCServerError, WorkerDiedError
from internvl_gguf.hardware.rpc.handshake import SECONDS
from tests.cli.test_commands import assert_two_lines, run
from tests.rpc.servers import RPCServer, rpc_server
from tests.support.stand_in_rpc import StandIn, stand_in

QUESTION = "What number is written?"
OPTIONS = {"n_threads": 1, "n_ctx": 1024, "embedding_disk_bytes": 0}


def opened(*servers: RPCServer, **more: object) -> Session:
    return Session.open("demo", rpc=[server.endpoint for server in servers], **OPTIONS, **more)  # type: ignore[arg-type]


# --- Lost ------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_in_the_middle_of_an_answer(server: RPCServer) -> None:
    """The native library ends its process. This one lives, says whose fault it was, and goes on when it is back."""
    notices: list[str] = []
    with opened(server, on_notice=notices.append) as session:
        first = session.ask(QUESTION, [EXAMPLE])
        before = session.messages
        answer = session.stream("Tell me all that you see.", [EXAMPLE], max_tokens=500, temperature=1e6, top_k=0)
        next(answer)
        server.kill()
        with pytest.raises(WorkerDiedError) as caught:
            list(answer)
        assert caught.value.message == f"The RPC server {server.endpoint} went away."
        assert caught.value.hint == "Nothing that was answered is lost: start it again, and ask again."
        assert session.messages == before
        with pytest.raises(RPCServerError, match=f"The RPC server {server.endpoint} cannot be reached"):
            session.ask(QUESTION)
        assert session.messages == before
        with rpc_server(int(server.endpoint.partition(":")[2])):
            assert session.ask(QUESTION).text == first.text
        assert any("loaded again" in notice for notice in notices)


def test_which_of_two_servers_is_lost(two_servers: tuple[RPCServer, RPCServer]) -> None:
    one, two = two_servers
    with opened(one, two, n_gpu_layers=-1) as session:
        session.ask(QUESTION, [EXAMPLE])
        two.kill()
        with pytest.raises(WorkerDiedError, match=f"The RPC server {two.endpoint} went away."):
            session.ask("And the circle?")


def test_the_command_says_it_in_two_lines(server: RPCServer) -> None:
    """`ask` alone runs the model in its own process; with servers it does not."""
    script = f"""
import os, signal, sys
from internvl_gguf.cli import main
from internvl_gguf.session import Session
ask = Session.stream
def stream(self, *args, **options):
    os.kill({server.process.pid}, signal.SIGKILL)
    return ask(self, *args, **options)
Session.stream = stream
sys.argv[1:] = ["ask", "demo", "{QUESTION}", "-i", {str(EXAMPLE)!r}, "-t", "1", "--rpc", "{server.endpoint}"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert_two_lines(done)
    assert f"The RPC server {server.endpoint} went away." in done.stderr


# --- Refused ---------------------------------------------------------------------------------------------------------


def test_a_server_that_is_stopped_is_refused_in_time(server: RPCServer) -> None:
    server.stop()
    started = time.monotonic()
    with pytest.raises(RPCServerError, match=f"{server.endpoint} gave no answer in 5 seconds"):
        opened(server)
    assert time.monotonic() - started < SECONDS + 10
    server.go_on()
    with opened(server) as session:  # who gave up did not end it
        assert session.ask(QUESTION, [EXAMPLE]).text


def test_a_server_that_is_busy_is_refused_and_goes_on(server: RPCServer) -> None:
    with opened(server) as session:
        answer = session.ask(QUESTION, [EXAMPLE]).text
        with pytest.raises(RPCServerError, match="busy with another client"):
            opened(server)
        assert session.ask("And the circle?").text
    assert server.process.poll() is None
    with opened(server) as session:
        assert session.ask(QUESTION, [EXAMPLE]).text == answer


def test_a_server_of_another_version_is_refused() -> None:
    with stand_in(StandIn((6, 1, 0))) as server, pytest.raises(RPCServerError) as caught:
        Session.open("demo", rpc=server.endpoint, **OPTIONS)  # type: ignore[arg-type]
    assert "speaks version 6.1.0 of the protocol, and the installed llama.cpp 7.0.0" in caught.value.message


# --- Conversations ---------------------------------------------------------------------------------------------------


def test_a_conversation_moves_to_a_server_and_back(server: RPCServer, tmp_path: Path) -> None:
    with Session.open("demo", **OPTIONS) as session:  # type: ignore[arg-type]
        session.ask(QUESTION, [EXAMPLE])
        session.save(tmp_path / "here.session")
    with Session.restore(tmp_path / "here.session", rpc=server.endpoint, n_threads=1, flash_attn=False) as session:
        reply = session.ask("What colour is the circle?")
        assert reply.usage.tiles_encoded == 0
        assert session.runtime.configuration.is_full


# --- The command that serves -----------------------------------------------------------------------------------------


def test_the_server_command_serves_and_ends(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "internvl_gguf", "rpc-server", "--port", "0", "--threads", "1", "--cache", "1GiB"]
    environment = {**os.environ, "COLUMNS": "200"}
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        first, cache, tunnel, use = (process.stderr.readline() for _ in range(4))
        endpoint = use.split()[-1]
        port = endpoint.partition(":")[2]
        assert first.startswith(f"The RPC server listens on 127.0.0.1:{port} (version 7.0.0) and offers a CPU with ")
        assert "up to 1.0 GiB" in cache
        assert tunnel.startswith(f"From another machine: ssh -N -L {port}:127.0.0.1:{port} ")
        taken = run("rpc-server", "--port", port)
        assert_two_lines(taken, 2)
        assert "Another program listens on" in taken.stderr
        answered = run("ask", "demo", QUESTION, "-i", EXAMPLE, "-t", "1", "--rpc", endpoint, "--no-cache")
        assert answered.returncode == 0, answered.stderr
        assert answered.stdout == run("ask", "demo", QUESTION, "-i", EXAMPLE, "-t", "1", "--no-cache").stdout
        with Session.open("demo", rpc=endpoint, **OPTIONS):  # type: ignore[arg-type]
            assert process.stderr.readline() == "A client is here.\n"
        assert process.stderr.readline() == "It has gone.\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_device_that_is_not_there() -> None:
    done = run("rpc-server", "--port", "0", "--device", "CUDA7")
    assert_two_lines(done)
    assert "There is no device CUDA7" in done.stderr
