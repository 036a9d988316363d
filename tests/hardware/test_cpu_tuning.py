"""Threads and batches chosen by measurement: the decision, its record, and its users. All times are made up."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from internvl_gguf import Session
from internvl_gguf.cli import machine_tuning
from internvl_gguf.cli.group import app
from internvl_gguf.config import EngineConfig
from internvl_gguf.errors import LibraryError
from internvl_gguf.hardware import cgroups, cores, cpu_tuning, identity
from internvl_gguf.hardware import roofline as rooflines
from internvl_gguf.hardware.cpu_tuning import (
    UBATCHES,
    AttentionSeconds,
    HostSettings,
    Tuning,
    best_parallel,
    best_ubatch,
    host_settings,
    measure_tuning,
    recorded_tuning,
    smallest_near_best,
    thread_candidates,
)
from internvl_gguf.llama.measure.kernels import KernelBench
from internvl_gguf.llama.measure.threads import WorkSizes, cpu_bench, size_tables, thread_tables
from internvl_gguf.llama.measure.timing import TimedRun, TimingLimits, time_interleaved
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.models.listing import list_model
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.planning import Configuration, MemoryBudget
from internvl_gguf.planning.auto_quant import machine_chooser
from internvl_gguf.planning.placement import placements
from tests.support.sessions import engine_of
from tests.support.stand_in_machine import write_topology

CORES = 4
# A token waits for memory, which two threads exhaust; a batch gains from three; 256 positions at once are the best.
TOKEN = {1: 0.040, 2: 0.0202, 3: 0.020, 4: 0.021}
BATCH = {1: 0.300, 2: 0.160, 3: 0.110, 4: 0.109}
UBATCH = {128: 1.08e-3, 256: 1.00e-3, 512: 1.10e-3, 1024: 1.20e-3, 2048: 1.30e-3}
ATTENTION = {"f16": (0.010, 0.10), "f16 flash": (0.018, 0.09), "q8_0 flash": (0.030, 0.80)}
CHOSEN = HostSettings(n_threads=2, n_threads_batch=3, n_ubatch=256, n_parallel=2)
ANSWERED = {1: 0.010, 2: 0.012, 4: 0.022}
GIB = 2**30
AT_ONCE = TimingLimits(sample=1e-6, run=0, comparison=0)

# A process that prints what a test wants for each of its two calls, and notes how it was called.
STAND_IN = """
import json, os, sys
with open({calls!r}, "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
for line in json.load(open({lines!r}))[sys.argv[1]]:
    if "dies" in line:
        sys.stdout.flush()
        os._exit(line["dies"])
    print(line.get("text") or json.dumps(line), flush=True)
"""

Lines = list[dict[str, Any]]
Script = Callable[[Lines, Lines], Path]


def lines(table: str, seconds: Mapping[Any, float], **changes: Any) -> Lines:
    """What the process prints of a table: three samples, the outer ones far off."""
    return [
        {"table": table, "setting": str(setting), "seconds": [each * 9, each, each / 9], "disturbed": False} | changes
        for setting, each in seconds.items()
    ]


def thread_lines(**changes: Any) -> Lines:
    return lines("token", TOKEN, **changes) + lines("batch", BATCH, **changes)


def ubatch_lines(seconds: Mapping[int, float] = UBATCH, **changes: Any) -> Lines:
    """The times of batches, which `changes` are for, and those of answers at once."""
    ubatch = lines("ubatch", {size: size * each for size, each in seconds.items()}, **changes)
    return ubatch + lines("answers", ANSWERED)


def attention_lines(**changes: Any) -> Lines:
    halves = (("token attention", 0), ("batch attention", 1))
    return [
        line for table, half in halves for line in lines(table, {k: v[half] for k, v in ATTENTION.items()}, **changes)
    ]


def tuned(**changes: Any) -> Tuning:
    """What the lines above say."""
    attention = {name: AttentionSeconds(*pair) for name, pair in ATTENTION.items()}
    return replace(Tuning(TOKEN, BATCH, UBATCH, ANSWERED, attention, "2026-11-21T12:00:00+00:00"), **changes)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder without a record, on a machine of four cores."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INTERNVL_CACHE", str(folder))
    for module in (cores, cpu_tuning):
        monkeypatch.setattr(module, "usable_cores", lambda: tuple(range(CORES)))
    monkeypatch.setattr(cores, "TOPOLOGY", write_topology(tmp_path / "cpus", [(core,) for core in range(CORES)]))
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    return folder


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts lines into the mouth of the process that measures; gives the file in which its calls are noted."""

    def say(threads: Lines, sizes: Lines) -> Path:
        lines_file, calls, program = (tmp_path / name for name in ("lines.json", "calls", "stand_in.py"))
        lines_file.write_text(json.dumps({"threads": threads, "sizes": sizes}))
        program.write_text(STAND_IN.format(lines=str(lines_file), calls=str(calls)))
        monkeypatch.setattr(cpu_tuning, "_COMMAND", (sys.executable, "-S", str(program)))
        return calls

    return say


@pytest.fixture
def recorded(script: Script) -> Tuning:
    """A measurement of this machine that counts."""
    script(thread_lines(), ubatch_lines() + attention_lines())
    return measure_tuning()


# --- The decision ----------------------------------------------------------------------------------------------------

counts = st.integers(1, 300)
times = st.floats(1e-6, 1e3, allow_subnormal=False)
tables = st.dictionaries(counts, times, min_size=1, max_size=12)


@given(usable=counts, physical=counts)
def test_no_more_threads_are_tried_than_can_run(usable: int, physical: int) -> None:
    found = thread_candidates(usable, physical)
    assert list(found) == sorted(set(found))
    assert found[0] == 1
    assert found[-1] == usable
    assert min(usable, physical) in found  # the rule without a measurement is among them
    assert len(found) <= 16


def test_what_is_tried_on_usual_machines() -> None:
    assert thread_candidates(2, 2) == (1, 2)
    assert thread_candidates(2, 64) == (1, 2)  # of a large machine, two cores
    assert thread_candidates(16, 8) == (1, 2, 4, 6, 7, 8, 9, 12, 16)


@given(seconds=tables, slack=st.floats(0, 0.5))
def test_the_smallest_number_near_the_best_is_taken(seconds: dict[int, float], slack: float) -> None:
    chosen = smallest_near_best(seconds, slack)
    best = min(seconds.values())
    assert seconds[chosen] <= best * (1 + slack)
    assert all(seconds[smaller] > best * (1 + slack) for smaller in seconds if smaller < chosen)


@pytest.mark.parametrize(
    ("seconds", "parallel"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4),
        ({1: 1.0, 2: 1.3, 4: 1.7}, 4),
        ({1: 1.0, 2: 1.3, 4: 2.1}, 2),
        ({1: 1.0, 2: 1.5, 4: 1.8}, 4),  # kernels that take four rows at once
        ({1: 1.0, 2: 1.5, 4: 2.5}, 1),
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),
    ],
)
def test_answers_are_made_at_once_where_that_is_worth_their_caches(seconds: dict[int, float], parallel: int) -> None:
    assert best_parallel(seconds) == parallel


