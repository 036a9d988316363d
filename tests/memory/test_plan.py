"""Memory as predicted against llama.cpp's own plan and a real load; bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

import model_headers
from internvl_gguf.errors import InvalidRequestError, LibraryError, ModelFileError
from internvl_gguf.gguf.arch import TEXT_ARCHITECTURES
from internvl_gguf.gguf.arch.base import TextShape, VisionShape
from internvl_gguf.gguf.header import parse_header, read_header
from internvl_gguf.memory import (
    PARTS,
    DeviceMemory,
    MemoryRequest,
    ModelShape,
    predict_memory,
    shape_from_headers,
    shape_from_listing,
)
from internvl_gguf.memory import dry_run as dry_runs
from internvl_gguf.memory import plan as plans
from internvl_gguf.memory.dry_run import ask, dry_run
from internvl_gguf.memory.ggml_allocator import CPU
from internvl_gguf.memory.ggml_scheduler import schedule
from internvl_gguf.memory.plan import text_weights
from internvl_gguf.memory.vision_graph import vision_graph
from internvl_gguf.memory.work_buffer import kept_beside
from internvl_gguf.quantizing import quantize_text
from tests.support.damage import Blueprint, header_of, number, serialise_header, write_sparse
from tests.support.tiny_models import tiny_mmproj, tiny_text, write_tiny_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from internvl_gguf.gguf.header import GGUFHeader

MIB = 1024**2
LOGGED = 0.01 * MIB  # llama.cpp's log rounds to this

# Every KV type, attention of both kinds, contexts from 2k to 32k, small and large batches.
REQUESTS = (
    MemoryRequest(2048),
    MemoryRequest(32768, kv_type="f16", flash_attn=True, n_ubatch=128),
    MemoryRequest(8192, kv_type="f32", n_parallel=4),
    MemoryRequest(8192, kv_type="f32", flash_attn=True, n_ubatch=2048),
    MemoryRequest(4096, kv_type="bf16", n_ubatch=1024, n_draft=15),
    MemoryRequest(16384, kv_type="q8_0", flash_attn=True, n_parallel=3),
    MemoryRequest(32768, kv_type="q4_0", flash_attn=True, n_ubatch=256),
)


def architecture(name: str) -> model_headers.PublishedText:
    """A published shape with a short vocabulary, which loads in no time."""
    return replace(model_headers.TEXT[name], n_vocab=4096)


def written(path: Path, name: str, quant: str = "Q4_K_M", **changes: Any) -> Path:
    """A text model of a published shape, as a header with nothing behind it."""
    shape = replace(architecture(name), **changes)
    header = model_headers.text_header(shape, quant)
    return model_headers.write_sparse(path / "text.gguf", header, model_headers.text_tensors(shape, quant))


def header(name: str, quant: str = "Q4_K_M", **changes: Any) -> GGUFHeader:
    """The header of such a model."""
    shape = replace(architecture(name), **changes)
    data = model_headers.text_header(shape, quant)
    return parse_header(data, model_headers.file_size(data, model_headers.text_tensors(shape, quant)), "text.gguf")


def mmproj_header(name: str = "InternViT-300M", kind: str = "F16", projection: int = 896) -> GGUFHeader:
    """The header of an mmproj of a published shape."""
    shape = model_headers.VISION[name]
    data = model_headers.mmproj_header(shape, kind, projection)
    tensors = model_headers.mmproj_tensors(shape, kind, projection)
    return parse_header(data, model_headers.file_size(data, tensors), "mmproj.gguf")


def tiny_shape(**changes: Any) -> ModelShape:
    return shape_from_headers(header_of(tiny_text(**changes)))


class Prefix:
    """A file of which only the first bytes are at hand, as `hub.RemoteFile` is one."""

    first_window = 4096

    def __init__(self, data: bytes, size: int) -> None:
        self.label, self.size, self._data = "remote.gguf", size, data

    def read_prefix(self, length: int) -> bytes:
        return self._data[:length].ljust(length, b"\0")


@pytest.mark.parametrize(
    ("name", "quant", "layers", "requests"),
    [
        ("0.5B", "Q4_K_M", 24, REQUESTS),
        ("7B", "BF16", 6, REQUESTS[:3]),
        ("14B", "IQ2_XXS", 8, REQUESTS[3:6]),
        ("72B", "Q8_0", 5, REQUESTS[::3]),
        ("Qwen3 0.6B", "Q4_K_M", 28, REQUESTS),
        ("Qwen3 4B", "BF16", 6, REQUESTS[3:]),
        ("Qwen3 30B-A3B", "Q4_K_M", 8, REQUESTS),
        ("Qwen3 235B-A22B", "Q8_0", 4, REQUESTS[::3]),
        ("InternLM2.5 1.8B", "Q4_K_M", 6, REQUESTS),
        ("InternLM2.5 20B", "BF16", 3, REQUESTS[:3]),
        ("InternLM3 8B", "Q6_K", 6, REQUESTS),
    ],
)
def test_the_formula_is_what_llama_cpp_plans(
    name: str, quant: str, layers: int, requests: tuple[MemoryRequest, ...], tmp_path: Path
) -> None:
    path = written(tmp_path, name, quant, n_layers=layers)
    shape = shape_from_headers(header(name, quant, n_layers=layers))
    for request, planned in zip(requests, dry_run(path, requests), strict=True):
        predicted = predict_memory(shape, request)
        assert planned.source == "dry run"
        for part in PARTS:
            ours, theirs = getattr(predicted.host, part), getattr(planned.host, part)
            assert abs(ours - theirs) <= LOGGED, (request, part)


@pytest.mark.parametrize("kind", TEXT_ARCHITECTURES)
def test_the_dry_run_is_what_a_load_logs(kind: str, tmp_path: Path) -> None:
    path = write_tiny_text(tmp_path / "tiny.gguf", n_layers=3, kind=kind)
    requests = [MemoryRequest(512, n_ubatch=64), MemoryRequest(256, kv_type="f32", flash_attn=True, n_parallel=2)]
    planned, loaded = ask(path, requests), ask(path, requests, allocate=True)
    for plan, load in zip(planned, loaded, strict=True):
        assert load["model"]["CPU"] > 0
        assert {**plan, "model": None} == {**load, "model": None}


def test_a_model_in_parts_read_from_afar(tmp_path: Path) -> None:
    whole = tiny_text(weights=False)
    parts = []
    for index in range(2):
        part = Blueprint(whole.keys[:1] if index else list(whole.keys), whole.tensors[index::2])
        part.keys = [*part.keys, *split_keys(index, len(whole.tensors))]
        path = write_sparse(tmp_path / f"{index}.gguf", part)
        parts.append(Prefix(serialise_header(part), path.stat().st_size))
    (planned,) = dry_run(parts, [MemoryRequest(512)])
    assert planned.host.weights == predict_memory(tiny_shape(), MemoryRequest(512)).host.weights


def split_keys(index: int, tensors: int) -> Iterator[Any]:
    from gguf import GGUFValueType

    yield number("split.no", index, GGUFValueType.UINT16)
    yield number("split.count", 2, GGUFValueType.UINT16)
    yield number("split.tensors.count", tensors, GGUFValueType.INT32)


@pytest.mark.parametrize("name", ["14B", "Qwen3 30B-A3B"])
@pytest.mark.parametrize(
    "request_",
    [
        MemoryRequest(8192),
        MemoryRequest(8192, flash_attn=True, gpus=(1,), n_gpu_layers=-1),
        MemoryRequest(8192, gpus=(2, 1), n_gpu_layers=-1),
        MemoryRequest(8192, gpus=(1,), n_gpu_layers=9, n_ubatch=16),
        MemoryRequest(8192, flash_attn=True, kv_type="q8_0", gpus=(1,), n_gpu_layers=9, n_parallel=3),
    ],
    ids=str,
)
def test_leaving_out_layers_changes_nothing(
    name: str, request_: MemoryRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = shape_from_headers(header(name, n_layers=20), mmproj_header())
    short = predict_memory(shape, request_)
    monkeypatch.setattr(plans, "_representative_layers", lambda text, homes, **_: tuple(range(text.n_layers)))
    assert short == predict_memory(shape, request_)


def test_leaving_out_layers_of_the_encoder_changes_nothing() -> None:
    for kind in ("InternViT-300M", "InternViT-6B"):
        vision = shape_from_headers(header("0.5B", n_layers=1), mmproj_header(kind)).vision
        assert vision is not None
        sizes = {schedule(vision_graph(vision, 2, layers), (CPU,)).buffers for layers in (3, 4, vision.n_layers)}
        assert len(sizes) == 1


def test_the_encoder_takes_what_llama_cpp_logs_for_it() -> None:
    # docs/memory.md: logged by a real InternViT-300M and a real InternViT-6B.
    text = header("0.5B", n_layers=1)
    for name, tiles, logged in (
        ("InternViT-300M", 1, 28.03),
        ("InternViT-300M", 4, 112.11),
        ("InternViT-6B", 1, 87.59),
    ):
        plan = predict_memory(shape_from_headers(text, mmproj_header(name)), MemoryRequest(512, tiles_per_batch=tiles))
        assert abs(plan.host.mmproj_compute_buffer - logged * MIB) <= LOGGED


def test_layers_lie_where_they_are_sent() -> None:
    shape = shape_from_headers(header("7B", n_layers=10), mmproj_header(projection=3584))
    whole = predict_memory(shape, MemoryRequest(4096))
    for gpu_layers in (0, 1, 5, 10, 11, -1):
        request = MemoryRequest(4096, gpus=(1, 1), n_gpu_layers=gpu_layers, mmproj_gpu=0, tiles=14, pictures=2)
        plan = predict_memory(shape, request)
        assert sum(device.weights for device in plan.devices) == whole.host.weights
        assert sum(device.kv_cache for device in plan.devices) == whole.host.kv_cache
        on_gpus = 10 if gpu_layers == -1 else max(0, gpu_layers - 1)
        assert sum(device.kv_cache for device in plan.gpus) * 10 == whole.host.kv_cache * on_gpus
        assert plan.gpus[0].mmproj_weights == whole.host.mmproj_weights
        assert plan.host.embeddings == 14 * 256 * 3584 * 4
    assert plan.host.weights == shape.text.embedding.n_bytes  # the tokens' rows alone stay behind
    assert plan.page_cache == whole.host.weights - plan.host.weights


def test_pictures_take_their_positions() -> None:
    shape = shape_from_headers(header("14B"), mmproj_header(projection=5120))
    plan = predict_memory(shape, MemoryRequest(8192, pictures=1, tiles=13))
    assert plan.picture_positions == 13 * 256 + 2
    assert plan.kv_bytes_per_position == 192 * 1024
    assert plan.picture_kv == plan.picture_positions * plan.kv_bytes_per_position
    assert plan.host.embeddings == 13 * 256 * 5120 * 4


def test_an_embedding_that_serves_as_output_is_counted_where_it_is_copied() -> None:
    shape = shape_from_headers(header("1.5B", "F16", tied=True, n_layers=2))
    table = shape.text.embedding.n_bytes
    on_cpu = predict_memory(shape, MemoryRequest(512))
    on_gpu = predict_memory(shape, MemoryRequest(512, gpus=(1,), n_gpu_layers=1))
    assert on_cpu.host.weights == sum(weight.n_bytes for weight in shape.text.weights)
    assert on_gpu.gpus[0].weights == table + shape.text.output_norm.n_bytes
    assert on_gpu.host.weights == on_cpu.host.weights - shape.text.output_norm.n_bytes


def test_without_extra_buffers_nothing_is_copied(tmp_path: Path) -> None:
    """Where the trial found that reordered kernels do not work, weights stay as they are in the file."""
    source = write_tiny_text(tmp_path / "tiny.gguf", n_layers=4, width=128, n_ff=512, tied=True)
    path = quantize_text(source, "Q4_0", tmp_path / "tiny-Q4_0.gguf", pure=True).path
    shape = shape_from_headers(read_header(path))
    requests = [MemoryRequest(256), MemoryRequest(256, extra_buffers=False)]
    with_copies, without = (predict_memory(shape, request) for request in requests)
    loaded = [answer["model"]["CPU"] for answer in ask(path, requests, allocate=True)]
    assert without.page_cache == 0
    assert with_copies.page_cache > 20 * LOGGED
    assert loaded[0] - loaded[1] == pytest.approx(with_copies.page_cache, rel=0.1)  # the file's pages are counted twice
    table = replace(shape.text.embedding, shape=(128, 272))
    tied = replace(shape.text, weights=(table, *(each for each in shape.text.weights if each.name != table.name)))
    homes = ["CPU"] * tied.n_layers
    copied, plain = (text_weights(tied, homes, "CPU", homes, reorders=reorders)["CPU"] for reorders in (True, False))
    assert copied - plain == table.n_bytes


def test_a_listing_comes_close_to_the_header() -> None:
    text, vision = header("14B", "Q6_K"), mmproj_header(projection=5120)
    facts = TextShape("qwen2", 48, 5120, 40, 8, 13824, n_vocab=4096, n_ctx_train=32768)
    vision_facts = VisionShape(24, 1024, 16, 4096, 448, 14, 256, "layernorm")
    listed = shape_from_listing(facts, text.file_size, vision_facts, vision.file_size)
    for request in (MemoryRequest(8192), MemoryRequest(8192, gpus=(1,), n_gpu_layers=20)):
        exact, rough = (predict_memory(shape, request) for shape in (shape_from_headers(text, vision), listed))
        assert (exact.source, rough.source) == ("header", "listing")
        for ours, theirs in zip(rough.devices, exact.devices, strict=True):
            assert abs(ours.total / theirs.total - 1) < 0.02


def test_all_experts_are_in_memory_whatever_a_token_uses() -> None:
    """InternVL3.5-30B-A3B computes like a 3B and takes the memory of a 30B."""
    shape = shape_from_headers(header("Qwen3 30B-A3B", "Q4_K_M"))
    plan = predict_memory(shape, MemoryRequest(8192))
    assert plan.host.weights == sum(weight.n_bytes for weight in shape.text.weights) > 17 * 10**9
    assert plan.kv_bytes_per_position == 98_304


def test_experts_lie_where_they_are_sent() -> None:
    shape = shape_from_headers(header("Qwen3 30B-A3B", n_layers=8))
    whole, some, none = (
        predict_memory(shape, MemoryRequest(4096, flash_attn=True, gpus=(1,), n_gpu_layers=-1, n_cpu_moe=count))
        for count in (0, 3, -1)
    )
    assert len({sum(device.weights for device in plan.devices) for plan in (whole, some, none)}) == 1
    assert some.host.weights - whole.host.weights == sum(shape.text.expert_bytes[:3])
    assert none.host.weights - whole.host.weights == sum(shape.text.expert_bytes)
    assert whole.gpus[0].kv_cache == none.gpus[0].kv_cache  # attention stays on the GPU
    assert none.gpus[0].compute_buffer > whole.gpus[0].compute_buffer  # copies of a layer's experts for large batches


def test_a_plan_is_json_with_its_sums() -> None:
    plan = predict_memory(tiny_shape(), MemoryRequest(512, gpus=(1,), n_gpu_layers=1))
    loaded = json.loads(json.dumps(asdict(plan)))
    assert [device["device"] for device in loaded["devices"]] == ["CPU", "GPU0"]
    for device in loaded["devices"]:
        assert device["total"] == sum(device[part] for part in PARTS)
    assert plan.total == sum(device["total"] for device in loaded["devices"])
    assert set(asdict(DeviceMemory("CPU"))) == {"device", "total", *PARTS}


def test_predicting_needs_no_library() -> None:
    script = "import internvl_gguf.memory, sys; print([m for m in ('llama_cpp', 'numpy', 'gguf') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "values",
    [
        {"n_ctx": 0},
        {"n_ctx": -1},
        {"n_ctx": 10**30},
        {"n_ctx": 8192.5},
        {"n_ctx": 2**26, "n_parallel": 255},
        {"n_parallel": 256},
        {"n_ubatch": 0},
        {"n_ubatch": 4096},
        {"kv_type": "q5_0"},
        {"kv_type": "q8_0"},
        {"n_gpu_layers": -2, "gpus": (1,)},
        {"n_gpu_layers": 1},
        {"mmproj_gpu": 0},
        {"gpus": (0,)},
        {"gpus": (float("nan"),)},
        {"gpus": (1,) * 16},
        {"tiles": 3},
        {"tiles": -1},
        {"tiles_per_batch": 0},
        {"n_threads": 0},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        MemoryRequest(**{"n_ctx": 512, **values})


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (MemoryRequest(513), "513 tokens is more than the 512"),
        (MemoryRequest(512, gpus=(1,), n_gpu_layers=4), "2 layers and an output matrix"),
        (MemoryRequest(512, kv_type="q8_0", flash_attn=True), "heads of a multiple of 32"),
    ],
)
def test_a_configuration_that_the_model_cannot_have(request_: MemoryRequest, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        predict_memory(tiny_shape(), request_)


def test_headers_that_are_no_models() -> None:
    text, mmproj = header_of(tiny_text()), header_of(tiny_mmproj())
    with pytest.raises(ModelFileError, match='architecture is "clip"'):
        shape_from_headers(mmproj)
    with pytest.raises(ModelFileError, match="no mmproj"):
        shape_from_headers(text, text)
    for change in ("blk.1.ffn_up.weight", "token_embd.weight", "qwen2.block_count"):
        plan = tiny_text()
        plan.remove(change)
        with pytest.raises(ModelFileError, match=change):
            shape_from_headers(header_of(plan))
    plan = tiny_text()
    plan.set("qwen2.attention.head_count", 5)
    with pytest.raises(ModelFileError, match="do not divide"):
        shape_from_headers(header_of(plan))
    with pytest.raises(InvalidRequestError, match="holds no such model"):
        shape_from_listing(TextShape("qwen2", 24, 896, 14, 2, 4864), 1000)


def test_a_dry_run_of_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no file"):
        dry_run(tmp_path / "none.gguf", [MemoryRequest(512)])
    (tmp_path / "text.gguf").write_bytes(b"hello, this is no model")
    with pytest.raises(ModelFileError, match="not a GGUF"):
        dry_run(tmp_path / "text.gguf", [MemoryRequest(512)])


def test_llama_cpp_dies_in_the_dry_run(tmp_path: Path) -> None:
    plan = tiny_text(weights=False)
    plan.keys.append(number("qwen2.rope.dimension_count", 8))  # asserted to be the heads' width when the graph is built
    path = write_sparse(tmp_path / "text.gguf", plan)
    with pytest.raises(LibraryError, match=r"of MemoryRequest\(n_ctx=256.*\) ended with status -?\d+ \(") as caught:
        dry_run(path, [MemoryRequest(256), MemoryRequest(512)])
    assert "formula" in caught.value.hint


def test_llama_cpp_refuses_in_the_dry_run(tmp_path: Path) -> None:
    plan = tiny_text(weights=False)
    plan.remove("tokenizer.ggml.model")
    path = write_sparse(tmp_path / "text.gguf", plan)
    with pytest.raises(LibraryError, match="cannot read the header"):
        dry_run(path, [MemoryRequest(512)])


def test_the_dry_run_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_runs, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    path = write_sparse(tmp_path / "text.gguf", tiny_text(weights=False))
    with pytest.raises(LibraryError, match=r"more than 0\.2 seconds"):
        dry_run(path, [MemoryRequest(512)], timeout=0.2)


def test_a_dry_run_answers_for_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {
        "weights": sum(weight.n_bytes for weight in tiny_shape().text.weights),
        "layers": ["CPU", "GPU0", "GPU0"],
        "kv_cache": 131072,
        "output": {"CPU": 0},
        "compute": {"CPU": 0, "GPU0": 0},
    }
    monkeypatch.setattr(dry_runs, "ask", lambda *_, **__: [answer])
    path = write_sparse(tmp_path / "text.gguf", tiny_text(weights=False))
    with pytest.raises(LibraryError, match="GPU0, which the request does not name"):
        dry_run(path, [MemoryRequest(512)])


def test_what_the_c_library_keeps_of_smaller_work_buffers_is_planned() -> None:
    """A process without flash attention took 32 MiB more than its plan once its context had filled."""
    assert kept_beside(5 << 20, 32 << 20) == 0  # the block that was freed is used again
    assert kept_beside(5 << 20, (32 << 20) + 1) == 32 << 20
