"""`internvl bench --rpc`: one configuration after the other on a server that has one client at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.bench.jobs import Job, SpeedJob
from internvl_gguf.bench.process import Listener, run_job
from internvl_gguf.demo.__main__ import EXAMPLE
from internvl_gguf.models.local_files import demo_files
from tests.cli.test_commands import assert_two_lines, run
from tests.rpc.servers import RPCServer
from tests.support.stand_in_rpc import nobody

FAST = ("-p", "32", "-n", "8", "-r", "1", "-c", "512", "-t", "1")


def measured(*arguments: object, **environment: Any) -> dict[str, Any]:
    done = run("bench", *arguments, *FAST, "--json", **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_quants_are_measured_one_after_the_other(server: RPCServer, tmp_path: Path) -> None:
    """The reference first, each loaded several times: where one were left open, the next would find the server busy."""
    kept: Any = {"INTERNVL_CACHE": str(tmp_path)}
    only = ("--only", "speed,memory,quality", "--chunks", "1", "--pictures", "off", "--parallel", "2")
    here = measured("demo:BF16,Q8_0", *only, **kept)
    there = measured("demo:BF16,Q8_0", *only, "--rpc", server.endpoint, **kept)
    assert there["machine"].startswith(f"{here['machine']}, RPC servers {server.endpoint} (a CPU with ")
    assert not any("earlier run" in notice for notice in there["notices"])
    for row, alone in zip(there["rows"], here["rows"], strict=True):
        assert row["status"] == "measured", row["error"]
        assert row["configuration"]["settings"]["rpc"].startswith(f"{server.endpoint} (a CPU with ")
        assert "rpc" not in alone["configuration"]["settings"]
        assert row["memory"]["planned"]["GPU0"] > 6 * 2**20
        assert set(row["memory"]["peak"]) == {"CPU"}
        assert row["speed"]["decode"]["median"] > 0
        assert row["speed"]["decode_parallel"]["median"] > 0
        assert row["quality"]["text"]["mean"] == pytest.approx(alone["quality"]["text"]["mean"], abs=1e-4)
    again = measured("demo:BF16,Q8_0", *only, "--rpc", server.endpoint, **kept)
    assert any("earlier run measured is in 2 of 2 rows" in notice for notice in again["notices"])


def test_a_cascade_is_measured_on_a_server(server: RPCServer, tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    asked = [{"image": str(EXAMPLE), "prompt": f"Is {number} written?", "answer": "yes"} for number in range(20)]
    task.write_text("\n".join(map(json.dumps, asked)))
    found = measured("--cascade", "demo:Q8_0,demo:BF16", "--task", task, "--rpc", server.endpoint)
    assert server.endpoint in found["machine"]


def test_a_server_that_is_lost_is_the_reason(server: RPCServer) -> None:
    files = demo_files()
    engine = {"n_ctx": 512, "n_threads": 1, "rpc": [server.endpoint]}
    job = Job(str(files.text), str(files.mmproj), engine, speed=SpeedJob(32, 8, 100))

    def kill(what: str, done: float) -> None:
        if what == "decode":
            server.kill()

    ending = run_job(job, Listener(kill, lambda part: None, lambda line: None))
    assert ending.status == "failed"
    assert ending.error.startswith(f"The RPC server {server.endpoint} went away. Start it again")


def test_a_server_that_is_not_there_is_two_lines() -> None:
    with nobody() as endpoint:
        done = run("bench", "demo", "--rpc", endpoint)
    assert_two_lines(done)
    assert f"The RPC server {endpoint} cannot be reached" in done.stderr
