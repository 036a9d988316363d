"""`internvl ask --batch --workers`: the same records as without, whoever dies on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from internvl_gguf.bulk import worker_trial
from internvl_gguf.bulk.answer_lines import answer_lines
from internvl_gguf.bulk.answerer import Answering, PlacedLine
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.bulk.pool import Told
from internvl_gguf.bulk.worker_trial import known_workers, trial_key
from internvl_gguf.config import EngineConfig, SamplingParams
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.utils.records import WORKERS
from tests.cli.test_commands import INTERNVL, run
from tests.session.test_worker import PATIENCE
from tests.support.pictures import noise

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are what ends these processes")

WORKER, MODEL = "internvl_gguf.bulk.worker_main", "internvl_gguf.session.worker.child_main"
EXAMPLE = str(demo_files().text.with_name("example.png"))
EXACT = ["-t", "1", "-n", "8", "--kv-type", "f32", "--flash-attn", "off", "--no-cache"]


def written(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines))
    return path


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def processes(owner: psutil.Process, module: str) -> list[psutil.Process]:
    """Processes of one kind below another one; workers only once they have the process of a model."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in owner.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if module in process.cmdline() and (module == MODEL or process.children()):
                    found.append(process)
    return found


@contextlib.contextmanager
def started(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """The command, under way; whatever a test leaves is ended."""
    command = [*INTERNVL, "ask", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        owner = psutil.Process(process.pid)
        try:
            yield process, owner
        finally:
            for each in [*owner.children(recursive=True), owner] if owner.is_running() else []:
                with contextlib.suppress(psutil.Error):
                    each.kill()


def has_ended(process: subprocess.Popen[str]) -> bool:
    """Whether it has ended, or does so in a moment; the moment leaves a core to those that work."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.02)
    return process.poll() is not None


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Lines with and without pictures, some of which are no questions."""
    for seed in range(3):
        noise(seed).save(tmp_path / f"{seed}.png")
    lines: list[object] = []
    for number in range(14):
        picture = {"images": [str(tmp_path / f"{number % 3}.png")], "max_tiles": 2} if number % 3 else {}
        lines.append({"prompt": f"What is number {number}?", "id": number, **picture})
    return written(tmp_path / "lines.jsonl", [*lines[:7], "no JSON", {"prompt": 5}, *lines[7:]])


@pytest.mark.parametrize("parallel", [1, 3])
def test_two_workers_write_what_one_writes(tiny: ModelFiles, mixed: Path, parallel: int) -> None:
    command = ("ask", tiny.text, "--batch", mixed, "--parallel", parallel, "-c", "256", *EXACT)
    alone, together = (run(*command, "--workers", workers) for workers in (1, 2))
    kept = ("line", "id", "text", "finish_reason", "error", "hint", "hash", "images")
    expected, found = (
        [{name: each.get(name) for name in kept} for each in records(done.stdout)] for done in (alone, together)
    )
    assert found == expected
    assert len(found) == 16
    assert alone.returncode == together.returncode == 1
    assert "2 of 16 lines failed" in together.stderr
    prefixes = [each["usage"]["cached_tokens"] for each in records(together.stdout) if "usage" in each]
    assert prefixes.count(0) <= 2, "each worker reads the system message once"


def test_a_file_of_answers_is_the_same_and_goes_on(tiny: ModelFiles, mixed: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    command = ("ask", tiny.text, "--batch", mixed, "-o", output, "-c", "256", *EXACT, "--workers", 2)
    assert run(*command).returncode == 1
    first = records(output.read_text())
    assert [each["line"] for each in first] == [*range(1, 17)]
    written(output, first[3:])
    again = run(*command)
    assert "11 of 16 lines were answered before." in again.stderr
    assert [each.get("text") for each in records(output.read_text())] == [each.get("text") for each in first]


def about_example(number: int) -> dict[str, Any]:
    """A line that asks what no other number asks, and is answered "98"."""
    return {"prompt": "What number is written?", "images": [EXAMPLE], "id": number, "max_tokens": 10 + number}


def questions(tmp_path: Path, count: int) -> Path:
    return written(tmp_path / "lines.jsonl", [about_example(number) for number in range(count)])


@pytest.mark.parametrize("left", [12, 2], ids=["in the middle", "at the tail"])
@pytest.mark.parametrize("module", [WORKER, MODEL])
def test_a_death_costs_no_line(tmp_path: Path, module: str, left: int) -> None:
    lines, output = questions(tmp_path, 20), tmp_path / "answers.jsonl"
    command = ("demo", "--batch", lines, "-o", output, "--workers", 2, "--parallel", 2, "-t", 1)
    with started(*command) as (process, owner):
        killed = False
        while not killed and not has_ended(process):
            answered = output.read_bytes().count(b"\n") if output.exists() else 0
            if answered >= 20 - left and (victims := processes(owner, module)):
                victims[0].kill()
                killed = True
        _, errors = process.communicate(timeout=PATIENCE)
    answers = records(output.read_text())
    assert process.returncode == 0, errors
    assert [answer["id"] for answer in answers] == list(range(20))
    assert {answer["text"] for answer in answers} == {"98"}
    if killed and left > 2:
        assert errors.count("Another one takes its place." if module == WORKER else "is loaded again") == 1


def holders(owner: psutil.Process, path: Path) -> list[psutil.Process]:
    """Workers that have a file open."""
    found = []
    for process in processes(owner, WORKER):
        with contextlib.suppress(OSError):
            opened = Path(f"/proc/{process.pid}/fd").iterdir()
            if any(os.path.realpath(each) == str(path) for each in opened):
                found.append(process)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says who has the pipe open")
def test_a_line_that_kills_two_workers_is_an_error_and_the_others_are_answered(tmp_path: Path) -> None:
    pipe = tmp_path / "deadly.png"
    os.mkfifo(pipe)
    deadly = {"prompt": "?", "images": [str(pipe)]}
    lines = written(tmp_path / "lines.jsonl", [deadly, *map(about_example, range(9))])
    output = tmp_path / "answers.jsonl"
    command = ("demo", "--batch", lines, "-o", output, "--workers", 2, "--parallel", 2, "-t", 1)
    with started(*command) as (process, owner):
        killed: set[int] = set()
        while len(killed) < 2 and not has_ended(process):
            with contextlib.suppress(OSError):  # nobody reads it at this moment
                end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                while not (found := holders(owner, pipe)) and not has_ended(process):
                    pass
                for holder in found:
                    holder.kill()
                    killed.add(holder.pid)
                os.close(end)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, errors
    first, *others = records(output.read_text())
    assert "SIGKILL" in first["error"]
    assert "twice with this line" in first["error"]
    assert "--workers" in first["hint"]
    assert {answer["text"] for answer in others} == {"98"}
    assert len(others) == 9


def test_workers_that_only_die_end_the_run_in_two_lines(tmp_path: Path) -> None:
    lines, output = questions(tmp_path, 8), tmp_path / "answers.jsonl"
    with started("demo", "--batch", lines, "-o", output, "--workers", 2, "-t", 1) as (process, owner):
        over = threading.Event()

        def kill_all() -> None:
            while not over.wait(0.02):
                for worker in processes(owner, WORKER):
                    worker.kill()

        killer = threading.Thread(target=kill_all)
        killer.start()
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            over.set()
            killer.join()
    assert process.returncode == 1
    assert "in a row without an answer" in errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors


def test_ctrl_c_keeps_what_is_done_and_leaves_no_process(tiny: ModelFiles, tmp_path: Path) -> None:
    endless = {"prompt": "Tell me.", "max_tokens": 10**6, "temperature": 3.0, "top_k": 0, "top_p": 1.0}
    short = {"prompt": "Short?", "max_tokens": 1}
    lines = written(tmp_path / "lines.jsonl", [short, *[{**endless, "seed": seed} for seed in range(2000)]])
    with started(tiny.text, "--batch", lines, "--workers", 2, "--parallel", 2, "-t", 1) as (process, owner):
        assert process.stdout is not None
        first = process.stdout.readline()
        below = owner.children(recursive=True)
        process.send_signal(signal.SIGINT)
        found = records(first + process.stdout.read())
        assert process.wait(PATIENCE) == 130
        assert found[0]["line"] == 1
        assert [record["line"] for record in found] == sorted({record["line"] for record in found})
        _, alive = psutil.wait_procs(below, PATIENCE)
        assert alive == []


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A trial that is content with few lines and no time."""
    monkeypatch.setattr(worker_trial, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(worker_trial, "_WORTH", 1)
    monkeypatch.setattr(worker_trial, "_GAIN", 0.0)
    yield
    WORKERS.path.unlink(missing_ok=True)


def test_the_number_is_found_on_the_lines_themselves_and_kept(tiny: ModelFiles, eager: None) -> None:
    """One worker, then two; their answers are the run's, and the next run begins with two."""
    engine = EngineConfig(n_ctx=256, n_threads=2, embedding_disk_bytes=0)
    opening = {"system": "Be brief.", "max_tiles": None, "min_tiles": None, "thumbnail": True, **engine.options}
    answering = Answering(tiny, opening, {"sampling": SamplingParams(max_tokens=2)}, Common())
    assert known_workers(trial_key(answering, 2)) is None
    for _ in range(2):
        assert sorted(answered_places(answering, 600)) == list(range(600))
        assert known_workers(trial_key(answering, 2)) == 2


def answered_places(answering: Answering, count: int) -> list[int]:
    """The places of lines in the order in which they were answered by a number of workers that is found out."""
    lines = [PlacedLine(place, Line(place + 1, b'{"prompt": "What?", "max_tokens": 8}')) for place in range(count)]
    places: list[int] = []
    ready: list[int] = []
    told = Told(
        answered=lambda each: places.append(each.place),
        load=lambda done: None,
        load_critic=lambda done: None,
        notice=lambda line: None,
        ready=lambda facts, devices: ready.append(devices),
    )
    answer_lines(answering, lines, count, told, "auto")
    assert ready == [1], "told once, whoever comes later"
    return places
