"""Devices that run out of memory, vanish, hang, or come in another order: what people are told instead of a crash."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.devices.conftest import LAVAPIPE
from tests.devices.run import Result, run, start
from tests.devices.servers import environment, rpc_server


def command(endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """An `internvl` command beside an RPC server."""
    line = [sys.executable, "-m", "internvl_gguf", *arguments]
    found = environment([endpoint], program="internvl_gguf")
    return subprocess.run(line, capture_output=True, text=True, check=False, env=found)


def is_two_lines(text: str) -> bool:
    """Whether an error is what happened and what to do."""
    lines = text.splitlines()
    return len(lines) == 2 and lines[0].startswith("Error: ") and lines[1].startswith("  ")


# --- Too little memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mebibytes", [2, 4, 8, 12, 16, 24, 32, 48, 64, 96])
def test_whatever_a_server_has_the_question_is_answered(mebibytes: int, reference: Result) -> None:
    """The server calls more its own than it has. mtmd aborted, or segfaulted at the first picture, or at the second."""
    with rpc_server(mebibytes) as server:
        found = run({}, servers=[server.endpoint], questions=2)
    assert found.answers == reference.answers[:2]
    assert bool(found.notices) == (found.gpu_layers == 0)
    for notice in found.notices:
        assert "Trying it with on the CPU, the RPC server left alone" in notice


@pytest.mark.parametrize("mebibytes", [2, 8, 16, 32, 64])
def test_layers_that_were_asked_for_are_a_refusal_in_two_lines_at_worst(mebibytes: int) -> None:
    with rpc_server(mebibytes) as server:
        asked = ("ask", "demo", "What number is written?", "-ngl", "99", "-c", "2048")
        done = command(server.endpoint, *asked)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode:
        *notices, what, todo = done.stderr.splitlines()
        assert is_two_lines(f"{what}\n{todo}"), done.stderr
        assert "--n-gpu-layers" in todo
        assert "alloc" in what or "room" in what
        assert any("batches of 128" in notice for notice in notices)


# --- Servers that vanish or hang -------------------------------------------------------------------------------------


def test_a_server_that_is_killed_before_a_question() -> None:
    """GGML_ABORT: SIGABRT and one raw line."""
    with rpc_server() as server:
        process = start({"options": {}, "questions": 1, "pause": True}, servers=[server.endpoint])
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        server.kill()
        _, errors = process.communicate("\n")
    assert process.returncode == 1
    assert is_two_lines(errors), errors
    assert "Remote RPC server crashed or returned malformed response" in errors


WORKER = """
import sys
from internvl_gguf import Session
from internvl_gguf.errors import InternVLError
notices = []
with Session.open("demo", worker=True, n_threads=1, n_ctx=2048, on_notice=notices.append) as session:
    print(session.runtime.configuration.gpu_layers, session.ask("Is there a circle?").text, flush=True)
    sys.stdin.readline()
    before = session.messages
    try:
        session.ask("And a square?")
    except InternVLError as error:
        print(type(error).__name__, error.message)
    print(session.messages == before)
"""


def test_a_server_that_is_killed_costs_a_worker_one_answer() -> None:
    """The conversation's own process lives, and is told what ended the other."""
    with rpc_server() as server:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment([server.endpoint], program="internvl_gguf.session.worker.child_main"),
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        server.kill()
        output, _ = process.communicate("\n")
    assert first.startswith("6 ")
    error, same = output.splitlines()
    assert error.startswith("WorkerDiedError")
    assert "Remote RPC server crashed" in error
    assert same == "True"
    assert process.returncode == 0


def test_a_server_that_is_not_there_when_devices_are_listed() -> None:
    with rpc_server() as server:
        endpoint = server.endpoint
    done = command(endpoint, "doctor")
    assert done.returncode == 1
    assert is_two_lines(done.stderr), done.stderr


