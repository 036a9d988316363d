"""The benchmarks stay alive: each runs briefly, with the demo model and without llama.cpp's tools."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import measure
import model_headers
import server_attackers
from internvl_gguf import SamplingParams, Session
from internvl_gguf.gguf.header import GGUFArray, read_header
from pipeline import PREPARING_THREADS, Rates, simulate, steady
from tests.support.pictures import noise

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = {
    "batch_cache": ["rules/room/MiB written/median", "rules/evict/MiB written/low", "rules/twice/first run, s/high"],
    "best_of_time": [
        "1 tile/seconds/one answer/median",
        "1 tile/of_one/best of 8/high",
        "13 tiles/of_one/8 questions/median",
        "13 tiles/positions/taken",
    ],
    "bulk_workers": [
        "workers/1/median",
        "workers/2/by_one",
        "stages/photographs decoded",
        "stages/photographs decoded and cut, --max-tiles 12",
        "stages/lines handed out",
        "stages/tiles encoded",
    ],
    "cascade": ["questions", "seconds/cascade", "seconds/large alone", "encoded"],
    "clip_frames": ["clips/MP4 10 s, 8/opened, s/median", "clips/Matroska 20 s, 32/MiB/high"],
    "cpu_kernels": ["Q4_0/prefill/llama.cpp's/median", "Q4_0/decode/as in the file/high"],
    "drafting": ["answers/a table read out/up to 4/median", "answers/an explanation/none/median"],
    "constrained": [
        "masks/ours/median",
        "masks/llama.cpp/p99",
        "masks/schema_seconds",
        "answers/ours, schema/median",
        "answers/Llama, schema/ratio",
    ],
    "embedding_cache": [
        "store_ms_per_tile/896/write",
        "store_ms_per_tile/896/read",
        "questions/off/encode/median",
        "questions/first/tiles_encoded/median",
        "questions/again/first_token/median",
    ],
    "first_token": ["first_token/ours, OpenVINO/median", "first_token/ours, llama.cpp/ratio"],
    "growth": [
        "tiles/encode, s/sizes/4/by_linear",
        "tiles/prefill, s/sizes/4/median",
        "tiles/first token, s/sizes/4/median",  # the exponent of one short round may be anything
        "turn/first token, ms/sizes/3/median",
        "turn/each token, ms/sizes/3/median",
        "at once/decode, tokens~s/sizes/2/by_linear",
    ],
    "overlap": ["seconds/one after the other/median", "seconds/at the same time/ratio"],
    "parallel": ["questions", "decode/1/ours/median", "decode/3/by_one", "whole/3/ours/low"],
    "second_question": [
        "ready/ours/median",
        "first/ours/tiles_encoded",
        "second/MTMDChatHandler/ratio",
        "second/MTMDChatHandler/tiles_encoded",
        "new conversation/ours/median",
        "restart/ours/median",
        "saved session/ours/median",
        "saved_session_bytes",
        "save_seconds",
    ],
    "server_faults": [
        "memory/mib/end/server",
        "memory/mib/end/worker",
        "disconnects/disconnects",
        "kills/back/median",
        "kills/outcomes/answered",
        "hostile/nobody else/answers",
        "hostile/deep JSON/answers/400",
        "hostile/idle connections/worst",
    ],
    "server_load": ["text/1/ours/first/median", "text/2/ours/rate/low", "picture/2/ours/first/high"],
    "shared_cores": [
        "prefill/0/ours/median",
        "prefill/1/Llama/ratio",
        "decode/1/ours/of_alone",
        "decode/1/Llama, its threads/median",
        "decode/0/Llama/cpus",
    ],
    "speed_estimates": ["compared", "prefill_ratio/1", "decode_ratio/1", "tile_ratio/1"],
    "text_speed": ["prefill/ours/median", "prefill/Llama/ratio", "decode/ours/high", "decode/Llama/ratio"],
    "worker_cost": ["token/worker/median", "picture/this process/ratio", "second/worker/low"],
    "tile_speed": [
        "seconds_per_tile/ours/median",
        "seconds_per_tile/ours, 2 a call/ratio",
        "seconds_per_tile/ours, OpenVINO f32/ratio",
    ],
}
"""What the last line of each says with a number above zero, as paths; ~ stands for a slash in a name."""
ZERO = {
    "cascade": ["encoded_again"],
    "server_faults": ["disconnects/left", "kills/left", "kills/orphans"]
    + [f"hostile/{name}/failed" for name in server_attackers.ABOUT],
    "embedding_cache": ["questions/again/tiles_encoded/median", "questions/again/encode/median"],
    "second_question": [
        f"{situation}/ours/tiles_encoded" for situation in ("second", "new conversation", "restart", "saved session")
    ],
}
"""Where nothing may be computed twice, so that the tables of caches are about what they say; what may not be lost."""
WITHOUT_THREADS = {"batch_cache", "clip_frames", "server_faults"}
"""Those that load no model, or one as a user would."""
NEED_TOOLS = {"first_token", "parallel", "second_question", "server_load", "text_speed", "tile_speed"}


def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def value_at(result: Any, path: str) -> Any:
    for name in path.split("/"):
        result = result[int(name)] if isinstance(result, list) else result[name.replace("~", "/")]
    return result


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs_with_the_demo_model(name: str) -> None:
    threads = () if name in WITHOUT_THREADS else ("--threads", "1")
    done = run(name, "--quick", *threads, PATH="")
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    result = json.loads(last)
    assert result["benchmark"] == name
    assert [path for path in SCRIPTS[name] if not value_at(result, path) > 0] == []
    assert [path for path in ZERO.get(name, ()) if value_at(result, path) != 0] == []
    assert any("measured without it" in line for line in said) == (name in NEED_TOOLS)


def test_every_benchmark_with_a_quick_way_is_run_here() -> None:
    sources = {path.stem: path.read_text("utf-8") for path in BENCHMARKS.glob("*.py") if path.stem != "measure"}
    quick = {name for name, text in sources.items() if '"--quick"' in text or "measure.parser(" in text}
    assert quick == {*SCRIPTS, "real_size", "rpc", "ray_overhead"}  # tests/rpc and tests/ray run what needs more


def test_a_folder_without_the_tools_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = run("text_speed", "--quick", "--tools", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path} has no llama-bench.\n"


def test_files_of_real_size_load_and_answer(tmp_path: Path) -> None:
    done = run("real_size", str(tmp_path), "--quick")
    result = json.loads(done.stdout.splitlines()[-1])
    with Session.open(result["text"], result["mmproj"], system="", n_threads=1, n_ctx=512) as session:
        reply = session.ask("What is it?", [noise(1, 448, 448)], sampling=SamplingParams(max_tokens=2))
        embeddings = session.embed_image(noise(1, 448, 448))
    assert (reply.usage.tiles_encoded, reply.usage.completion_tokens) == (1, 2)
    assert embeddings.shape == (1, 256, 896)
    assert 0.1 < float(embeddings.std()) < 10


def test_a_published_text_model_gets_the_tokens_of_the_family(tmp_path: Path) -> None:
    """Qwen2.5's padding tokens 151665 to 151673 are renamed; everything else stays, weights included."""
    shape = replace(model_headers.TEXT["0.5B"], n_layers=1, n_vocab=151_936)
    tensors = model_headers.text_tensors(shape, "Q8_0")
    header = model_headers.text_header(shape, "Q8_0")
    source = model_headers.write_sparse(tmp_path / "qwen.gguf", header, tensors)
    before = read_header(source)
    marked = before.tensors["blk.0.attn_q.weight"]
    with source.open("r+b") as file:
        file.seek(marked.offset)
        file.write(b"weights")
    run("real_size", str(tmp_path), "--quick", "--text", str(source))
    after = read_header(tmp_path / "text.gguf")
    names, kinds = (after.key_values[f"tokenizer.ggml.{key}"].value for key in ("tokens", "token_type"))
    assert isinstance(names, GGUFArray)
    assert isinstance(kinds, GGUFArray)
    assert names.raw_strings()[151_664:151_675][1:-1] == [
        b"<img>", b"</img>", b"<IMG_CONTEXT>", b"<quad>", b"</quad>", b"<ref>", b"</ref>", b"<box>", b"</box>"
    ]  # fmt: skip
    assert set(kinds.numbers()[151_665:151_674]) == {3}
    assert after.key_values.keys() == before.key_values.keys()
    assert after.tensors.keys() == before.tensors.keys()
    with (tmp_path / "text.gguf").open("rb") as file:
        file.seek(after.tensors["blk.0.attn_q.weight"].offset)
        assert file.read(7) == b"weights"


