"""Consequences and records of a failed trial; a stand-in library fails in every way, on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from internvl_gguf import LibraryError
from internvl_gguf.cli.cache_contents import cache_contents, clear_caches
from internvl_gguf.hardware.trial import Needs, find_usable_settings, try_step
from internvl_gguf.hardware.trial import record as records
from internvl_gguf.hardware.trial.circumstances import Circumstances, circumstances
from internvl_gguf.hardware.trial.outcomes import Outcome
from internvl_gguf.hardware.trial.record import Entry, record, recorded
from internvl_gguf.hardware.trial.steps import Step
from internvl_gguf.hardware.trial.trial_process import trial_process
from internvl_gguf.hardware.trial.trial_report import trial_report
from internvl_gguf.utils.paths import cache_dir

STAND_IN = Path(__file__).parents[1] / "support" / "trial_stand_in.py"
ALL = ("weights Q4_K", "weights F16", "attention f16", "flash attention f16", "flash attention q8_0", "encoder F16")
OF_EXPERTS = ("experts Q4_K", "experts Q6_K")
Q4_K = Needs(frozenset(("Q4_K",)), frozenset(("F16",)))
MOE = Needs(frozenset(("F16",)), frozenset(("F16",)), expert_kinds=frozenset(("Q4_K",)), head_norms=True)
F16 = Needs(frozenset(("F16",)), frozenset(("F16",)))
GPU = {"CUDA0": "NVIDIA Something"}

Plan = Callable[..., Path]


@dataclass
class Library:
    """A library on trial that fails as it is told.

    Attributes:
        path: its plan.
    """

    path: Path

    def fails(self, **fates: dict[str, str]) -> None:
        """What becomes of checks, by their names with spaces as underscores, in each step."""
        plan: dict[str, dict[str, str]] = {name: {"*": "right"} for name in ALL}
        spelled = {name.replace(" ", "_"): name for name in (*ALL, *OF_EXPERTS)}
        plan |= {spelled.get(name, name.replace("_", " ")): by_step for name, by_step in fates.items()}
        self.path.write_text(json.dumps(plan))

    @property
    def tried(self) -> list[str]:
        """The steps that were tried, one for each process."""
        starts = Path(f"{self.path}.starts")
        return starts.read_text().splitlines() if starts.exists() else []


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library that was never tried, in a cache folder of its own."""
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(records, "_in_this_process", {})
    path = tmp_path / "plan.json"
    monkeypatch.setattr(try_step, "COMMAND", (sys.executable, str(STAND_IN), str(path)))
    made = Library(path)
    made.fails()
    return made


