"""What `internvl bench` is made of: sweeps, files, plans, the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.bench.fitting import FittingChooser, budget_of
from internvl_gguf.bench.jobs import Job, MachineFacts, ScoringJob, SpeedJob, job_as_line, job_of_line
from internvl_gguf.bench.keys import RunIdentity
from internvl_gguf.bench.measured_run import MeasuredRun, with_losses_apart
from internvl_gguf.bench.pairs import TextHalf
from internvl_gguf.bench.results import QualityResult, Row, SpeedResult, Spread
from internvl_gguf.bench.servers import MeasuredServers
from internvl_gguf.bench.store import Store
from internvl_gguf.bench.sweep import Sweep
from internvl_gguf.bench.time_left import TimeLeft
from internvl_gguf.cli.bench_progress import duration
from internvl_gguf.errors import InsufficientMemoryError, InvalidRequestError, ModelFileError
from internvl_gguf.hardware.remote_device import RemoteDevice
from internvl_gguf.hardware.rpc.handshake import DeviceReport, ServerReport
from internvl_gguf.hardware.rpc.protocol import ProtocolVersion
from internvl_gguf.models.listing import list_model
from internvl_gguf.quantizing import ImportanceMatrix, write_matrix
from internvl_gguf.quantizing.matrix import Activations
from internvl_gguf.utils.rpc_addresses import RPCAddress
from tests.support.bench_plans import HOST, QUALITY, SPEED, fast, find, names, planned, resized, write_quants
from tests.support.bench_samples import diverging

GIB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_quants(tmp_path_factory.mktemp("quants"))


# Lists and their product.


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=4), st.lists(st.integers(1, 8), min_size=1, max_size=3))
def test_a_sweep_is_the_product_of_its_lists(prompts: list[int], threads: list[int]) -> None:
    sweep = Sweep.parse(n_prompt=",".join(map(str, prompts)), n_threads=", ".join(map(str, threads)))
    points = sweep.run_configs(8192, HOST)
    expected = [(prompt, count) for prompt in dict.fromkeys(prompts) for count in dict.fromkeys(threads)]
    assert [(point.n_prompt, point.engine["n_threads"]) for point in points] == expected
    assert {point.n_gen for point in points} == {128}


@pytest.mark.parametrize(
    ("given_lists", "words"),
    [
        ({"n_prompt": "512,x"}, "-p is '512,x'"),
        ({"n_prompt": ""}, "-p is ''"),
        ({"n_prompt": "512,,64"}, "-p is"),
        ({"n_prompt": "-512"}, "-p has -512"),
        ({"n_prompt": "1_000"}, "-p is"),
        ({"n_prompt": "٥١٢"}, "-p is"),
        ({"n_gen": "0"}, "-n has 0"),
        ({"n_threads": "513"}, "-t has 513"),
        ({"n_gpu_layers": "some"}, "-ngl is 'some'"),
        ({"flash_attn": "maybe"}, "-fa is 'maybe'"),
        ({"type_k": "q5"}, "-ctk is 'q5'"),
        ({"type_v": "f16,q5"}, "-ctv is"),
        ({"type_k": "f16", "type_v": "q8_0"}, "one type"),
        ({"type_k": "f16,q8_0", "type_v": "f16"}, "one type"),
    ],
)
def test_a_list_that_cannot_be_read(given_lists: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequestError) as failure:
        Sweep.parse(**given_lists)
    assert words in failure.value.message
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("given_lists", "words"),
    [
        ({"n_prompt": "512,1025", "n_ctx": "1024"}, ["1,025 tokens (-p)", "for 1,024.", "-c 1025"]),
        ({"n_prompt": "8193"}, ["8,193 tokens", "for 8,192."]),
        ({"n_gen": "2000", "n_ctx": "1024"}, ["answer has 2,000"]),
        ({"n_ctx": "8193"}, ["8,193", "8,192", "-c 8192"]),
        ({"n_batch": "256", "n_ubatch": "512"}, ["n_ubatch is 512"]),
        ({"type_k": "q8_0", "flash_attn": "off"}, ["flash attention"]),
    ],
)
def test_a_combination_that_cannot_be_run(given_lists: dict[str, str], words: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as failure:
        Sweep.parse(**given_lists).run_configs(8192, HOST)
    for word in words:
        assert word in str(failure.value)


def test_settings_have_the_values_that_a_session_is_opened_with() -> None:
    sweep = Sweep.parse(n_batch="256", n_gpu_layers="all,0", flash_attn="0,1", type_v="bf16")
    points = sweep.run_configs(2048, HOST)
    assert [point.engine["n_gpu_layers"] for point in points] == [-1, -1, 0, 0]
    assert [point.engine["flash_attn"] for point in points] == [False, True] * 2
    first = points[0].settings
    assert first["kv_type"] == "bf16"
    assert (first["n_ctx"], first["n_ubatch"], first["n_threads"], first["n_threads_batch"]) == (2048, 256, 2, 4)
    assert points[0].engine["n_threads"] is None
    named = Sweep.parse(n_threads="3").run_configs(2048, HOST)[0]
    assert named.settings["n_threads"] == named.engine["n_threads"] == 3
    assert "n_threads_batch" not in named.settings


# What is left of the time.


@given(st.lists(st.integers(1, 10**11), min_size=2, max_size=12), st.floats(0.1, 1e4))
def test_time_left_is_exact_where_times_follow_the_sizes(sizes: list[int], scale: float) -> None:
    mean = sum(sizes) / len(sizes)
    seconds = [scale * (mean + size) / mean for size in sizes]
    left = TimeLeft(sizes)
    assert left.seconds() is None
    for index in range(len(sizes) - 1):
        left.finish(index, seconds[index])
        assert left.seconds() == pytest.approx(sum(seconds[index + 1 :]))
    halfway = left.seconds(len(sizes) - 1, seconds[-1] / 2)
    assert halfway == pytest.approx(seconds[-1] / 2)
    assert left.seconds(len(sizes) - 1, 10 * seconds[-1]) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.432, "0.43 s"), (3, "3 s"), (11.6, "12 s"), (119, "119 s"), (200, "3 min"), (3599, "60 min"),
     (4800, "1 h 20 min"), (7199, "2 h 0 min")],
)  # fmt: skip
def test_times_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_was_known_tells_nothing_about_time() -> None:
    left = TimeLeft([10, 10, 10])
    left.finish(0, None)
    assert left.seconds() is None
    left.finish(1, 7.0)
    assert left.seconds() == pytest.approx(7.0)


# The store.

SPREAD = Spread(1.0, 0.5, 2.0, 3)
RESULT = SpeedResult(SPREAD, SPREAD, SPREAD, SPREAD, SPREAD, None, 512, 128, parallel=1, picture_tiles=5)
KEY = {"text": "abc", "settings": {"n_ctx": 512, "flash_attn": "auto"}}


def test_a_result_comes_back_under_its_own_key_only(tmp_path: Path) -> None:
    Store(tmp_path).put("speed", KEY, RESULT)
    assert Store(tmp_path).get("speed", KEY, SpeedResult) == RESULT
    assert Store(tmp_path).get("memory", KEY, SpeedResult) is None
    assert Store(tmp_path).get("speed", {**KEY, "text": "abd"}, SpeedResult) is None
    assert Store(tmp_path, fresh=True).get("speed", KEY, SpeedResult) is None


def test_a_fresh_store_knows_what_it_wrote_itself(tmp_path: Path) -> None:
    """A sweep of prompts has one quality for all its points: that is measured anew once, not for each."""
    store = Store(tmp_path, fresh=True)
    store.put("speed", KEY, RESULT)
    assert store.get("speed", KEY, SpeedResult) == RESULT


def test_a_disturbed_speed_is_measured_again(folder: Path, tmp_path: Path) -> None:
    """555 ±1996 tokens a second were kept, and every later report showed them."""
    planned_run = planned(find(folder / "tiny-Q8_0.gguf", mmprojs=("F16",))).runs[0]
    identity = RunIdentity("text", "mmproj", "build", planned_run.run_config)
    for decode, is_kept in ((Spread.of([10, 500, 4000, 20, 3000]), False), (Spread.of([500, 501, 502]), True)):
        store = Store(tmp_path)
        run = MeasuredRun(planned_run)
        run.look_up(identity, SPEED, None, store)
        steady = Spread.of([1.0])
        speed = SpeedResult(steady, steady, steady, decode, steady, None, 512, 128, 1, 5)
        run.take(speed, store)
        assert run.row().speed == speed, "it is in this report"
        again = MeasuredRun(planned_run)
        again.look_up(identity, SPEED, None, store)
        assert (again.row().speed == speed) is is_kept


@pytest.mark.parametrize("damage", ["cut", "digit", "key", "empty", "no json", "list"])
def test_a_damaged_entry_is_measured_again(tmp_path: Path, damage: str) -> None:
    Store(tmp_path).put("speed", KEY, RESULT)
    (entry,) = tmp_path.iterdir()
    text = entry.read_text()
    entry.write_text(
        {
            "cut": text[:-20],
            "digit": text.replace("2.0", "2.5", 1),
            "key": text.replace("abc", "xyz"),
            "empty": "",
            "no json": "speed",
            "list": "[]",
        }[damage]
    )
    assert Store(tmp_path).get("speed", KEY, SpeedResult) is None
    Store(tmp_path).put("speed", KEY, RESULT)
    assert Store(tmp_path).get("speed", KEY, SpeedResult) == RESULT


def test_a_job_survives_the_pipe() -> None:
    job = Job(
        "/a/text \udcff.gguf", "/b/mmproj.gguf", {"n_ctx": 512, "flash_attn": "auto", "n_gpu_layers": -1},
        SpeedJob(512, 128, 5, 4), True, ScoringJob("/c", "read", None, "off"), (None, "task.jsonl"),
    )  # fmt: skip
    assert job_of_line(job_as_line(job)) == job


# Files and plans.


def test_quants_and_encoders_are_multiplied_in_the_order_they_were_named(folder: Path) -> None:
    pairs = find(f"{folder}:q8_0,BF16", mmprojs=("Q8_0", "F16"))
    assert names(pairs) == [("Q8_0", "Q8_0"), ("Q8_0", "F16"), ("BF16", "Q8_0"), ("BF16", "F16")]
    assert pairs[0].text.n_bytes == (folder / "tiny-Q8_0.gguf").stat().st_size
    assert pairs[0].text is pairs[1].text


def test_a_folder_stands_for_all_that_is_in_it(folder: Path) -> None:
    found = names(find(folder, mmprojs=("F16",)))
    assert sorted(found) == [("BF16", "F16"), ("Q8_0", "F16"), ("UD-Q4_K_XL", "F16")]


def test_files_are_measured_each_once(folder: Path) -> None:
    q8 = folder / "tiny-Q8_0.gguf"
    pairs = find(q8, folder / "tiny-BF16.gguf", f"{folder}:Q8_0", mmprojs=(str(folder / "mmproj-F16.gguf"),))
    assert names(pairs) == [("Q8_0", "F16"), ("BF16", "F16")]


def test_encoders_among_the_files_are_encoders(folder: Path) -> None:
    """`bench *.gguf --mmproj F16,Q8_0` refused: "This folder has no mmproj F16. It has Q8_0"."""
    files = sorted(folder.glob("*.gguf"))
    assert names(find(*files, mmprojs=("F16",))) == [("BF16", "F16"), ("Q8_0", "F16"), ("UD-Q4_K_XL", "F16")]
    two = [(text, mmproj) for text in ("BF16", "Q8_0", "UD-Q4_K_XL") for mmproj in ("F16", "Q8_0")]
    assert names(find(*files, mmprojs=("F16", "Q8_0"))) == names(find(*files)) == two
    with pytest.raises(ModelFileError, match="no text model among"):
        find(folder / "mmproj-F16.gguf")


def test_an_importance_matrix_beside_the_models_is_none(folder: Path, tmp_path: Path) -> None:
    """One of --save-imatrix in the folder ended it: "general.architecture is missing ... published damaged"."""
    for name in ("tiny-Q8_0.gguf", "mmproj-F16.gguf"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    matrix = tmp_path / "im.gguf"
    write_matrix(matrix, ImportanceMatrix({"blk.0.attn_q.weight": Activations(np.ones(64), np.array([512]))}))
    assert names(find(tmp_path)) == names(find(*tmp_path.glob("*.gguf"))) == [("Q8_0", "F16")]
    with pytest.raises(ModelFileError, match="is an importance matrix, not a model"):
        TextHalf.here(matrix)


@pytest.mark.parametrize(
    ("quants", "words"),
    [("Q8_0,Q8_1", ["no quant 'Q8_1'", "nearest", "Q8_0"]), ("Q8_0,", ["missing"]), (",", ["missing"])],
)
def test_quants_that_are_not_there(folder: Path, quants: str, words: list[str]) -> None:
    with pytest.raises(ModelFileError) as failure:
        find(f"{folder}:{quants}", mmprojs=("F16",))
    for word in words:
        assert word in str(failure.value)


def test_a_repository_without_quants_asks_which(folder: Path) -> None:
    with pytest.raises(ModelFileError) as failure:
        find("InternVL3-14B-Instruct")
    assert "Which quants" in failure.value.message
    assert "UD-Q4_K_XL" in failure.value.hint


def test_the_reference_is_the_quant_of_the_most_bits_behind_the_best_encoder(folder: Path) -> None:
    q8, exact = find(f"{folder}:Q8_0", mmprojs=("Q8_0", "F16"))
    pairs = [resized(q8, "Q2_K", 10), resized(q8, "Q8_0", 30), resized(exact, "Q8_0", 30), resized(exact, "Q4_K", 20)]
    assert planned(pairs, QUALITY).reference == 2
    assert planned(pairs, QUALITY, "q4_k").reference == 3
    # F16 has as many bits as BF16 and fewer of the published weights' values.
    pairs += [resized(exact, "F16", 40), resized(exact, "BF16", 40)]
    assert planned(pairs, QUALITY).reference == 5
    assert planned(pairs, QUALITY).order == [5, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("reference", ["Q6_K", "Q8", "nonsense"])
def test_a_reference_that_is_not_measured(folder: Path, reference: str) -> None:
    with pytest.raises(InvalidRequestError, match="not among what is to be measured: BF16"):
        planned(find(folder, mmprojs=("F16",)), QUALITY, reference)


def test_a_reference_without_quality_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="--reference is for quality"):
        planned(find(folder, mmprojs=("F16",)), SPEED, "BF16")


def test_a_reference_of_another_vocabulary_is_refused_by_headers(folder: Path, tmp_path: Path) -> None:
    """Same size, other tokens: the probabilities would be compared word for other word."""
    data = (folder / "tiny-Q8_0.gguf").read_bytes()
    old, new = b"\x03\0\0\0\0\0\0\0ing", b"\x03\0\0\0\0\0\0\0gni"
    assert data.count(old) == 1
    other = tmp_path / "other-Q8_0.gguf"
    other.write_bytes(data.replace(old, new))
    pairs = find(folder / "tiny-BF16.gguf", other, mmprojs=(str(folder / "mmproj-F16.gguf"),))
    with pytest.raises(InvalidRequestError, match=r"other-Q8_0.gguf has another vocabulary"):
        planned(pairs, QUALITY)
    assert len(planned(pairs).runs) == 2


def test_losses_are_told_apart_by_the_crossed_pairs(folder: Path) -> None:
    """Text quant and mmproj lose something each: rows that have one of them beside the reference's other say what."""
    pairs = find(f"{folder}:BF16,Q8_0", mmprojs=("F16", "Q8_0"))
    plan = planned(pairs, QUALITY)
    assert plan.reference == 0
    losses = [diverging(mean, 100) for mean in (1e-9, 0.2, 0.3, 0.4)]
    rows = [
        Row(run.configuration, "measured", quality=QualityResult(None, loss, None, None))
        for run, loss in zip(plan.runs, losses, strict=True)
    ]
    apart = with_losses_apart(rows, [plan.crossed(index) for index in range(4)])
    assert [(row.quality.quant_alone, row.quality.mmproj_alone) for row in apart if row.quality] == [
        (losses[0], losses[0]), (losses[0], losses[1]), (losses[2], losses[0]), (losses[2], losses[1]),
    ]  # fmt: skip