@pytest.mark.parametrize("what", ["doctor", "ask"])
def test_ctrl_c_twice_ends_what_waits_for_a_server_that_hangs(what: str) -> None:
    """It waited for ever, and no number of Ctrl-C ended it. One client at a time: a busy server looks the same."""
    arguments = [what] if what == "doctor" else ["ask", "demo", "What number is written?"]
    script = f"""
import os, signal, sys
from internvl_gguf.cli import main
from internvl_gguf.llama import library
describe, server = library._device, int(sys.argv[1])
def asked(handle):
    os.kill(server, signal.SIGSTOP)
    print("hanging", flush=True)
    return describe(handle)
library._device = asked
sys.argv[1:] = {arguments!r}
main()
"""
    with rpc_server() as server:
        line = [sys.executable, "-c", script, str(server.process.pid)]
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment([server.endpoint])
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "hanging\n"
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        errors = process.communicate()[1]
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


# --- Order and places ------------------------------------------------------------------------------------------------


def test_layers_lie_on_the_devices_of_the_plan(server: str, reference: Result) -> None:
    """llama.cpp put the server first, whatever the plan: 96% were to lie on the card, and all lay on the server."""
    found = run({"n_gpu_layers": -1, "vram": "600MiB,450MiB"}, servers=[server], vulkan=LAVAPIPE)
    assert len(found.gpus) == 2
    expected = [name for name in found.gpus for _ in range(found.layers.count(name))]
    assert found.layers == expected
    assert found.layers.count(found.gpus[0]) > found.layers.count(found.gpus[1])
    assert found.answers == reference.answers[:1]
    for gpu in found.gpus:
        assert abs(found.planned[gpu]["model"] - found.logged.get(gpu, {}).get("model", 0)) < 2**15


def test_one_device_where_one_is_enough(server: str) -> None:
    found = run({}, servers=[server], vulkan=LAVAPIPE)
    assert len(found.gpus) == 1
    assert set(found.layers) == set(found.gpus)


def test_the_encoder_lies_on_the_second_device_where_the_first_is_full(server: str, reference: Result) -> None:
    found = run({"vram": "1MiB,1GiB"}, servers=[server], vulkan=LAVAPIPE)
    assert len(found.gpus) == 1
    assert found.encoder == found.gpus[0]
    assert found.answers == reference.answers[:1]


def test_two_servers_share_a_model(reference: Result) -> None:
    with rpc_server() as one, rpc_server() as two:
        found = run({"n_gpu_layers": -1}, servers=[one.endpoint, two.endpoint])
    assert len(found.gpus) == 2
    assert set(found.layers) == set(found.gpus)
    assert found.answers == reference.answers[:1]


# --- Conversations ---------------------------------------------------------------------------------------------------


def test_a_conversation_moves_between_devices(server: str, tmp_path: Path) -> None:
    """Saved on the CPU, restored on a device, and back: it was "saved with another vision encoder"."""
    script = """
import json, sys
from internvl_gguf import Session
from internvl_gguf.demo.__main__ import EXAMPLE
where, path, mode = sys.argv[1:]
options = {"n_threads": 1, "embedding_disk_bytes": 0, "vram": "none" if where == "cpu" else None}
if mode == "save":
    with Session.open("demo", n_ctx=2048, **options) as session:
        session.ask("What number is written?", images=[EXAMPLE])
        session.save(path)
else:
    with Session.restore(path, **options) as session:
        assert (session.runtime.configuration.gpu_layers > 0) == (where != "cpu")
        reply = session.ask("What colour is the circle?")
        usage = reply.usage
        print(json.dumps([reply.text, usage.tiles_encoded, usage.prompt_tokens - usage.cached_tokens]))
"""
    path = str(tmp_path / "talk.session")

    def told(where: str, mode: str) -> str:
        line = [sys.executable, "-c", script, where, path, mode]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment([server]))
        assert done.returncode == 0, done.stderr
        return done.stdout

    for saved_on, restored_on in (("cpu", "device"), ("device", "cpu")):
        told(saved_on, "save")
        same, other = (json.loads(told(where, "restore")) for where in (saved_on, restored_on))
        assert same == other
        assert other[1] == 0
        assert other[2] < 40