@given(st.floats(0.1, 3), st.floats(1e-3, 1e3), st.lists(st.integers(1, 10**4), min_size=2, max_size=8, unique=True))
def test_the_exponent_of_a_power_is_that_power(exponent: float, factor: float, sizes: list[int]) -> None:
    costs = [factor * size**exponent for size in sizes]
    assert measure.growth_exponent(sizes, costs) == pytest.approx(exponent, rel=1e-6, abs=1e-6)


def test_ratios_hold_where_the_machine_drifts() -> None:
    """Both sides slow down fivefold over the rounds; one is always twice as fast as the other."""
    speeds = [10.0, 8.0, 6.0, 4.0, 2.0]
    assert measure.ratios([2 * speed for speed in speeds], speeds).as_json() == {"median": 2, "low": 2, "high": 2}


@pytest.mark.parametrize("count", [2, 3])
def test_sides_take_turns_and_the_warm_up_does_not_count(count: int) -> None:
    names = "abc"[:count]
    order: list[str] = []
    rounds = 2 * count

    def measure_one(name: str, turn: int) -> int:
        order.append(name)
        return turn

    found = measure.interleaved({name: partial(measure_one, name) for name in names}, rounds, warm_up=2)
    assert found == {name: list(range(2, rounds + 2)) for name in names}
    counted = order[2 * count :]
    first = [counted[index] for index in range(0, len(counted), count)]
    assert {name: first.count(name) for name in names} == dict.fromkeys(names, 2)