def test_with_one_encoder_a_loss_is_the_quants_alone(folder: Path) -> None:
    plan = planned(find(f"{folder}:BF16,Q8_0", mmprojs=("F16",)), QUALITY)
    assert [plan.crossed(index) for index in range(2)] == [(0, None), (1, None)]


def test_points_of_a_sweep_cross_with_their_like(folder: Path) -> None:
    sweep = fast(n_batch=(512, 1024))
    plan = planned(find(f"{folder}:BF16", mmprojs=("F16", "Q8_0")), QUALITY, sweep=sweep)
    assert [run.name for run in plan.runs] == [
        "BF16 with mmproj F16, n_batch 512", "BF16 with mmproj F16, n_batch 1024",
        "BF16 with mmproj Q8_0, n_batch 512", "BF16 with mmproj Q8_0, n_batch 1024",
    ]  # fmt: skip
    assert plan.crossed(3) == (1, 3)


# What fits.

NO_GPU = MachineFacts("a machine", "a build", 64 * GIB, (), False)


def test_what_fits_is_what_pick_finds() -> None:
    listing = list_model("InternVL3-14B-Instruct")
    fitting = FittingChooser(budget_of("12GiB", NO_GPU), Sweep(), HOST)
    chosen = fitting.choose(listing)
    assert chosen == [file for file in (each.file for each in listing.candidates) if file in chosen]
    assert "InternVL3-14B-Instruct-Q4_K_M.gguf" in chosen
    assert "InternVL3-14B-Instruct-Q6_K.gguf" not in chosen
    assert 0 < len(FittingChooser(budget_of("8GiB", NO_GPU), Sweep(), HOST).choose(listing)) < len(chosen)