@pytest.fixture
def next_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets what only this process knows."""
    return lambda: monkeypatch.setattr(records, "_in_this_process", {})


def test_a_library_that_works_is_tried_once(library: Library, next_process: Callable[[], None]) -> None:
    settled = find_usable_settings(Q4_K)
    assert (settled.extra_buffers, settled.flash_attn, settled.positions_are_shifted) == (True, True, True)
    assert settled.notices == ()
    next_process()
    assert find_usable_settings(Q4_K) == find_usable_settings(F16) == settled
    assert library.tried == ["CPU"]


@pytest.mark.parametrize("name", ["SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"])
def test_kernels_that_die_are_left_out(library: Library, next_process: Callable[[], None], name: str) -> None:
    """The story of GCC 12 and AMX: every quantised model ended the process at its first computation, without a word."""
    library.fails(weights_Q4_K={"CPU": name, "CPU, no flash": name})
    settled = find_usable_settings(Q4_K)
    assert (settled.extra_buffers, settled.flash_attn) == (False, True)
    (notice,) = settled.notices
    assert notice == (
        f"AMX kernels of this llama.cpp build crash here (Q4_K weights: {name}); the plain ones are used. "
        "`internvl doctor` says how to build one that works."
    )
    assert library.tried == ["CPU", "CPU", "CPU, plain"], "the checks behind the one that died are done by another"
    next_process()
    assert find_usable_settings(Q4_K) == replace(settled, notices=()), "a person is told once"
    assert len(library.tried) == 3


def test_a_model_that_does_not_need_what_fails_keeps_everything(library: Library) -> None:
    library.fails(weights_Q4_K={"*": "SIGILL"})
    assert find_usable_settings(F16).extra_buffers
    assert find_usable_settings(F16).notices == ()
    with pytest.raises(LibraryError, match="on this CPU: the trial with Q4_K weights was killed by SIGILL"):
        find_usable_settings(Q4_K)


def test_experts_are_tried_for_the_first_model_that_has_some_and_no_other(
    library: Library, next_process: Callable[[], None]
) -> None:
    """Products with matrices of experts are kernels of their own, in each type; few models have any."""
    library.fails(experts_Q4_K={"*": "right"}, experts_Q6_K={"*": "right"})
    settled = find_usable_settings(Q4_K)
    assert library.tried == ["CPU"]
    assert not any("experts" in name for name in recorded(circumstances()).steps["CPU"])
    assert find_usable_settings(MOE) == settled
    next_process()
    assert find_usable_settings(MOE) == settled
    assert library.tried == ["CPU", "CPU"]
    known = recorded(circumstances()).steps["CPU"]
    assert known.keys() == {*ALL, "experts Q4_K"}, "of the types that a file holds, beside all that was known"
    find_usable_settings(MOE, GPU)
    assert set(recorded(circumstances()).steps["CUDA0 (NVIDIA Something)"]) == set(MOE.checks(Step("CUDA0")) or ())


@pytest.mark.parametrize(("fate", "what"), [("SIGILL", "crash"), ("wrong", "compute wrong")])
def test_experts_whose_reordered_kernels_fail_get_the_plain_ones(library: Library, fate: str, what: str) -> None:
    """A dense model of the same type keeps the reordered ones, which work for it."""
    library.fails(experts_Q4_K={"CPU": fate})
    assert find_usable_settings(Q4_K).extra_buffers
    settled = find_usable_settings(MOE)
    assert not settled.extra_buffers
    assert settled.notices[0].startswith(f"AMX kernels of this llama.cpp build {what} here (Q4_K experts: ")
    assert find_usable_settings(Q4_K).extra_buffers
    report = trial_report({}).tried["CPU"]
    assert [(tried.step.name, set(tried.failed)) for tried in report] == [
        ("CPU", {"experts Q4_K"}),
        ("CPU, plain", set()),
    ]


def test_experts_that_fail_in_every_way_are_refused(library: Library) -> None:
    library.fails(experts_Q4_K={"*": "SIGILL"})
    with pytest.raises(LibraryError, match="on this CPU: the trial with Q4_K experts was killed by SIGILL"):
        find_usable_settings(MOE)
    assert find_usable_settings(Q4_K).extra_buffers


def test_experts_whose_trial_may_have_been_an_accident_are_tried_again(
    library: Library, next_process: Callable[[], None]
) -> None:
    library.fails(experts_Q4_K={"CPU": "SIGKILL"})
    assert not find_usable_settings(MOE).extra_buffers
    next_process()
    library.fails(experts_Q4_K={"*": "right"})
    assert find_usable_settings(MOE).extra_buffers


def test_norms_of_heads_that_fail_concern_models_that_have_them(library: Library) -> None:
    library.fails(norms_of_heads={"*": "wrong"})
    assert find_usable_settings(F16).extra_buffers
    with pytest.raises(LibraryError, match="the answer with norms of heads is 80% off"):
        find_usable_settings(MOE)


def test_an_answer_that_is_wrong_counts_as_much_as_a_death(library: Library) -> None:
    library.fails(weights_Q4_K={"CPU": "wrong"})
    settled = find_usable_settings(Q4_K)
    assert not settled.extra_buffers
    assert "AMX kernels of this llama.cpp build compute wrong here" in settled.notices[0]
    assert "Q4_K weights: is 80% off, where 10% are allowed" in settled.notices[0]


def test_flash_attention_is_left_out_where_it_is_wanted_and_fails(library: Library) -> None:
    library.fails(flash_attention_f16={"CPU": "SIGILL", "CPU, plain": "SIGILL"})
    assert find_usable_settings(Q4_K).flash_attn, 'a CPU does not use it for "auto"'
    settled = find_usable_settings(replace(Q4_K, flash_attn=True))
    assert (settled.extra_buffers, settled.flash_attn) == (True, False)
    assert settled.notices == (
        "Flash attention of this llama.cpp build crashes here (flash attention over an f16 cache: SIGILL); it is left "
        "off. `internvl doctor` says how to build one that works.",
    )


def test_a_quantised_cache_cannot_do_without_flash_attention(library: Library) -> None:
    library.fails(flash_attention_q8_0={"*": "wrong"})
    with pytest.raises(LibraryError, match="the answer with flash attention over an q8_0 cache is 80% off"):
        find_usable_settings(replace(Q4_K, kv_type="q8_0"))
    assert find_usable_settings(Q4_K).flash_attn


def test_both_are_left_out_where_both_fail(library: Library) -> None:
    library.fails(
        weights_Q4_K={"CPU": "SIGILL", "CPU, no flash": "SIGILL"},
        flash_attention_f16={"CPU": "SIGILL", "CPU, plain": "SIGILL"},
    )
    settled = find_usable_settings(replace(Q4_K, flash_attn=True))
    assert (settled.extra_buffers, settled.flash_attn) == (False, False)
    assert settled.notices[0].startswith("AMX kernels and flash attention of this llama.cpp build crash here")


def test_a_device_that_fails_is_left_out(library: Library, next_process: Callable[[], None]) -> None:
    library.fails(weights_Q4_K={"CUDA0": "SIGABRT", "CUDA0, no flash": "SIGABRT"})
    settled = find_usable_settings(Q4_K, GPU)
    assert settled.unusable == {"CUDA0"}
    assert (settled.extra_buffers, settled.flash_attn) == (True, True), "the CPU is none the worse"
    assert settled.notices == (
        "CUDA0 (NVIDIA Something) is left out: this llama.cpp build does not work on it (Q4_K weights: SIGABRT). "
        "`internvl doctor` says how to build one that works.",
    )
    # Extra buffers are the CPU's alone.
    assert library.tried == ["CPU", "CUDA0", "CUDA0", "CUDA0, no flash", "CUDA0, no flash"]
    assert find_usable_settings(F16, GPU).unusable == frozenset()


def test_a_device_is_tried_with_what_a_model_needs_and_no_more(
    library: Library, next_process: Callable[[], None]
) -> None:
    """A driver that compiles its kernels takes seconds for each: all of them took minutes on Mesa's lavapipe."""
    gpu = "CUDA0 (NVIDIA Something)"
    find_usable_settings(Q4_K, GPU)
    assert set(recorded(circumstances()).steps[gpu]) == {"weights Q4_K", "flash attention f16", "encoder F16"}
    next_process()
    find_usable_settings(F16, GPU)
    assert set(recorded(circumstances()).steps[gpu]) == {*(Q4_K.checks(Step("CUDA0")) or ()), "weights F16"}
    find_usable_settings(Needs(frozenset(("Q9_X",))), GPU)  # which there is no check of
    find_usable_settings(Needs(frozenset(("Q9_X",))), GPU)
    assert library.tried == ["CPU", "CUDA0", "CUDA0", "CUDA0"]
    trial_report(GPU)
    find_usable_settings(replace(Q4_K, kv_type="q8_0"), GPU)
    assert library.tried[4:] == ["CUDA0"], "the doctor tried all"


