"""The demo model on RPC servers: the CPU's answers, its numbers, the planned memory."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from internvl_gguf import Session
from internvl_gguf.planning.planner import Configuration
from tests.devices.run import MIB, exam_questions, logged_buffers
from tests.rpc.servers import RPCServer


@dataclass(frozen=True)
class Result:
    """What a run gave: answers, log-probabilities of the next tokens, and how the model was loaded."""

    answers: list[str]
    logprobs: NDArray[np.float32]
    notices: list[str]
    configuration: Configuration


def run(count: int = 1, **options: Any) -> Result:
    """Ask the demo model questions about pictures."""
    told: list[str] = []
    settings = {"n_threads": 1, "n_ctx": 2048, "embedding_disk_bytes": 0, "encoder": "llama.cpp", **options}
    with Session.open("demo", on_notice=told.append, **settings) as session:
        answers, logprobs = [], []
        for prompt, picture in exam_questions(count):
            logprobs.append(session.next_token_logprobs(prompt, [picture]))
            answers.append(session.ask(prompt, [picture]).text)
            session.clear()
        return Result(answers, np.stack(logprobs), told, session.runtime.configuration)


@pytest.fixture(scope="module")
def reference() -> Result:
    """The model on the CPU of this process."""
    return run(12, vram="none")


def divergence(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest KL divergence of the next token, in nats."""
    kept = reference[: len(other)].astype(np.float64)
    return float((np.exp(kept) * (kept - other)).sum(axis=1).max())


def test_answers_and_numbers_are_those_of_the_cpu(server: RPCServer, reference: Result) -> None:
    found = run(12, rpc=server.endpoint)
    assert found.answers == reference.answers
    assert divergence(reference.logprobs, found.logprobs) < 1e-4
    assert found.notices == []
    assert found.configuration.gpu_layers == found.configuration.n_layers
    assert not found.configuration.request.mmproj_on_gpu
    assert found.configuration.is_full


def test_two_servers_share_a_model(two_servers: tuple[RPCServer, RPCServer], reference: Result) -> None:
    one, two = two_servers
    found = run(4, rpc=[one.endpoint, two.endpoint], n_gpu_layers=-1)
    assert found.answers == reference.answers[:4]
    assert divergence(reference.logprobs, found.logprobs) < 1e-4
    assert all(device.weights for device in found.configuration.plan.gpus)


def test_one_server_where_one_is_enough(two_servers: tuple[RPCServer, RPCServer]) -> None:
    one, two = two_servers
    found = run(rpc=f"{one.endpoint},{two.endpoint}")
    assert len(found.configuration.plan.gpus) == 1


@pytest.mark.parametrize("options", [{"n_gpu_layers": 0}, {"vram": "none"}, {"vram": "1MiB"}], ids=str)
def test_servers_may_be_left_alone(server: RPCServer, reference: Result, options: dict[str, Any]) -> None:
    found = run(rpc=server.endpoint, **options)
    assert found.answers == reference.answers[:1]
    assert found.configuration.gpu_layers == 0


@pytest.mark.parametrize("layers", [-1, 2, 1, 0])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_planned_memory_is_what_llama_cpp_logs(
    server: RPCServer, layers: int, kv_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="internvl_gguf"):
        found = run(rpc=server.endpoint, n_gpu_layers=layers, kv_type=kv_type)
    compare(found, caplog, [server])


def test_planned_memory_on_two_servers(
    two_servers: tuple[RPCServer, RPCServer], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="internvl_gguf"):
        found = run(rpc=[each.endpoint for each in two_servers], n_gpu_layers=-1)
    compare(found, caplog, two_servers)


def compare(found: Result, caplog: pytest.LogCaptureFixture, servers: Any) -> None:
    """Never less than is taken, and little more."""
    lines = [record.getMessage() for record in caplog.records if record.name == "internvl_gguf.llama"]
    names = {f"RPC0[{server.endpoint}]": f"GPU{number}" for number, server in enumerate(servers)}
    logged = logged_buffers(lines, names)
    assert set(logged) <= {"CPU", *names.values()}
    for device in found.configuration.plan.devices:
        parts = logged.get(device.device, {})
        planned = {"KV": device.kv_cache, "compute": device.compute_buffer}
        for part, size in planned.items():
            over = (size - parts.get(part, 0)) / MIB
            assert -0.02 < over < 1.1, (device.device, part, over)
        if device.device != "CPU":
            assert abs(device.weights - parts.get("model", 0)) < 0.02 * MIB


def test_the_benchmark_runs() -> None:
    script = Path(__file__).parents[2] / "benchmarks/rpc.py"
    line = [sys.executable, str(script), "--quick", "--threads", "1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for side in ("one server", "two servers"):
        assert result[side]["kl"][1] < 1e-4
        assert result[side]["network_ms"]["low"] > 0
        for row in result[side]["memory"]:
            assert -0.02 < row["planned"] - row["logged"] < 1.1, row
        assert result["token_ms"][side]["median"] > 0