@given(seconds=tables, factor=st.sampled_from([0.125, 0.5, 2.0, 64.0]))
def test_a_machine_that_is_slower_throughout_chooses_the_same(seconds: dict[int, float], factor: float) -> None:
    slower = {setting: each * factor for setting, each in seconds.items()}
    assert smallest_near_best(slower, 0.03) == smallest_near_best(seconds, 0.03)


@given(seconds=tables, data=st.data())
def test_samples_that_were_held_up_decide_nothing(seconds: dict[int, float], data: st.DataObject) -> None:
    """Fewer than half of the samples of each, however long they took."""
    found = cpu_tuning._Measurements()
    for setting, each in seconds.items():
        n_samples = data.draw(st.integers(1, 9))
        held_up = data.draw(st.lists(st.floats(1, 1e6), max_size=(n_samples - 1) // 2))
        samples = [each * factor for factor in held_up] + [each] * (n_samples - len(held_up))
        drawn = data.draw(st.permutations(samples))
        found.add({"table": "token", "setting": str(setting), "seconds": drawn, "disturbed": False})
    read = found.numbers("token", list(seconds))
    assert smallest_near_best(read, 0.03) == smallest_near_best(seconds, 0.03)


@given(seconds=tables, noise=st.floats(0, 0.2), data=st.data())
def test_noise_costs_no_more_than_it_is_large(seconds: dict[int, float], noise: float, data: st.DataObject) -> None:
    noisy = {setting: each * (1 + data.draw(st.floats(0, noise))) for setting, each in seconds.items()}
    chosen = smallest_near_best(noisy, 0.03)
    assert seconds[chosen] <= min(seconds.values()) * 1.03 * (1 + noise) * (1 + 1e-9)


@given(seconds=st.fixed_dictionaries(dict.fromkeys(UBATCHES, times)))
def test_batches_of_512_stay_unless_others_are_better(seconds: dict[int, float]) -> None:
    chosen = best_ubatch(seconds)
    best = min(seconds.values())
    assert seconds[chosen] <= best * 1.05
    if seconds[512] <= best * 1.05:
        assert chosen == 512
    else:
        assert all(seconds[smaller] > best * 1.05 for smaller in seconds if smaller < chosen)


def test_samples_are_taken_in_turns() -> None:
    """Each round goes the other way; those that were disturbed do not count where others do."""
    samples = iter([(1.0, 1.0), (2.0, 1.0), (2.0, 1.0), (7.0, 0.5)] + [(1.0, 1.0), (2.0, 1.0)] * 2)
    done: list[str] = []

    def take(run: Callable[[], object], n_threads: int, shortest: float) -> tuple[float, float]:
        run()
        return next(samples)

    def trial(name: str) -> TimedRun:
        return TimedRun(lambda: done.append(f"for {name}"), lambda: done.append(name), 1)

    found = time_interleaved({"a": trial("a"), "b": trial("b")}, 3, sample=take)
    assert [name for name in done if "for" not in name] == ["a", "b", *"ab", *"ba", *"ab", *"ba"]
    assert done[0::2] == [f"for {name}" for name in done[1::2]]
    assert not found["a"].disturbed
    assert found["a"].seconds == (1.0, 1.0, 2.0)
    assert found["b"].seconds == (2.0, 2.0, 2.0, 1.0)


def test_what_other_programs_always_disturb_is_said_to_be() -> None:
    def take(run: Callable[[], object], n_threads: int, shortest: float) -> tuple[float, float]:
        return 3.0, 0.4 if n_threads == 2 else 1.0

    nothing = {"calm": TimedRun(lambda: None, lambda: None, 1), "busy": TimedRun(lambda: None, lambda: None, 2)}
    found = time_interleaved(nothing, 5, AT_ONCE, take)
    assert (found["calm"].disturbed, found["busy"].disturbed) == (False, True)
    assert found["busy"].seconds == (3.0,) * 3


# --- Measuring and remembering ---------------------------------------------------------------------------------------


def test_what_the_process_says_is_remembered(script: Script) -> None:
    calls = script(thread_lines(), ubatch_lines() + attention_lines())
    progress: list[str] = []
    measured = measure_tuning(progress.append)
    assert measured.chosen == CHOSEN
    assert measured.token == TOKEN
    assert measured.ubatch == pytest.approx(UBATCH)
    assert measured.attention["q8_0 flash"] == (0.03, 0.8)
    assert recorded_tuning() == measured
    assert progress == ["CPU: 1, 2, 3, 4 threads (1 of 2)", "CPU: sizes of batches, attention (2 of 2)"]
    first, second = map(json.loads, calls.read_text().splitlines())
    assert first == ["threads", "1", "2", "3", "4"]
    options = ["--threads", "2", "--batch-threads", "3", "--answers", "1", "2", "4"]
    assert second == ["sizes", *options, "--", *map(str, UBATCHES)]


def test_by_rule_where_nothing_was_measured() -> None:
    assert recorded_tuning() is None
    assert host_settings() == HostSettings(CORES, CORES, 512)


def test_what_a_person_says_wins(recorded: Tuning) -> None:
    assert host_settings() == recorded.chosen == CHOSEN
    assert host_settings().most_threads == 3
    assert host_settings(1) == HostSettings(1, 1, 256, n_parallel=2)


def test_nothing_is_chosen_by_disturbed_times(script: Script) -> None:
    older = script(thread_lines(), ubatch_lines()) and measure_tuning()
    for threads, sizes, disturbed in (
        (thread_lines(disturbed=True), ubatch_lines(), 8),
        (thread_lines(), ubatch_lines(disturbed=True), 5),
    ):
        script(threads, sizes)
        assert measure_tuning().disturbed == disturbed
        assert recorded_tuning() == older


def test_disturbed_times_that_decide_nothing_do_no_harm(script: Script) -> None:
    script(thread_lines(), ubatch_lines() + attention_lines(disturbed=True))
    assert measure_tuning().disturbed == 0
    assert recorded_tuning() is not None


@pytest.mark.parametrize(
    ("threads", "sizes"),
    [
        ([], []),
        (thread_lines()[:-1], ubatch_lines()),
        (lines("token", TOKEN), ubatch_lines()),
        ([*thread_lines()[:3], {"dies": 134}], ubatch_lines()),
        (thread_lines(), []),
        (thread_lines(), [*ubatch_lines()[:4], {"text": '{"table": "uba'}, {"dies": 1}]),
    ],
)
def test_a_process_that_ends_early_chooses_nothing(threads: Lines, sizes: Lines, script: Script) -> None:
    script(threads, sizes)
    with pytest.raises(LibraryError, match="could not be measured"):
        measure_tuning()
    assert recorded_tuning() is None


def test_attention_is_not_needed(script: Script) -> None:
    script(thread_lines(), [*ubatch_lines(), *attention_lines()[:4], {"dies": 134}])
    assert measure_tuning().attention == {"f16": AttentionSeconds(0.01, 0.1)}
    assert recorded_tuning() is not None


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_record(script: Script, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    script(thread_lines(), ubatch_lines())
    assert measure_tuning().chosen == CHOSEN
    assert recorded_tuning() is None


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("usable_cores", lambda: (0, 1, 2, 5)),  # taskset, a container, another socket
        ("usable_cores", lambda: (0, 1)),
        ("usable_threads", lambda: 2),  # a container's limit of CPU time
        ("processor_name", lambda: "another CPU under the same name"),
        ("library_fingerprint", lambda: "another build"),
        ("machine_identity", lambda: "another machine or version"),
    ],
)
def test_the_record_of_other_circumstances_does_not_count(
    name: str, changed: Callable[[], Any], recorded: Tuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cpu_tuning, name, changed)
        assert recorded_tuning() is None
        assert host_settings().n_ubatch == 512
    assert recorded_tuning() == recorded  # it is still there for when they return


DAMAGES: Sequence[tuple[str, str]] = [
    ('"token"', '"tokens"'),
    ('"token": {', '"token": [{'),
    ('"token": {"1"', '"token": {"0"'),
    ('"token": {"1"', '"token": {"64"'),  # more than can run
    ('"token": {"1"', '"token": {"one"'),
    ('"batch": {"1": 0.3', '"batch": {"1": -0.3'),
    ('"batch": {"1": 0.3', '"batch": {"1": NaN'),
    ('"batch": {"1": 0.3', '"batch": {"1": "0.3'),
    ('"ubatch": {"128"', '"ubatch": {"129"'),
    ('"f16": [0.01, 0.1]', '"f16": [0.01]'),
    ('"f16": [0.01, 0.1]', '"f16": [0.01, 0]'),
    ('"attention": {', '"attention": 1, "other": {'),
    ('"measured_at": "20', '"measured_at": "on a Sunday in 20'),
    ("cores 0 1", "cores 1"),
]


@pytest.mark.parametrize(("whole", "damaged"), DAMAGES)
def test_a_damaged_record_does_not_count(whole: str, damaged: str, recorded: Tuning, own_cache: Path) -> None:
    record = own_cache / "tuning.json"
    text = record.read_text()
    assert whole in text
    record.write_text(text.replace(whole, damaged, 1))
    assert recorded_tuning() is None
    assert host_settings() == HostSettings(CORES, CORES, 512)


def test_half_a_record_does_not_count(recorded: Tuning, own_cache: Path) -> None:
    record = own_cache / "tuning.json"
    text = record.read_text()
    for length in range(len(text)):
        record.write_text(text[:length])
        assert recorded_tuning() is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Fast 9\nstepping\t: 4\n\nprocessor\t: 1\nmodel name\t: Slow 1\n", "Fast 9 4"),
        ("processor\t: 0\nCPU part\t: 0xd0c\n\nHardware\t: board\n", "0xd0c"),
    ],
)
def test_a_cpu_is_called_as_its_first_core(
    text: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(identity, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "unknown")
    assert identity.processor_name() == "unknown"
    (tmp_path / "cpuinfo").write_text(text)
    assert identity.processor_name() == expected


def test_instruction_sets_are_those_of_the_first_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(identity, "CPUINFO", tmp_path / "cpuinfo")
    assert identity.cpu_flags() == frozenset()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_int8\n\nprocessor\t: 1\nflags\t: fpu\n")
    assert identity.cpu_flags() == {"fpu", "avx2", "amx_int8"}
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd i8mm\n")
    assert identity.cpu_flags() == {"fp", "asimd", "i8mm"}


def test_the_installed_build_has_a_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    real = identity.library_fingerprint()
    assert re.fullmatch("[0-9a-f]{16}", real)
    record = importlib.metadata.distribution("llama-cpp-python").read_text("RECORD")
    assert record is not None
    monkeypatch.setattr(
        importlib.metadata.PathDistribution, "read_text", lambda self, name: record.replace("a", "b", 1)
    )
    assert identity.library_fingerprint() not in ("", real)


def test_the_real_process_measures() -> None:
    """Small matrices and one sample: that the graphs compute and every table has its lines."""
    full = WorkSizes()
    small = WorkSizes(
        width=256,
        weight_bytes=0,
        batch=8,
        ubatch_rows=16,
        decoding=replace(full.decoding, positions=64, layers=1),
        reading=replace(full.reading, positions=64, layers=1),
        waking=(1, 8),
    )
    with cpu_bench(AT_ONCE) as bench:
        said = [*thread_tables(bench, [1, 2], small), *size_tables(bench, 1, 2, [8, 16], [1, 2], small)]
        assert bench.n_threads == 2
    settings: dict[str, list[str]] = {}
    for line in json.loads(json.dumps(said)):
        assert len(line["seconds"]) == 3
        assert all(seconds > 0 for seconds in line["seconds"])
        settings.setdefault(line["table"], []).append(line["setting"])
    caches = list(ATTENTION)
    assert settings == {
        "token": ["1", "2"],
        "batch": ["1", "2"],
        "ubatch": ["8", "16"],
        "answers": ["1", "2"],
        "token attention": caches,
        "batch attention": caches,
    }


def test_each_rate_is_measured_with_its_threads() -> None:
    """Estimates are for the threads that models run with."""
    from internvl_gguf.llama.library import devices
    from internvl_gguf.llama.measure.rates import device_jobs

    cpu = next(device for device in devices() if device.kind == "cpu")
    threads = {job.table: job.n_threads for job in device_jobs(cpu, ("f16",), 2, 3)}
    assert threads == {
        "node_seconds": 2,
        "bandwidth": 2,
        "matrix_rate": 3,
        "plain_bandwidth": 2,
        "plain_matrix_rate": 3,
        "attention_bandwidth": 2,
        "attention_rate": 3,
        "encoder_rate": 3,
    }


def test_additions_between_matrices_are_computed() -> None:
    with (
        KernelBench(0, n_threads=1, reorders=True) as bench,
        bench.multiplying(GGMLQuantizationType.Q4_K, 256, 16, 2, 0, additions=3) as run,
    ):
        assert run is not None
        run()


# --- What runs by it -------------------------------------------------------------------------------------------------


def native(session: Session) -> tuple[int, int, int]:
    handle = engine_of(session).context.handle
    return (
        llama_cpp.llama_n_threads(handle),
        llama_cpp.llama_n_threads_batch(handle),
        llama_cpp.llama_n_ubatch(handle),
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, (2, 3, 256)), ({"n_threads": 1}, (1, 1, 256)), ({"n_ubatch": 64}, (2, 3, 64))],
)
def test_a_session_runs_as_it_was_measured(
    asked: dict[str, int],
    expected: tuple[int, int, int],
    recorded: Tuning,
    tiny: ModelFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoders: list[int] = []
    make = VisionEncoder.__init__

    def watched(self: VisionEncoder, *arguments: Any, **options: Any) -> None:
        encoders.append(options["n_threads"])
        make(self, *arguments, **options)

    monkeypatch.setattr(VisionEncoder, "__init__", watched)
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=512, **asked) as session:  # type: ignore[arg-type]
        assert native(session) == expected
        assert encoders[-1] == expected[1]
        request = session.runtime.configuration.request
        assert request.n_threads == max(expected[:2])  # the work buffer grows with it
        assert request.n_ubatch == expected[2]