def test_another_device_of_the_same_name_is_tried_anew(library: Library) -> None:
    find_usable_settings(Q4_K, GPU)
    find_usable_settings(Q4_K, {"CUDA0": "NVIDIA Something Else"})
    assert library.tried == ["CPU", "CUDA0", "CUDA0"]


def test_a_device_whose_trial_dies_before_its_first_check_is_left_out(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_usable_settings(Q4_K)
    monkeypatch.setattr(try_step, "COMMAND", (sys.executable, "-c", "import sys; sys.exit('Error: no such driver')"))
    settled = find_usable_settings(Q4_K, GPU)
    assert settled.unusable == {"CUDA0"}
    assert "Error: no such driver" in settled.notices[0]


def test_flash_attention_that_fails_on_a_device_keeps_the_device(library: Library) -> None:
    library.fails(flash_attention_f16={"CUDA0": "SIGABRT"})
    settled = find_usable_settings(Q4_K, GPU)
    assert (settled.unusable, settled.flash_attn) == (frozenset(), False)
    assert "crashes on CUDA0" in settled.notices[0]


def test_a_refusal_names_the_command_that_builds_a_library(library: Library) -> None:
    library.fails(weights_F16={"*": "SIGILL"})
    with pytest.raises(LibraryError) as caught:
        find_usable_settings(F16)
    assert "SIGILL (an instruction that this CPU lacks" in caught.value.message
    assert "pip install --force-reinstall --no-deps --no-cache-dir llama-cpp-python==" in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_an_encoder_that_computes_something_unknown_is_refused(library: Library) -> None:
    library.fails(encoder_F16={"*": "wrong"})
    with pytest.raises(LibraryError, match="the answer with a vision encoder in F16 is 80% off"):
        find_usable_settings(Q4_K)


def test_a_trial_that_hangs_is_ended_and_tried_again_by_the_next_process(
    library: Library, next_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(try_step, "_TIMEOUT", 4.0)
    library.fails(weights_Q4_K={"CPU": "hang"})
    settled = find_usable_settings(Q4_K)
    assert not settled.extra_buffers
    assert "build hang here (Q4_K weights: gave no answer in 4 seconds)" in settled.notices[0]
    assert find_usable_settings(Q4_K) == replace(settled, notices=()), "not within this process"
    next_process()
    library.fails()
    assert find_usable_settings(Q4_K).extra_buffers


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "refused"])
def test_what_may_have_been_an_accident_is_tried_again(
    library: Library, next_process: Callable[[], None], name: str
) -> None:
    """Killed for want of memory, by a person, or no memory on the device: not the library's fault."""
    library.fails(weights_Q4_K={"CPU": name})
    assert not find_usable_settings(Q4_K).extra_buffers
    next_process()
    library.fails()
    settled = find_usable_settings(Q4_K)
    assert settled.extra_buffers
    assert settled.notices == ()


