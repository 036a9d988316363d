"""Speeds estimated from a roofline: laws that hold whatever the numbers are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import model_headers
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.gguf.arch.base import TextShape, VisionShape
from internvl_gguf.gguf.header import GGUFHeader, parse_header
from internvl_gguf.hardware.device_speed import BITS_PER_WEIGHT, DeviceSpeed, Range, Roofline, rate_of
from internvl_gguf.hardware.roofline import assumed_device, completed
from internvl_gguf.memory import MemoryRequest, ModelShape, shape_from_headers, shape_from_listing
from internvl_gguf.planning.speed_estimate import SpeedEstimate, estimate_speed
from tests.support.calls import calls_of
from tests.support.kept_trial import copy_trial

GB, GFLOP = 1e9, 1e9
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")


def device(name: str, bandwidth: float, rate: float, **changes: Any) -> DeviceSpeed:
    """A device with one rate for everything, without spread, whose attention and small operations cost nothing."""
    kinds = [f"{kind}{flash}" for kind in KV_TYPES for flash in ("", " flash")]
    speed = DeviceSpeed(
        name,
        f"{name} of the test",
        measured=True,
        bandwidth=dict.fromkeys(BITS_PER_WEIGHT, Range(bandwidth, bandwidth)),
        matrix_rate=dict.fromkeys(BITS_PER_WEIGHT, Range(rate, rate)),
        encoder_rate={"f16": Range(rate, rate)},
        attention_bandwidth=dict.fromkeys(kinds, Range(1e30, 1e30)),
        attention_rate=dict.fromkeys(kinds, Range(1e30, 1e30)),
        node_seconds=Range(0, 0),
    )
    return replace(speed, **changes)


CPU = device("CPU", 40 * GB, 400 * GFLOP)
GPU = device("CUDA0", 400 * GB, 40_000 * GFLOP)
MACHINE = Roofline(CPU, (GPU,), Range(12 * GB, 12 * GB))


def text_header(name: str, quant: str, **changes: Any) -> GGUFHeader:
    architecture = replace(model_headers.TEXT[name], **{"n_vocab": 4096, **changes})
    data = model_headers.text_header(architecture, quant)
    size = model_headers.file_size(data, model_headers.text_tensors(architecture, quant))
    return parse_header(data, size, "text.gguf")


def mmproj_header(name: str, kind: str, projection: int) -> GGUFHeader:
    architecture = model_headers.VISION[name]
    data = model_headers.mmproj_header(architecture, kind, projection)
    size = model_headers.file_size(data, model_headers.mmproj_tensors(architecture, kind, projection))
    return parse_header(data, size, "mmproj.gguf")


def shape(name: str = "7B", quant: str = "Q4_K_M", **changes: Any) -> ModelShape:
    return shape_from_headers(text_header(name, quant, **changes))


def with_vision(encoder: str = "InternViT-300M", kind: str = "F16") -> ModelShape:
    return shape_from_headers(text_header("7B", "Q4_K_M"), mmproj_header(encoder, kind, 3584))


def estimated(
    model: ModelShape, roofline: Roofline | None = MACHINE, *, depth: int = 1024, tiles: int = 13, **request: Any
) -> SpeedEstimate:
    asked = MemoryRequest(8192, **request)
    return estimate_speed(model, asked, roofline, tiles_per_picture=tiles, depth=depth)


def on_gpu(layers: int, **request: Any) -> dict[str, Any]:
    return {"gpus": (1.0,), "n_gpu_layers": layers, **request}


def ranges(estimate: SpeedEstimate) -> list[Range]:
    found = (estimate.decode, estimate.prefill, estimate.tile_seconds, estimate.picture_seconds)
    return [each for each in found if each is not None]


def test_a_token_takes_as_long_as_reading_the_weights() -> None:
    model = shape()
    weights = sum(weight.n_bytes for weight in model.text.weights if len(weight.shape) == 2)
    read = weights - model.text.embedding.n_bytes  # of the token table one row is read
    exact = 40 * GB / read
    decode = estimated(model).decode
    assert decode.low < exact < decode.high
    tied = shape(tied=True).text
    assert tied.output is None
    assert (
        estimated(ModelShape(tied)).decode.low
        < 40 * GB / sum(weight.n_bytes for weight in tied.weights if len(weight.shape) == 2)
        < estimated(ModelShape(tied)).decode.high
    )


def test_a_token_reads_the_experts_that_it_goes_through() -> None:
    """A model of 30 billion weights of which a token uses 3 answers about as fast as one of 3 billion."""
    sparse, dense = shape("Qwen3 30B-A3B").text, shape("Qwen3 4B").text
    read = sum(each.n_bytes * each.used for layer in sparse.layer_matrices for each in layer)
    assert sparse.output is not None
    exact = 40 * GB / (read + sparse.output.n_bytes)
    decode = estimated(ModelShape(sparse)).decode
    assert decode.low < exact < decode.high
    assert decode.low > estimated(ModelShape(dense)).decode.low


def test_a_prompt_is_multiplied_with_the_experts_that_each_token_goes_through() -> None:
    sparse, dense = (estimated(shape(f"Qwen3 {size}"), depth=4096).prefill for size in ("30B-A3B", "32B"))
    assert sparse.low > 5 * dense.high


def test_a_prompt_takes_as_long_as_multiplying_the_weights() -> None:
    model = shape()
    elements = sum(each.elements for layer in model.text.layer_matrices for each in layer)
    prefill = estimated(model, depth=4096).prefill
    assert prefill.low < 400 * GFLOP / (2 * elements) < prefill.high


@pytest.mark.parametrize("request_", [{}, on_gpu(10), on_gpu(-1, mmproj_gpu=0)], ids=["cpu", "both", "gpu"])
@pytest.mark.parametrize("roofline", [MACHINE, None], ids=["measured", "assumed"])
def test_ranges_are_ordered(request_: Mapping[str, Any], roofline: Roofline | None) -> None:
    estimate = estimated(with_vision(), roofline, **request_)
    assert len(ranges(estimate)) == 4
    assert all(0 < each.low < each.high for each in ranges(estimate))
    assert estimate.measured == (roofline is not None)
    assert bool(estimate.assumed) == (roofline is None)


def test_fewer_bytes_decode_faster() -> None:
    quants = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "IQ2_XXS", "IQ1_S")
    decode = [estimated(shape(quant=quant)).decode.low for quant in quants]
    assert decode == sorted(decode)
    layers = [estimated(shape(n_layers=count)).decode.low for count in (28, 14, 7)]
    assert layers == sorted(layers)


def test_each_type_counts_at_its_own_rate() -> None:
    slow_type = dict(CPU.bandwidth) | {"q4_k": Range(4 * GB, 4 * GB)}
    machine = replace(MACHINE, host=replace(CPU, bandwidth=slow_type))
    assert estimated(shape(), machine).decode.high < estimated(shape()).decode.low
    assert estimated(shape(quant="Q8_0"), machine).decode == estimated(shape(quant="Q8_0")).decode


def test_more_layers_on_a_faster_gpu_are_faster() -> None:
    model = shape()
    estimates = [estimated(model, **on_gpu(layers)) for layers in (0, 1, 10, 20, 28, 29)]
    decode = [each.decode.low for each in estimates]
    prefill = [each.prefill.low for each in estimates]
    assert decode == sorted(set(decode))
    assert prefill == sorted(prefill)
    assert estimated(model, **on_gpu(-1)) == estimates[-1]


def test_weights_of_the_host_are_carried_to_the_gpu_for_each_batch() -> None:
    model = shape("14B")
    carried = [estimated(model, depth=4096, n_ubatch=size, **on_gpu(0)).prefill for size in (512, 2048)]
    assert carried[0].high < carried[1].low  # a quarter of the copies
    assert carried[1].low > estimated(model, depth=4096).prefill.high  # and still faster than the CPU
    bus = replace(MACHINE, host_to_gpu=Range(1 * GB, 1 * GB))
    weights = sum(model.text.layer_bytes)
    slow = estimated(model, bus, depth=4096, n_ubatch=512, **on_gpu(0)).prefill
    assert slow.low < 512 / (weights / GB) < slow.high


def test_a_deeper_context_is_slower() -> None:
    attending = dict.fromkeys(("f16", "f16 flash"), Range(3 * GB, 3 * GB))
    machine = replace(MACHINE, host=replace(CPU, attention_bandwidth=attending))
    decode = [estimated(shape(), machine, depth=depth).decode.low for depth in (8192, 4096, 1024, 0)]
    assert decode == sorted(set(decode))
    per_token = 2 * 28 * 512 * 2 * 8192 / (3 * GB)  # layers, values of a key, bytes of F16
    difference = 1 / estimated(shape(), machine, depth=8192).decode.high - 1 / estimated(shape()).decode.high
    assert difference == pytest.approx(per_token, rel=0.2)


def test_a_picture_is_encoded_and_read() -> None:
    model = with_vision()
    one, thirteen = estimated(model, tiles=1), estimated(model, tiles=13)
    assert one.tile_seconds == thirteen.tile_seconds
    assert one.tile_seconds is not None
    assert one.tile_seconds.low < 730 * GFLOP / (400 * GFLOP) < one.tile_seconds.high
    assert one.picture_seconds is not None
    assert thirteen.picture_seconds is not None
    assert thirteen.picture_seconds.low > 13 * one.tile_seconds.low
    positions = 13 * 256 + 2
    read = positions / estimated(model, depth=positions).prefill.high
    assert thirteen.picture_seconds.low == pytest.approx(13 * one.tile_seconds.low + read, rel=0.01)
    on_it = estimated(model, **on_gpu(-1, mmproj_gpu=0)).tile_seconds
    assert on_it is not None
    assert on_it.high < one.tile_seconds.low
    large = estimated(with_vision("InternViT-6B")).tile_seconds
    assert large is not None
    assert large.low > 10 * one.tile_seconds.high


def test_without_pictures_there_is_no_picture() -> None:
    assert estimated(shape()).tile_seconds is None
    assert estimated(shape()).picture_seconds is None
    assert estimated(with_vision(), tiles=0).picture_seconds is None


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M", "Q4_0", "BF16"])
def test_a_listing_says_nearly_what_the_header_says(quant: str) -> None:
    architecture = replace(model_headers.TEXT["7B"], n_vocab=4096)
    facts = TextShape("qwen2", 28, 3584, 28, 4, 18944, architecture.n_vocab, architecture.n_ctx_train)
    vision = VisionShape(24, 1024, 16, 4096, 448, 14, 256, "layernorm")
    header = text_header("7B", quant)
    size = model_headers.file_size(model_headers.text_header(architecture, quant),
                                   model_headers.text_tensors(architecture, quant))  # fmt: skip
    size += 6 * 1024**2  # a listed file counts with a vocabulary of full length
    mmproj = model_headers.mmproj_tensors(model_headers.VISION["InternViT-300M"], "F16", 3584)
    listed = shape_from_listing(facts, size, vision, model_headers.file_size(b"", mmproj))
    read = shape_from_headers(header, mmproj_header("InternViT-300M", "F16", 3584))
    for ours, theirs in zip(ranges(estimated(listed)), ranges(estimated(read)), strict=True):
        assert ours.low == pytest.approx(theirs.low, rel=0.05)
        assert ours.high == pytest.approx(theirs.high, rel=0.05)


def test_a_type_nobody_measured_takes_the_nearest_rate_and_says_so() -> None:
    few = {"q4_k": Range(4 * GB, 5 * GB), "q8_0": Range(8 * GB, 9 * GB)}
    assert rate_of(few, "q5_k", 5.5) == few["q4_k"]
    assert rate_of(few, "q6_k", 6.56) == few["q8_0"]
    alike = {"iq3_xxs": Range(1 * GB, 2 * GB), "q2_k": Range(6 * GB, 7 * GB), "q8_0": Range(9 * GB, 9 * GB)}
    assert rate_of(alike, "unknown", 2.8) == Range(1 * GB, 7 * GB)
    estimate = estimated(shape(quant="Q5_K_M"), replace(MACHINE, host=replace(CPU, bandwidth=few, matrix_rate=few)))
    assert not estimate.measured
    assert estimate.assumed == tuple(f"{kind} as fast on CPU as the type nearest in size" for kind in ("q5_k", "q6_k"))
    one_kind = replace(CPU, attention_rate={"f32": Range(1 * GFLOP, 1 * GFLOP)})
    assert not estimated(shape(), replace(MACHINE, host=one_kind)).measured
    assert estimated(shape(), replace(MACHINE, host=one_kind), kv_type="f32").measured


def test_gpus_that_nobody_measured_are_assumed() -> None:
    estimate = estimated(shape(), replace(MACHINE, gpus=()), **on_gpu(-1))
    assert not estimate.measured
    assert estimate.assumed == (assumed_device("gpu").description,)
    assert estimated(shape(), replace(MACHINE, gpus=())).measured  # no GPU is involved
    assert not estimated(shape(), replace(MACHINE, gpus=()), **on_gpu(0)).measured  # one reads the prompt
    two = estimated(shape(), gpus=(1.0, 1.0), n_gpu_layers=-1)
    assert not two.measured
    assert [each.name for each in completed(MACHINE, 2).gpus] == ["CUDA0", "GPU"]
    assert completed(MACHINE, 0).gpus == ()


@pytest.mark.parametrize("kind", ["cpu", "gpu", "apple"])
def test_assumptions_are_wide_and_cover_every_type(kind: Any) -> None:
    assumed = assumed_device(kind)
    assert not assumed.measured
    assert assumed.bandwidth.keys() == assumed.matrix_rate.keys() == BITS_PER_WEIGHT.keys()
    assert all(rate.high >= 1.5 * rate.low for rate in assumed.bandwidth.values())


@pytest.mark.parametrize(("depth", "tiles"), [(-1, 1), (8193, 1), (0, -1)])
def test_what_no_conversation_has_is_refused(depth: int, tiles: int) -> None:
    with pytest.raises(InvalidRequestError):
        estimated(shape(), depth=depth, tiles=tiles)


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_what_is_no_range_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="is no range"):
        Range(*ends)


def test_the_work_of_an_estimate_does_not_grow_with_the_layers() -> None:
    """The picker makes thousands of them; one took 0.5 ms where it was measured."""
    model = shape_from_headers(text_header("72B", "Q4_K_M"), mmproj_header("InternViT-6B", "F16", 8192))
    estimated(model, **on_gpu(40))
    assert calls_of(lambda: estimated(model, **on_gpu(40))) < 5000


def test_the_benchmark_still_runs(tmp_path: Path) -> None:
    program = Path(model_headers.__file__).with_name("speed_estimates.py")
    copy_trial(tmp_path)
    environment = {**os.environ, "INTERNVL_CACHE": str(tmp_path)}
    command = [sys.executable, str(program), "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["compared"] == 5
    assert not result["measured_roofline"]
    assert "| decode | demo, 512 positions |" in done.stdout


def test_an_estimate_loads_neither_llama_cpp_nor_numpy() -> None:
    script = (
        "import internvl_gguf.planning.speed_estimate, internvl_gguf.hardware.roofline, sys\n"
        "internvl_gguf.hardware.roofline.recorded_roofline()\n"
        "print([name for name in ('llama_cpp', 'numpy', 'gguf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