def test_on_gpus_what_lies_there_whole() -> None:
    """Anything fits a machine with much RAM if layers may stay there: that is not what 12 GiB of VRAM ask for."""
    listing = list_model("InternVL3-14B-Instruct")
    facts = replace(NO_GPU, gpus=(24 * GIB,))
    chosen = FittingChooser(budget_of("12GiB", facts), Sweep(), HOST).choose(listing)
    assert "InternVL3-14B-Instruct-Q4_K_M.gguf" in chosen
    assert "InternVL3-14B-Instruct-Q8_0.gguf" not in chosen


def servers(total: int, host: str = "127.0.0.1", *, is_insecure_allowed: bool = False) -> MeasuredServers:
    """One server, with a GPU of so many bytes that is free but for 1 GiB."""
    device = DeviceReport(total - GIB, total, RemoteDevice("gpu", 5e-4, 1e8))
    report = ServerReport(RPCAddress(host, 50052), f"{host}:50052", ProtocolVersion(7, 0, 0), (device,))
    return MeasuredServers((report,), is_insecure_allowed)


def test_memory_of_servers_comes_to_what_fits() -> None:
    listing = list_model("InternVL3-14B-Instruct")
    assert FittingChooser(budget_of("4GiB", NO_GPU), Sweep(), HOST).choose(listing) == []
    budget = servers(13 * GIB).added_to_budget(budget_of("4GiB", NO_GPU))
    chosen = FittingChooser(budget, Sweep(), HOST).choose(listing)
    assert "InternVL3-14B-Instruct-Q4_K_M.gguf" in chosen
    assert "InternVL3-14B-Instruct-Q8_0.gguf" not in chosen


