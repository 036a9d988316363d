"""The runner of `internvl bench` over real processes: what is measured, and what becomes of what goes wrong."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from internvl_gguf import Session
from internvl_gguf.bench.benchmark_plan import BenchmarkPlan, MeasurementSettings, PlannedRun
from internvl_gguf.bench.jobs import Job, SpeedJob
from internvl_gguf.bench.ladder import demo_ladder
from internvl_gguf.bench.pairs import FilePair
from internvl_gguf.bench.peak_memory import peak_resident
from internvl_gguf.bench.process import Listener, ask_machine, run_job
from internvl_gguf.bench.results import Row
from internvl_gguf.bench.runner import Runner
from internvl_gguf.bench.speed import built_in_picture, measure_rates
from internvl_gguf.bench.store import Store
from internvl_gguf.bench.targets import PairFinder, RequestedModels
from internvl_gguf.images.load import load_image
from internvl_gguf.models.local_files import ModelFiles, demo_files
from internvl_gguf.tiling import tile_image
from internvl_gguf.utils.records import BENCHMARKS
from tests.support.bench_plans import fast, find, names, planned, write_quants
from tests.support.tiny_models import write_tiny_text

GIB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_quants(tmp_path_factory.mktemp("quants"))


# Measuring, in processes of their own.


class Recorder:
    """A watcher that writes down what it is told, and may step in."""

    def __init__(
        self, on_begin: Callable[[int], object] | None = None, on_stage: Callable[[int], object] | None = None
    ) -> None:
        self.place = -1
        self.stages: list[tuple[int, str, float]] = []
        self.ends: list[tuple[str, float | None]] = []
        self.said: list[str] = []
        self._on_begin, self._on_stage = on_begin, on_stage

    def begin(self, place: int, planned: PlannedRun) -> None:
        self.place = place
        if self._on_begin:
            self._on_begin(place)

    def fetch(self, pair: FilePair) -> ModelFiles:
        return pair.fetch(lambda file, done: None, self.said.append)

    def stage(self, what: str, done: float, left: float | None) -> None:
        self.stages.append((self.place, what, done))
        if self._on_stage:
            self._on_stage(self.place)

    def end(self, row: Row, seconds: float | None, left: float | None) -> None:
        self.ends.append((row.status, seconds))

    def say(self, line: str) -> None:
        self.said.append(line)


def children() -> list[psutil.Process]:
    """The processes that measure for this one."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if "internvl_gguf.bench.child" in process.cmdline()]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where results are kept from one run to the next."""
    return tmp_path / "results"


def run(plan: BenchmarkPlan, results: Path, recorder: Recorder | None = None) -> tuple[tuple[Row, ...], Runner]:
    runner = Runner(plan, Store(results), "build", recorder or Recorder())
    return runner.run(), runner


