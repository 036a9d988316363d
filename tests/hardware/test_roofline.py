"""The measured roofline: its child process, its record, and its messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from internvl_gguf.cli.group import app
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware import cpu_tuning
from internvl_gguf.hardware import roofline as rooflines
from internvl_gguf.hardware.device_speed import BITS_PER_WEIGHT, TABLES, Range
from internvl_gguf.hardware.roofline import assumed_device, measure_roofline, measured_roofline, recorded_roofline

# A process that prints what a test wants: the lines of its jobs behind --start, up to a job on which it dies.
STAND_IN = """
import json, os, sys, time
lines = json.load(open({lines!r}))
arguments = sys.argv[1:]
start = int(arguments[arguments.index("--start") + 1])
for line in lines:
    if "job" not in line or line["job"] > start:
        if line.get("dies"):
            sys.stdout.flush()
            os._exit(line["dies"])
        if line.get("hangs"):
            sys.stdout.flush()
            time.sleep(600)
        print(line.get("text") or json.dumps(line), flush=True)
"""

Script = Callable[[Sequence[dict[str, Any]]], None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder without a record; threads are measured in no time, and nothing is found."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INTERNVL_CACHE", str(folder))
    monkeypatch.setattr(cpu_tuning, "_COMMAND", (sys.executable, "-S", "-c", ""))
    return folder


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts lines into the mouth of the process that measures."""

    def say(lines: Sequence[dict[str, Any]]) -> None:
        lines_file = tmp_path / "lines.json"
        lines_file.write_text(json.dumps(lines))
        program = tmp_path / "stand_in.py"
        program.write_text(STAND_IN.format(lines=str(lines_file)))
        monkeypatch.setattr(rooflines, "_COMMAND", (sys.executable, "-S", str(program)))

    return say


def found(kind: str = "cpu", device: int = 0, jobs: int = 6) -> dict[str, Any]:
    return {"device": device, "kind": kind, "name": kind.upper(), "description": f"a {kind}", "jobs": jobs}


def job(number: int, table: str, key: str = "q4_k", *, device: int = 0, **changes: Any) -> dict[str, Any]:
    """A measurement of 4e9 bytes or operations in 1 to 2 seconds."""
    about = {"job": number, "device": device, "table": table, "key": key}
    return about | {"amount": 4e9, "seconds": [1.0, 2.0], "disturbed": False} | changes


def every_table(device: int = 0, first: int = 1) -> list[dict[str, Any]]:
    """What makes a device complete."""
    keys = ("q4_k", "q4_k", "f16", "f16", "f16 flash")
    jobs = [job(first + index, table, keys[index], device=device) for index, table in enumerate(TABLES)]
    return [*jobs, job(first + len(TABLES), "node_seconds", "", device=device, amount=1e6)]


def test_what_the_process_says_is_the_roofline(script: Script) -> None:
    progress: list[str] = []
    script([found(), found("gpu", 1), *every_table(), *every_table(1, 7), job(13, "host_to_gpu", "", device=1)])
    roofline = measured_roofline(("q4_k",), progress.append)
    assert roofline.host.measured
    assert roofline.host.name == "CPU"
    assert roofline.host.bandwidth == {"q4_k": Range(2e9, 4e9)}
    assert roofline.host.node_seconds.low == pytest.approx(1e-6)
    assert roofline.host.node_seconds.high == pytest.approx(2e-6)
    assert [gpu.description for gpu in roofline.gpus] == ["a gpu"]
    assert roofline.host_to_gpu == Range(2e9, 4e9)
    assert roofline.disturbed == 0
    assert len(progress) == 13
    assert progress[0] == "CPU: bandwidth q4_k (1 of 12)"


def test_a_measurement_is_remembered(script: Script) -> None:
    assert recorded_roofline() is None
    script([found(), *every_table()])
    measured = measure_roofline(n_threads=1)
    assert recorded_roofline() == measured
    assert measured.measured_at is not None
    script([found(), *every_table(), job(1, "bandwidth", amount=8e9)])
    assert measure_roofline() != measured
    assert recorded_roofline() != measured


