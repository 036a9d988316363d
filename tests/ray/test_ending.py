"""A run of `ask --batch --ray` that is ended: as without Ray, and nothing is left behind."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

COUNT = 600
GOES_ON = "lines answered; the same command goes on with the rest."
_SECONDS, _SECONDS_TO_END = 60.0, 15.0  # a machine with much to do


def until(happened: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait for something, as long as a process runs."""
    while child.poll() is None and not happened():
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.02)
    assert child.returncode is None


def of_session(session: int) -> Iterator[psutil.Process]:
    """The processes that one started, whatever became of their parents."""
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == session:
                yield process


def ended(number: int, output: Path, has_come: Callable[[psutil.Process], bool], *, whole_group: bool) -> str:
    """Begin a run, send a signal, and return what was told. No process of it is left."""
    lines = output.with_name("lines.jsonl")
    lines.write_text("\n".join(json.dumps({"prompt": f"What is {each}?"}) for each in range(COUNT)))
    command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", "--batch", str(lines), "-o", str(output)]
    command += ["--ray", "local", "-t", "1", "--max-tokens", "8"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        process = psutil.Process(child.pid)
        until(lambda: has_come(process), child)
        if whole_group:
            os.killpg(child.pid, number)
        else:
            child.send_signal(number)
        _, told = child.communicate(timeout=_SECONDS)
    assert child.returncode == 130, told
    assert "Traceback" not in told
    assert "***" not in told
    assert psutil.wait_procs(list(of_session(child.pid)), _SECONDS_TO_END)[1] == []
    lines.unlink()
    return told


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_ends_a_run_in_order(number: int, *, whole_group: bool, tmp_path: Path) -> None:
    """Ray's native code printed a dump at SIGTERM and ended with 134. Ctrl-C reaches all processes of the terminal."""
    written = tmp_path / "answers.csv.jsonl"

    def has_answers(process: psutil.Process) -> bool:
        return written.exists() and b"\n" in written.read_bytes()

    told = ended(number, tmp_path / "answers.csv", has_answers, whole_group=whole_group)
    with (tmp_path / "answers.csv").open(newline="") as file:
        numbers = [int(row["line"]) for row in csv.DictReader(file)]
    assert 0 < len(numbers) < COUNT
    assert numbers == sorted(numbers)
    assert told.splitlines()[-1] == f"{len(numbers):,} of {COUNT} {GOES_ON}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_signal_while_ray_starts(number: int, name: str, tmp_path: Path) -> None:
    def has_begun(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(name in child.name() for child in process.children())
        return False

    told = ended(number, tmp_path / "answers.csv", has_begun, whole_group=False)
    assert told.splitlines()[-1] == f"0 of {COUNT} {GOES_ON}"
    assert list(tmp_path.iterdir()) == []