def test_whatever_becomes_of_one_configuration_the_others_go_on(folder: Path, results: Path, tmp_path: Path) -> None:
    """One is killed, one has no memory by the plan, the file of one goes missing in the middle, one is measured."""
    for name in ("tiny-BF16.gguf", "tiny-Q8_0.gguf", "mmproj-F16.gguf"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    plan = planned(find(f"{tmp_path}:BF16,Q8_0"), sweep=fast(n_ctx=(512, 2**27)))
    gone = tmp_path / "tiny-BF16.gguf"

    def lose(place: int) -> None:
        if place == 1:
            gone.unlink()

    def kill(place: int) -> None:
        for process in children() if place == 0 else ():
            process.kill()

    (killed, lost, measured, too_large), runner = run(plan, results, Recorder(lose, kill))
    if sys.platform != "win32":
        assert killed.status == "out of memory"
        assert "killed" in killed.error
    assert killed.speed is None
    assert lost.status == "failed"
    assert "tiny-BF16.gguf is gone" in lost.error
    assert measured.status == "measured"
    assert too_large.status == "out of memory"
    assert "does not fit this machine" in too_large.error
    assert not runner.is_interrupted
    assert children() == []


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(folder: Path, results: Path) -> None:
    pairs = find(f"{folder}:BF16,Q8_0", mmprojs=("F16",))

    def interrupt(place: int) -> None:
        if place == 1:
            raise KeyboardInterrupt

    rows, runner = run(planned(pairs), results, Recorder(on_stage=interrupt))
    assert runner.is_interrupted
    assert [row.status for row in rows] == ["measured", "not run"]
    assert "Interrupted" in rows[1].error
    assert children() == []
    recorder = Recorder()
    again, runner = run(planned(pairs), results, recorder)
    assert not runner.is_interrupted
    assert again[0] == rows[0]
    assert again[1].status == "measured"
    assert recorder.ends[0] == ("measured", None)
    assert runner.notices == ["What an earlier run measured is in 1 of 2 rows; --fresh measures it anew."]
    assert {place for place, _, _ in recorder.stages} == {1}


def test_files_that_another_program_damages(folder: Path, results: Path, tmp_path: Path) -> None:
    """Checked when it was planned, cut afterwards: the process says so, and nothing of it is kept."""
    for name in ("tiny-BF16.gguf", "mmproj-F16.gguf"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    plan = planned(find(tmp_path))
    path = tmp_path / "tiny-BF16.gguf"
    (row,), _ = run(plan, results, Recorder(on_begin=lambda place: path.write_bytes(path.read_bytes()[:-4096])))
    assert row.status == "failed"
    assert "tiny-BF16.gguf" in row.error
    assert "Traceback" not in row.error


def test_quality_against_a_reference_that_comes_second(folder: Path, results: Path, tmp_path: Path) -> None:
    """The reference is run first wherever it stands; a quant that is added later is scored against what it wrote."""
    text = tmp_path / "words.txt"
    text.write_text("The thing on the ring: an inner one, the other on and on.\n" * 20)
    measurements = MeasurementSettings(frozenset({"quality"}), 1, text=str(text), pictures="off")
    two = find(f"{folder}:Q8_0,BF16", mmprojs=("F16",))
    plan = planned(two, measurements)
    assert plan.reference == 1
    (other, reference), runner = run(plan, results)
    assert runner.notices == []
    assert reference.quality
    assert other.quality
    assert reference.quality.text
    assert other.quality.text
    assert reference.quality.text.mean < 1e-6 < 1e-3 < other.quality.text.mean
    recorder = Recorder()
    three = find(f"{folder}:Q8_0,BF16,UD-Q4_K_XL", mmprojs=("F16",))
    rows, _ = run(planned(three, measurements), results, recorder)
    assert rows[:2] == (other, reference)
    assert {place for place, _, _ in recorder.stages} == {2}
    assert rows[2].quality
    assert rows[2].quality.text
    assert rows[2].quality.text.reference_perplexity == pytest.approx(reference.quality.text.perplexity, rel=1e-3)
    # Its distributions are large and may be gone: nobody misses them until a new quant is to be scored.
    shutil.rmtree(BENCHMARKS.path / "references")
    recorder = Recorder()
    assert run(planned(three, measurements), results, recorder)[0] == rows
    assert recorder.stages == []
    fourth = write_tiny_text(tmp_path / "tiny-Q2_K.gguf", seed=9, n_ctx=1024)
    added = [*three, *find(fourth, mmprojs=(str(folder / "mmproj-F16.gguf"),))]
    rows, _ = run(planned(added, measurements), results, recorder)
    assert any("expects is not kept any more" in line for line in recorder.said)
    assert rows[3].quality
    assert rows[3].quality.text
    assert rows[3].quality.text.mean > 1e-3


def test_without_its_reference_quality_is_left_out_and_said_so(folder: Path, results: Path, tmp_path: Path) -> None:
    for name in ("tiny-BF16.gguf", "tiny-Q8_0.gguf", "mmproj-F16.gguf"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    measurements = MeasurementSettings(frozenset({"speed", "quality"}), 1, pictures="off")
    plan = planned(find(f"{tmp_path}:BF16,Q8_0"), measurements)
    gone = tmp_path / "tiny-BF16.gguf"
    (lost, other), runner = run(plan, results, Recorder(on_begin=lambda place: gone.unlink(missing_ok=True)))
    assert lost.status == "failed"
    assert other.status == "measured"
    assert other.speed
    assert other.quality is None
    assert runner.notices == ["Quality was not measured: the reference, BF16 with mmproj F16, failed."]


def test_questions_of_a_task_come_without_advice_on_sessions(folder: Path, results: Path, tmp_path: Path) -> None:
    """Each row once told of Session.open(..., n_parallel=4), on the terminal and in every report."""
    (tmp_path / "a.png").write_bytes(built_in_picture(28))
    task = tmp_path / "task.jsonl"
    task.write_text('{"image": "a.png", "prompt": "What?", "answer": "red"}\n' * 2)
    measurements = MeasurementSettings(frozenset({"accuracy"}), repetitions=1, tasks=(str(task),))
    (row,), runner = run(planned(find(folder / "tiny-Q8_0.gguf", mmprojs=("F16",)), measurements), results)
    assert row.accuracy[0].questions == 2
    assert runner.notices == []


def test_speed_and_memory_of_the_demo_model(results: Path) -> None:
    """Everything is measured, several times, and the plan of the memory is near what was taken."""
    measurements = MeasurementSettings(frozenset({"speed", "memory"}), repetitions=2, parallel=2)
    plan = planned(find("demo"), measurements, sweep=fast(n_ctx=(1024,)))
    recorder = Recorder()
    (row,), _ = run(plan, results, recorder)
    assert row.status == "measured", row.error
    assert row.speed
    assert row.memory
    speed = row.speed
    spreads = [
        speed.load, speed.tile, speed.prefill, speed.decode, speed.time_to_first_token, speed.decode_parallel,
    ]  # fmt: skip
    for spread in spreads:
        assert spread
        assert 0 < spread.low <= spread.median <= spread.high
        assert spread.repetitions == 2
    assert (speed.prompt_tokens, speed.answer_tokens, speed.parallel, speed.picture_tiles) == (32, 8, 2, 5)
    # A question about five tiles takes at least their encoding.
    assert speed.time_to_first_token.high > 5 * speed.tile.low * 0.5
    assert row.memory.planned.keys() == row.memory.peak.keys() == {"CPU"}
    assert row.memory.peak["CPU"] == pytest.approx(row.memory.planned["CPU"], rel=0.15)
    stages = [what for _, what, _ in recorder.stages]
    assert list(dict.fromkeys(stages)) == [
        "load", "fill the context", "prefill", "decode", "encode", "first token", "decode in parallel",
    ]  # fmt: skip
    assert all(0 <= done < 1 for _, _, done in recorder.stages)


def test_measuring_leaves_a_session_as_it_was(session: Session) -> None:
    """The context is used behind the engine's back: the engine's view of it must hold afterwards."""
    before = session.next_token_logprobs("What is it?")
    rates = measure_rates(session, SpeedJob(700, 4, 1), lambda what, done: None)
    assert rates.prefill.median > 0
    session.runtime.engine.check_integrity()
    session.clear()
    assert session.next_token_logprobs("What is it?").tolist() == before.tolist()


def test_the_built_in_picture_is_four_tiles_and_a_thumbnail() -> None:
    picture = built_in_picture(32)
    assert picture == built_in_picture(32)
    tiled = tile_image(load_image(picture), tile_size=32)
    assert tiled.grid == (2, 2)
    assert len(tiled.tiles) == 5
    assert len({tile.tobytes() for tile in tiled.tiles}) == 5


def test_the_peak_is_no_less_than_what_is_there_now() -> None:
    now = psutil.Process().memory_info().rss
    assert now * 0.9 < peak_resident() < 64 * GIB


def test_the_machine_says_what_it_is() -> None:
    facts = ask_machine()
    assert "RAM" in facts.machine
    assert "\n" not in facts.machine
    assert facts.build.startswith("0.3.")
    assert facts.host > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to die of")
def test_how_a_process_died_is_told_in_one_line(folder: Path) -> None:
    """A file that llama.cpp aborts on, as a damaged one that no check of ours finds would be."""
    job = Job(str(folder / "tiny-BF16.gguf"), str(folder / "mmproj-F16.gguf"), {"n_ctx": 512}, SpeedJob(8, 8, 1))

    def abort(what: str, done: float) -> None:
        for process in children():
            process.send_signal(signal.SIGABRT)

    ending = run_job(job, Listener(abort, lambda result: None, lambda line: None))
    assert ending.status == "failed"
    assert "SIGABRT" in ending.error
    assert "\n" not in ending.error


# The quants of the demo model.


def test_the_demo_models_quants_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path))
    told: list[str] = []

    def tell(what: str, label: str, done: float) -> None:
        assert 0 <= done <= 1
        told.append(f"{what}: {label}")

    folder, labels = demo_ladder(["q4_k", "IQ2_XXS"], ["F16", "q8_0"], tell)
    assert labels == ["Q4_K_M", "IQ2_XXS"]
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert made.keys() == {
        "demo-text-Q4_K_M.gguf", "demo-text-IQ2_XXS.gguf", "demo-mmproj-F16.gguf", "demo-mmproj-Q8_0.gguf",
        "imatrix.gguf",
    }  # fmt: skip
    assert "Making quants of the demo model: IQ2_XXS" in told
    told.clear()
    demo_ladder(["IQ2_XXS"], ["F16"], tell)
    assert told == []
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    finder = PairFinder(lambda: None, lambda quants, mmprojs: demo_ladder(quants, mmprojs, tell), told.append)  # type: ignore[arg-type, return-value]
    name, pairs = finder.find(RequestedModels(("demo:iq2_xxs,Q4_K_M",), mmprojs=("Q8_0",)))
    assert (name, names(pairs)) == ("demo", [("IQ2_XXS", "Q8_0"), ("Q4_K_M", "Q8_0")])
    assert pairs[0].bits_per_weight < pairs[1].bits_per_weight < 6
    own = demo_files().mmproj
    for mmprojs, label in (((), "F16"), ((str(own),), "F16"), (("f16",), "F16")):
        assert names(finder.find(RequestedModels(("demo:IQ2_XXS",), mmprojs=mmprojs))[1]) == [("IQ2_XXS", label)]