def test_a_process_that_dies_before_its_first_check(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(try_step, "COMMAND", (sys.executable, "-c", "import sys; sys.exit('Error: no such thing')"))
    with pytest.raises(LibraryError, match=r"ended with status 1 \(Error: no such thing\)"):
        find_usable_settings(Q4_K)


def test_a_library_that_dies_of_everything_ends(library: Library) -> None:
    library.fails(**{f"weights_{number}": {"*": "SIGILL"} for number in range(20)})
    with pytest.raises(LibraryError, match="SIGILL"):
        find_usable_settings(Needs(frozenset(("19",))))
    assert library.tried.count("CPU") == try_step._MOST_DEATHS


def test_ctrl_c_leaves_no_process_behind() -> None:
    pids = []

    def interrupted() -> None:
        with trial_process([sys.executable, "-c", "input(); input()"], {}, 60) as process:
            pids.append(process._child.process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not psutil.pid_exists(pids[0])


# The record.


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 2, "entries": {}}', b'{"version": 1, "entries": []}', b"null"],
)
def test_a_damaged_record_is_tried_again(library: Library, next_process: Callable[[], None], content: bytes) -> None:
    find_usable_settings(Q4_K)
    (cache_dir() / "trial.json").write_bytes(content)
    next_process()
    assert find_usable_settings(Q4_K).positions_are_shifted
    assert library.tried == ["CPU", "CPU"]
    next_process()
    find_usable_settings(Q4_K)
    assert library.tried == ["CPU", "CPU"]


@pytest.mark.parametrize(
    "damage",
    [
        {"steps": 5},
        {"steps": {"CPU": {"weights Q4_K": {"kind": "splendid"}}}},
        {"steps": {"CPU": {"weights Q4_K": {"kind": "right", "unknown": 1}}}},
        {"steps": {"CPU": {"weights Q4_K": {"kind": "right", "distance": float("nan")}}}},
        {"steps": {"CPU": {"weights Q4_K": {"kind": "right", "shifted": "yes"}}}},
        {"features": None},
        {"tried_at": ...},
    ],
    ids=str,
)
def test_a_damaged_entry_is_tried_again(
    library: Library, next_process: Callable[[], None], damage: dict[str, Any]
) -> None:
    find_usable_settings(Q4_K)
    path = cache_dir() / "trial.json"
    kept = json.loads(path.read_bytes())
    entry = kept["entries"][circumstances().digest]
    entry.update(damage)
    if damage.get("tried_at") is ...:
        del entry["tried_at"]
    path.write_text(json.dumps(kept))
    next_process()
    assert find_usable_settings(Q4_K).positions_are_shifted
    assert library.tried == ["CPU", "CPU"]


def elsewhere(number: int) -> Circumstances:
    """Another machine."""
    return Circumstances("/lib", f"another CPU {number}", "", f"{number:032}")


def test_a_home_folder_of_two_machines_keeps_both(library: Library, next_process: Callable[[], None]) -> None:
    """The same environment on a node with AMX and on one without: each has its own entry, and none is lost."""
    here = circumstances()
    record(elsewhere(1), Entry(imports=True, steps={"CPU": {"weights Q4_K": Outcome("wrong", "is off")}}))
    find_usable_settings(Q4_K)
    record(elsewhere(2), Entry(imports=True))
    next_process()
    assert set(recorded(here).steps) == {"CPU"}
    assert recorded(elsewhere(1)).steps["CPU"]["weights Q4_K"].kind == "wrong"
    assert recorded(elsewhere(2)).imports
    assert recorded(elsewhere(3)) == Entry()


def test_the_record_is_bounded(library: Library, next_process: Callable[[], None]) -> None:
    for number in range(20):
        record(elsewhere(number), Entry(imports=True))
    next_process()
    assert [number for number in range(20) if recorded(elsewhere(number)).imports] == list(range(4, 20))