def test_the_record_of_another_machine_does_not_count(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script([found(), *every_table()])
    measure_roofline()
    monkeypatch.setattr(rooflines, "machine_identity", lambda: "another")
    assert recorded_roofline() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"host"', '"hosts"'),
        lambda text: text.replace('"low"', '"lowest"'),
        lambda text: text.replace("2000000000.0", "-1"),
        lambda text: text.replace("2000000000.0", "0"),
        lambda text: text.replace("2000000000.0", "NaN"),
        lambda text: text.replace("2000000000.0", '"fast"'),
        lambda text: text.replace('{"q4_k"', '["q4_k"').replace("}}", "}]"),
        lambda text: text.replace('"gpus": []', '"gpus": 1'),
    ],
)
def test_a_damaged_record_does_not_count(damage: Callable[[str], str], script: Script, own_cache: Path) -> None:
    script([found(), *every_table()])
    measure_roofline()
    record = own_cache / "roofline.json"
    whole = record.read_text()
    record.write_text(damage(whole))
    assert record.read_text() != whole
    assert recorded_roofline() is None


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_record(script: Script, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    script([found(), *every_table()])
    assert measure_roofline().host.measured
    assert recorded_roofline() is None


def test_a_type_that_ends_the_process_is_left_out(script: Script) -> None:
    first, *others = every_table()
    script([found(), first, {"job": 2, "dies": 134}, *others[1:], job(7, "matrix_rate", "q8_0")])
    roofline = measured_roofline(("q4_k", "q8_0"))
    assert roofline.host.measured
    assert roofline.host.matrix_rate.keys() == {"q8_0"}


def test_what_is_missing_is_assumed_and_said(script: Script) -> None:
    script([found(), job(1, "bandwidth"), job(2, "matrix_rate", error="the device cannot do it")])
    host = measured_roofline(("q4_k",)).host
    assert not host.measured
    assert host.bandwidth == {"q4_k": Range(2e9, 4e9)}
    assert host.matrix_rate == assumed_device("cpu").matrix_rate
    assert host.description == f"a cpu, measured in part; else {assumed_device('cpu').description}"


def test_a_process_that_always_dies_is_given_up(script: Script) -> None:
    script([found(), job(1, "bandwidth"), *({"job": number, "dies": 1} for number in range(2, 60))])
    assert measured_roofline(("q4_k",)).host.bandwidth.keys() == {"q4_k"}


@pytest.mark.parametrize("lines", [[], [{"dies": 1}], [found()], [found(), {"job": 1, "dies": 1}]])
def test_nothing_measured_is_an_error(lines: list[dict[str, Any]], script: Script) -> None:
    script(lines)
    with pytest.raises(LibraryError, match="could not be measured"):
        measure_roofline()
    assert recorded_roofline() is None


def test_half_a_line_is_no_line(script: Script) -> None:
    script([found(), *every_table(), {"text": '{"job": 7, "devi'}, {"job": 7, "dies": 1}])
    assert measured_roofline(("q4_k",)).host.measured


def test_what_was_measured_in_time_counts(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooflines, "_TIMEOUT", 1.0)
    script([found(), *every_table(), {"job": 7, "hangs": True}])
    assert measured_roofline(("q4_k",)).host.measured


def test_the_calm_measurement_replaces_the_disturbed_one(script: Script) -> None:
    slow = job(1, "bandwidth", seconds=[8.0, 9.0], disturbed=True)
    script([found(), slow, *every_table()[1:], job(1, "bandwidth")])
    roofline = measured_roofline(("q4_k",))
    assert roofline.disturbed == 0
    assert roofline.host.bandwidth["q4_k"].high == 4e9
    script([found(), slow, *every_table()[1:], slow])
    assert measured_roofline(("q4_k",)).disturbed == 1


def test_the_doctor_measures(script: Script) -> None:
    script([found(), found("gpu", 1), *every_table(), *every_table(1, 7), job(13, "host_to_gpu", "", device=1)])
    shell = CliRunner()
    before = shell.invoke(app, ["doctor"])
    assert before.exit_code == 0
    assert "not measured, so estimates are assumptions; `internvl doctor --measure`" in before.stdout
    assert json.loads(shell.invoke(app, ["doctor", "--json"]).stdout)["speed"] is None
    measured = shell.invoke(app, ["doctor", "--measure"])
    assert measured.exit_code == 0
    assert "speed          measured 2" in measured.stdout
    assert "q4_k                 3.0             3" in measured.stdout
    assert "from host to GPU: 3.0 GB/s" in measured.stdout
    assert measured.stderr == ""  # progress is for terminals
    after = shell.invoke(app, ["doctor"])
    assert " on CPU, GPU" in after.stdout
    assert "q4_k" not in after.stdout
    report = json.loads(shell.invoke(app, ["doctor", "--measure", "--json"]).stdout)["speed"]
    assert report["devices"][0]["bandwidth"] == {"q4_k": [2e9, 4e9]}
    assert report["devices"][1]["complete"]
    assert report["host_to_gpu"] == [2e9, 4e9]
    assert report["disturbed_measurements"] == 0


def test_the_doctor_says_what_to_doubt(script: Script) -> None:
    script([found(), job(1, "bandwidth", disturbed=True)])
    shown = CliRunner().invoke(app, ["doctor", "--measure"]).stdout
    assert "other programs disturbed 1 of it; measure again when the machine is idle" in shown
    assert "CPU in part only: the rest is assumed" in shown


def test_the_doctor_says_why_it_could_not(script: Script) -> None:
    script([])
    done = CliRunner().invoke(app, ["doctor", "--measure"])
    assert isinstance(done.exception, LibraryError)


def test_this_machine_is_measured() -> None:
    """The real process, restricted to one type."""
    roofline = measured_roofline(("q4_k",), n_threads=1)
    host = roofline.host
    assert host.name == "CPU"
    assert not host.measured  # attention and encoder were not asked for
    assert host.bandwidth.keys() == host.matrix_rate.keys() == {"q4_k"}
    assert 0.01e9 < host.bandwidth["q4_k"].low <= host.bandwidth["q4_k"].high < 10_000e9
    assert 0.1e9 < host.matrix_rate["q4_k"].low <= host.matrix_rate["q4_k"].high < 1e18
    assert 1e-9 < host.node_seconds.low < 1e-2


def test_every_type_can_be_multiplied_with() -> None:
    """No type of the table is unknown to the installed library; tiny matrices, one run each."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    from internvl_gguf.llama.measure.kernels import AttentionShape, KernelBench
    from internvl_gguf.llama.measure.timing import TimingLimits

    at_once = TimingLimits(sample=1e-6, run=0)
    shape = AttentionShape(heads=2, kv_heads=1, head_dim=64, positions=32, tokens=1, layers=1)
    with KernelBench(0, n_threads=1, reorders=True, limits=at_once) as bench:
        for name, bits in BITS_PER_WEIGHT.items():
            kind = GGMLQuantizationType[name.upper()]
            block, size = GGML_QUANT_SIZES[kind]
            assert 8 * size / block == bits
            assert bench.products(kind, 256, 16, 2, 0) is not None
        assert bench.attention(GGMLQuantizationType.Q8_0, shape, flash=True) is not None
        assert bench.attention(GGMLQuantizationType.F16, shape, flash=False) is not None