@given(
    st.builds(
        Rates,
        read=st.floats(0.0, 0.1),
        prepare=st.floats(0.001, 0.5),
        device=st.floats(0.001, 0.5),
        driver=st.floats(0.0, 0.01),
        batch=st.integers(1, 64),
    ),
    st.integers(1, 12),
)
def test_a_simulated_cluster_is_as_fast_as_its_fullest_stage_at_most(rates: Rates, actors: int) -> None:
    outcome = simulate(rates, actors, 40 * actors)
    most = min(
        1 / rates.read if rates.read else math.inf,
        actors * PREPARING_THREADS / rates.prepare,
        actors / rates.device,
        1 / rates.driver if rates.driver else math.inf,
    )
    assert outcome.rate <= most * (1 + 1e-9)
    assert all(0 <= share <= 1 + 1e-9 for share in outcome.busy.values())
    if outcome.bottleneck == "device":  # and it is near it, but for the ends of its batches
        assert outcome.rate >= most / 3 or rates.batch < 8


def test_a_cluster_grows_until_its_storage_is_full() -> None:
    rates = Rates(read=0.01, prepare=0.01, device=0.5, driver=0.0001)
    found = [steady(rates, actors, 4) for actors in (1, 8, 400)]
    assert [outcome.bottleneck for outcome in found] == ["device", "device", "storage"]
    assert found[1].rate > 7.5 * found[0].rate
    assert found[2].rate == pytest.approx(100, rel=0.1)