def test_two_processes_that_record_at_once_lose_nothing(library: Library, next_process: Callable[[], None]) -> None:
    script = (
        "import sys\n"
        "from internvl_gguf.hardware.trial.circumstances import Circumstances\n"
        "from internvl_gguf.hardware.trial.record import Entry, record\n"
        "for step in range(10):\n"
        "    assert record(Circumstances('', '', '', sys.argv[1]), Entry(True, steps={f'step {step}': {}})) is None\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(number) * 32]) for number in (1, 2, 3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    for number in (1, 2, 3):
        found = recorded(Circumstances("", "", "", str(number) * 32))
        assert set(found.steps) == {f"step {step}" for step in range(10)}


def test_two_processes_that_try_at_once_agree(library: Library, next_process: Callable[[], None]) -> None:
    script = (
        "import sys\n"
        "from internvl_gguf.hardware.trial import Needs, find_usable_settings, try_step\n"
        "try_step.COMMAND = tuple(sys.argv[1:])\n"
        "print(find_usable_settings(Needs(frozenset(('Q4_K',)))).extra_buffers)\n"
    )
    library.fails(weights_Q4_K={"CPU": "SIGILL"})
    command = [sys.executable, "-c", script, *try_step.COMMAND]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["False", "False"]
    assert not find_usable_settings(Q4_K).extra_buffers
    assert set(library.tried) == {"CPU", "CPU, plain"}


def test_a_cache_that_cannot_be_written_costs_a_trial_each_time_and_one_notice(
    library: Library,
    next_process: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "file"))  # not even root can write into it
    settled = find_usable_settings(Q4_K)
    assert settled.positions_are_shifted
    (notice,) = settled.notices
    assert "cannot be kept" in notice
    assert find_usable_settings(Q4_K).notices == ()
    assert library.tried == ["CPU"]
    next_process()
    assert find_usable_settings(Q4_K) == settled
    assert library.tried == ["CPU", "CPU"]


def test_it_is_one_of_the_caches(library: Library, next_process: Callable[[], None]) -> None:
    find_usable_settings(Q4_K)
    (measured,) = (cache for cache in cache_contents() if cache.name == "measured")
    assert measured.entries == 1
    assert clear_caches(everything=True) >= measured.n_bytes > 0
    assert not (cache_dir() / "trial.json").exists()


def test_another_library_or_cpu_or_driver_is_tried_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = circumstances()
    assert before == circumstances()
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "libggml-cpu.so.0").write_bytes(b"one")
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(folder))
    other = circumstances()
    os.utime(folder / "libggml-cpu.so.0", ns=(1, 1))
    touched = circumstances()
    monkeypatch.setattr("internvl_gguf.hardware.trial.circumstances.cpu_flags", lambda: frozenset(("amx_tile",)))
    flags = circumstances()
    monkeypatch.setattr("internvl_gguf.hardware.trial.circumstances._DRIVERS", (folder / "version",))
    (folder / "version").write_text("570.1\n")
    driver = circumstances()
    assert driver.driver == "570.1"
    monkeypatch.setattr("internvl_gguf.hardware.trial.circumstances._DRIVER_FOLDERS", (str(folder),))
    (folder / "libvulkan_lvp.so").write_bytes(b"one")
    mesa = circumstances()
    assert len({each.digest for each in (before, other, touched, flags, driver, mesa)}) == 6


# What the doctor says.


def test_the_doctor_tells_what_fails_and_what_is_used(library: Library) -> None:
    library.fails(weights_Q4_K={"CPU": "SIGILL"})
    report = trial_report(GPU)
    assert report.problems == []
    assert report.reductions
    assert [text for _, text in report.rows[:3]] == [
        "CPU: 1 of 6 checks fail: Q4_K weights: SIGILL",
        "CPU: all 6 checks right without reordered weights",
        "CUDA0: all 6 checks right",
    ]
    assert "pip install" in report.rows[-1][1]
    plain = json.loads(json.dumps(report.plain()))
    assert plain["devices"]["CPU"][0]["failed"]["weights Q4_K"]["signal"] == "SIGILL"
    assert plain["devices"]["CPU"][1] == {"extra_buffers": False, "flash_attn": True, "checks": 6, "failed": {}}


def test_the_doctor_has_a_problem_where_nothing_works(library: Library) -> None:
    library.fails(weights_Q4_K={"*": "SIGILL"}, encoder_F16={"*": "wrong"})
    report = trial_report({})
    (problem,) = report.problems
    assert problem.startswith("llama.cpp fails on this CPU: 2 of 6 checks fail")
    assert "Build it for this machine" in problem
    assert report.positions_are_shifted is None