def test_results_on_servers_are_kept_by_what_they_are(folder: Path) -> None:
    """Tomorrow a tunnel may lead from the same port to another machine."""
    pairs = find(f"{folder}:BF16")
    runs = [planned(pairs, sweep=replace(fast(), servers=each)).runs[0] for each in (None, servers(8 * GIB))]
    assert [run.configuration.settings.get("rpc") for run in runs] == [None, "127.0.0.1:50052 (a GPU with 8.0 GiB)"]
    assert runs[1].run_config.engine["rpc"] == ("127.0.0.1:50052",)
    other = planned(pairs, sweep=replace(fast(), servers=servers(24 * GIB))).runs[0]
    identities = [RunIdentity("text", "mmproj", "build", run.run_config) for run in (*runs, other)]
    assert len({repr(identity.memory_key()) for identity in identities}) == 3
    assert servers(8 * GIB).added_to(NO_GPU).gpus == (7 * GIB,)
    assert servers(8 * GIB).warning == ""


def test_servers_of_other_machines_have_a_warning(folder: Path) -> None:
    far = servers(8 * GIB, "10.0.0.2", is_insecure_allowed=True)
    assert "Never expose" in far.warning
    assert planned(find(f"{folder}:BF16"), sweep=replace(fast(), servers=far)).runs[0].run_config.engine["rpc"]


def test_a_budget_that_nothing_fits() -> None:
    fitting = FittingChooser(budget_of("1GiB", NO_GPU), Sweep(), HOST)
    assert fitting.choose(list_model("InternVL3-14B-Instruct")) == []
    error = fitting.none_chosen()
    assert isinstance(error, InsufficientMemoryError)
    assert "IQ1_S" in error.message


@pytest.mark.parametrize("sizes", ["none", "12GiB,12GiB", "12", "x"])
def test_budgets_that_are_none(sizes: str) -> None:
    with pytest.raises(InvalidRequestError):
        budget_of(sizes, NO_GPU)