def test_a_session_without_a_record_runs_by_rule(
    tiny: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "TOPOLOGY", write_topology(tmp_path / "hyper", [(0, 2), (1, 3)]))
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=1024) as session:
        assert native(session) == (2, 2, 512)


def test_small_batches_need_no_smaller_ubatch(tiny: ModelFiles) -> None:
    """n_ubatch is left open: it follows n_batch."""
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=1024, n_batch=96, n_threads=1) as session:
        assert native(session) == (1, 1, 96)


def placed(host_ubatch: int, budget: MemoryBudget, **config: Any) -> Configuration:
    """How the 14B in Q4_K_M is loaded."""
    listing = list_model("InternVL3-14B-Instruct")
    candidate = next(each for each in listing.candidates if each.quant == "Q4_K_M")
    shape = candidate.shape(candidate.encoders[0])
    return next(placements("m", shape, EngineConfig(n_ctx=8192, **config), 8192, 2, budget, host_ubatch))


def test_larger_batches_where_nothing_else_gives_way() -> None:
    usual = placed(512, MemoryBudget(32 * GIB))
    roomy = placed(2048, MemoryBudget(32 * GIB))
    assert (usual.request.n_ubatch, roomy.request.n_ubatch) == (512, 2048)
    missing = roomy.plan.total - usual.plan.total
    assert missing > GIB // 2
    tight = placed(2048, MemoryBudget(usual.plan.total + missing // 2))
    assert tight.request == usual.request
    smallest = placed(2048, MemoryBudget(usual.plan.total - 2**20))
    assert smallest.request.n_ubatch == 128


def test_smaller_batches_that_are_faster_are_taken() -> None:
    assert placed(256, MemoryBudget(32 * GIB)).request.n_ubatch == 256
    assert placed(256, MemoryBudget(32 * GIB), n_ubatch=1024).request.n_ubatch == 1024
    assert placed(2048, MemoryBudget(32 * GIB), n_batch=700).request.n_ubatch == 700


def test_a_gpu_is_not_what_was_measured() -> None:
    assert placed(2048, MemoryBudget(32 * GIB, (24 * GIB,))).request.n_ubatch == 512


def test_the_choice_of_a_quant_knows_them(recorded: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr("internvl_gguf.planning.auto_quant.choose", lambda *arguments: asked.append(arguments))
    machine_chooser(EngineConfig())(None)  # type: ignore[arg-type]
    machine_chooser(EngineConfig(n_threads=1))(None)  # type: ignore[arg-type]
    assert [(arguments[2], arguments[5]) for arguments in asked] == [(3, 256), (1, 256)]


def test_the_picker_shows_what_will_run(recorded: Tuning) -> None:
    done = CliRunner().invoke(app, ["pick", "demo", "--json"])
    assert done.exit_code == 0
    assert {pick["n_ubatch"] for pick in json.loads(done.stdout)["picks"]} == {256}


# --- What the doctor says --------------------------------------------------------------------------------------------


@pytest.fixture
def no_roofline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A roofline of one rate; gives the file in which its process notes how it was called."""
    calls, program = tmp_path / "roofline calls", tmp_path / "roofline.py"
    device = {"device": 0, "kind": "cpu", "name": "CPU", "description": "a cpu", "jobs": 1}
    job = {"device": 0, "job": 1, "table": "bandwidth", "key": "q4_k", "amount": 1e9, "seconds": [1, 2]}
    said = [json.dumps(line) for line in (device, job | {"disturbed": False})]
    program.write_text(f"import sys\nopen({str(calls)!r}, 'w').write(' '.join(sys.argv))\nprint(*{said!r}, sep='\\n')")
    monkeypatch.setattr(rooflines, "_COMMAND", (sys.executable, "-S", str(program)))
    return calls


def doctor(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_the_doctor_says_what_was_chosen_and_when(script: Script, no_roofline: Path) -> None:
    assert f"threads        {CORES}, one for each physical core; `internvl doctor --measure`" in doctor()
    script(thread_lines(), ubatch_lines() + attention_lines())
    shown = doctor("--measure")
    assert "threads        2 for a token, 3 for batches and pictures; batches of 256 on the CPU: measured 20" in shown
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "2 threads 1.01 1.47 for a token" in rows
    assert "3 threads 1.00 1.01 for batches" in rows
    assert "4 threads 1.05 1.00" in rows
    assert "batches of 256 1.00 for prompts" in rows
    assert "batches of 512 1.10" in rows
    assert "f16 1.00 1.00 1.00" in rows
    assert "2 1.67 by serve" in rows
    assert "at once 2 answers by `internvl serve`: measured" in rows
    assert "q8_0 flash 3.00 8.00 0.53" in rows
    assert "not chosen by speed: they change what the model says (docs/parity.md)" in shown
    assert "--threads 2 --batch-threads 3 " in no_roofline.read_text()  # estimates are for what will run
    after = doctor()
    assert "2 for a token" in after
    assert "1 token" not in after


def test_the_doctor_has_it_in_json(script: Script, no_roofline: Path) -> None:
    most_faithful_precision = json.loads(doctor("--json"))
    assert most_faithful_precision["host"] == {
        "n_threads": CORES,
        "n_threads_batch": CORES,
        "n_ubatch": 512,
        "n_parallel": 1,
        "measured_at": None,
        "disturbed_measurements": 0,
        "seconds": None,
    }
    assert most_faithful_precision["library"]["threads"] == CORES
    script(thread_lines(), ubatch_lines() + attention_lines())
    for arguments in (["--measure", "--json"], ["--json"]):
        found = json.loads(doctor(*arguments))
        host = found["host"]
        assert (host["n_threads"], host["n_threads_batch"], host["n_ubatch"], host["n_parallel"]) == (2, 3, 256, 2)
        assert host["measured_at"].startswith("20")
        assert host["seconds"]["one_token_by_threads"] == {str(count): each for count, each in TOKEN.items()}
        assert host["seconds"]["attention"]["f16 flash"] == {"token": 0.018, "batch": 0.09}
        assert found["library"]["threads"] == 2


def test_the_doctor_says_that_nothing_was_chosen(script: Script, no_roofline: Path) -> None:
    script(thread_lines(disturbed=True), ubatch_lines() + attention_lines())
    shown = doctor("--measure")
    assert "Other programs disturbed 8 of these times, so nothing was chosen by them and nothing recorded." in shown
    assert "for a token" not in shown
    assert "for prompts" not in shown
    assert f"threads        {CORES}, one for each physical core" in shown
    host = json.loads(doctor("--measure", "--json"))["host"]
    assert (host["n_threads"], host["measured_at"], host["disturbed_measurements"]) == (CORES, None, 8)
    assert f"--threads {CORES} --batch-threads {CORES} " in no_roofline.read_text()


def test_a_roofline_is_measured_even_where_threads_are_not(script: Script, no_roofline: Path) -> None:
    script([], [])
    shown = doctor("--measure")
    assert "Threads and batches could not be measured" in shown
    assert "q4_k" in shown


class Terminal(io.StringIO):
    """What a terminal would show."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        return re.sub("\x1b\\[[0-9;]*m", "", self.getvalue()).splitlines()


@pytest.mark.parametrize("columns", [30, 46, 80, 120])
def test_the_doctor_fits_the_terminal(columns: int, recorded: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    app(["doctor"], standalone_mode=False)
    machine_tuning.print_tuning(recorded)
    machine_tuning.print_tuning(tuned(disturbed=3))
    lines = [line for line in terminal.shown() if " " in line.strip()]  # a long word, as a path is, stays whole
    assert [line for line in lines if len(line) > columns] == []
    text = " ".join(terminal.getvalue().split())
    assert "2 for a token, 3 for batches and pictures" in text
    assert "for prompts" in text
    assert "Other programs disturbed 3 of these times" in text
