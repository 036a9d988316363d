"""Memory as predicted, against what llama.cpp plans, what it allocates, and what the system counts.

Method. Headers of the published shapes and quants are written without weights (`model_headers.py`). On each of them a
sample of configurations, drawn with a fixed seed, is predicted by formula and asked of llama.cpp (`memory.dry_run`).
Small models, their weights zero, are really loaded: the dry run is compared with what the load logs, and the sum of all
parts with the peak of a process that loads both files, encodes tiles and fills its context. An mmproj's compute buffer
is compared with the log of a real encoder. GPUs are not to be had here: with --stand-in, llama.cpp places the graphs on
devices that compute nothing and follow CUDA's rules (`stand_in_gpu.cpp`, which says how to build it).

    python benchmarks/memory.py [--stand-in stand_in_gpu.so] [--write docs/memory.md]

Takes a few minutes, 2 GB of memory and a few MB of disk. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import model_headers as headers
from internvl_gguf.config import KVType
from internvl_gguf.gguf.arch.base import VisionShape
from internvl_gguf.gguf.header import read_header
from internvl_gguf.llama.library import build
from internvl_gguf.llama.synthetic import write_vocabulary
from internvl_gguf.memory import DeviceMemory, MemoryPlan, MemoryRequest, predict_memory, shape_from_headers
from internvl_gguf.memory.dry_run import ask, dry_run
from pages import write_between_markers

MIB = 1024**2
CHILDREN = Path(__file__).with_name("memory_children.py")
MEASURED = ("weights", "kv_cache", "compute_buffer", "output_buffer")
LARGE = 16 * MIB  # parts below this are compared as part of the total only
PER_FILE = 10
SMALL = replace(headers.TEXT["0.5B"], n_layers=6)
EXPERTS = replace(headers.TEXT["Qwen3 30B-A3B"], n_layers=8, n_vocab=4096)
SMALL_EXPERTS = replace(
    EXPERTS,
    n_layers=3,
    n_embd=256,
    n_head=4,
    n_head_kv=2,
    n_expert=8,
    n_expert_used=2,
    n_ff_exp=256,
    name="small experts",
)
SMALL_VISION = replace(headers.VISION["InternViT-300M"], n_layers=3)


@dataclass(frozen=True)
class Comparison:
    """A number in two versions, in bytes."""

    what: str
    configuration: str
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """Relative; positive where the prediction is too high."""
        return self.predicted / self.measured - 1 if self.measured else float(self.predicted != 0)


def draw_requests(count: int, seed: str) -> list[MemoryRequest]:
    """Configurations of a fixed draw: contexts, KV types, flash attention, batches, sequences."""
    kv_types: tuple[KVType, ...] = get_args(KVType)
    every = [
        (n_ctx, kv_type, flash_attn, n_ubatch, n_parallel, n_candidates)
        for n_ctx, kv_type, flash_attn, n_ubatch, n_parallel, n_candidates in itertools.product(
            (2048, 4096, 8192, 16384, 32768),
            kv_types,
            (False, True),
            (128, 256, 512, 1024, 2048),
            (1, 1, 1, 4),
            (1, 8, 8),
        )
        if flash_attn or kv_type not in ("q8_0", "q4_0")
    ]
    return [
        MemoryRequest(
            n_ctx,
            n_parallel=n_parallel,
            n_candidates=n_candidates,
            n_ubatch=n_ubatch,
            kv_type=kv_type,
            flash_attn=flash_attn,
        )
        for n_ctx, kv_type, flash_attn, n_ubatch, n_parallel, n_candidates in random.Random(seed).sample(every, count)
    ]


def named(model: str, request: MemoryRequest) -> str:
    """A configuration in words."""
    words = [model, f"n_ctx {request.n_ctx}", f"KV {request.kv_type}"]
    words += ["flash attention" if request.flash_attn else "no flash attention", f"n_ubatch {request.n_ubatch}"]
    if request.n_parallel > 1:
        words.append(f"{request.n_parallel} conversations")
    if request.n_candidates > 1:
        words.append(f"{request.n_candidates} candidates")
    if request.gpus:
        words.append(f"{request.n_gpu_layers} layers on {len(request.gpus)} GPU{'s' * (len(request.gpus) > 1)}")
    if request.n_cpu_moe:
        words.append(f"experts of {'all' if request.n_cpu_moe == -1 else request.n_cpu_moe} layers on the host")
    return ", ".join(words)


def compare(name: str, predicted: MemoryPlan, measured: MemoryPlan) -> list[Comparison]:
    """The total and each large part of each device, as far as llama.cpp tells them."""

    def size(device: DeviceMemory, parts: Iterable[str] = MEASURED) -> int:
        return sum(getattr(device, part) for part in parts)

    found = []
    for ours, theirs in zip(predicted.devices, measured.devices, strict=True):
        found.append(Comparison("total", name, size(ours), size(theirs)))
        found += [
            Comparison(part, name, size(ours, (part,)), size(theirs, (part,)))
            for part in MEASURED
            if max(size(ours, (part,)), size(theirs, (part,))) >= LARGE
        ]
    return found


def write_text(folder: Path, architecture: headers.PublishedText, quant: str) -> Path:
    """A sparse text model."""
    header = headers.text_header(architecture, quant)
    return headers.write_sparse(folder / "text.gguf", header, headers.text_tensors(architecture, quant))


def write_mmproj(folder: Path, architecture: VisionShape, kind: str, n_embd: int) -> Path:
    """A sparse mmproj."""
    header = headers.mmproj_header(architecture, kind, n_embd)
    return headers.write_sparse(folder / "mmproj.gguf", header, headers.mmproj_tensors(architecture, kind, n_embd))


def formula_against_dry_run(folder: Path) -> tuple[list[Comparison], list[float]]:
    """All text models, every quant among them; also the seconds of each call of `dry_run`."""
    found, seconds = [], []
    quants = list(headers.QUANTS)
    for index, architecture in enumerate(headers.TEXT.values()):
        for quant in quants[index :: len(headers.TEXT)]:
            path = write_text(folder, architecture, quant)
            requests = draw_requests(PER_FILE, f"{architecture.name} {quant}")
            shape = shape_from_headers(read_header(path))
            started = time.perf_counter()
            measured = dry_run(path, requests)
            seconds.append(time.perf_counter() - started)
            for request, plan in zip(requests, measured, strict=True):
                name = named(f"{architecture.name} {quant}", request)
                found += compare(name, predict_memory(shape, request), plan)
    return found, seconds


def dry_run_against_load(folder: Path) -> list[Comparison]:
    """Small models that are really loaded: buffers in the log of the load against those of the dry run."""
    found = []
    for quant in ("F16", "Q8_0", "Q4_K_M", "Q4_0"):
        path = write_text(folder, SMALL, quant)
        requests = draw_requests(PER_FILE, f"load {quant}")
        for request, planned, loaded in zip(
            requests, ask(path, requests), ask(path, requests, allocate=True), strict=True
        ):
            name = named(f"0.5B of {SMALL.n_layers} layers {quant}", request)
            found.append(Comparison("kv_cache", name, planned["kv_cache"], loaded["kv_cache"]))
            for part in ("compute", "output"):
                found.append(Comparison(f"{part}_buffer", name, planned[part]["CPU"], loaded[part]["CPU"]))
    return found


def sum_against_peak(folder: Path) -> list[Comparison]:
    """The sum of all parts against the peak of a process that uses the model."""
    found = []
    configurations: list[tuple[str, int, KVType, bool, int, int]] = [
        ("F16", 2048, "f16", False, 512, 1),
        ("F16", 4096, "f16", False, 512, 2),
        ("F16", 4096, "q8_0", True, 512, 2),
        ("Q8_0", 4096, "f32", False, 1024, 1),
        ("Q4_K_M", 4096, "f16", False, 512, 2),
        ("Q4_K_M", 4096, "f16", True, 2048, 4),
        ("Q4_0", 4096, "f16", False, 512, 2),
        ("Q4_0", 2048, "bf16", False, 256, 2),
    ]
    for quant, n_ctx, kv_type, flash_attn, n_ubatch, tiles in configurations:
        text = write_text(folder, SMALL, quant)
        mmproj = write_mmproj(folder, SMALL_VISION, "F16", SMALL.n_embd)
        request = MemoryRequest(
            n_ctx, n_ubatch=n_ubatch, kv_type=kv_type, flash_attn=flash_attn, pictures=1, tiles=tiles
        )
        fields = ("n_ctx", "kv_type", "flash_attn", "n_ubatch", "n_batch", "tiles")
        asked = {"text": str(text), "mmproj": str(mmproj), **{name: getattr(request, name) for name in fields}}
        answer = child(["run"], asked, cache=folder)
        plan = predict_memory(shape_from_headers(read_header(text), read_header(mmproj)), request)
        name = f"{named(f'0.5B of {SMALL.n_layers} layers {quant}', request)}, {tiles} tiles"
        found.append(Comparison("peak", name, plan.total + plan.page_cache, answer["peak"]))
    return found


def mmproj_against_load(folder: Path) -> list[Comparison]:
    """Compute buffers of encoders in each precision and batch size; their size does not depend on the layers."""
    found = []
    for kind, n_embd, tiles in (
        ("F32", 896, [1]),
        ("F16", 896, [1]),
        ("BF16", 896, [1]),
        ("Q8_0", 896, [1]),
        ("F16", 5120, [1]),
        ("F16", 8192, [1]),
    ):
        path = write_mmproj(folder, SMALL_VISION, kind, n_embd)
        vocabulary = folder / "vocabulary.gguf"
        write_vocabulary(vocabulary, n_embd)
        asked = {"mmproj": str(path), "vocabulary": str(vocabulary), "n_embd": n_embd, "tiles": tiles}
        text = write_text(folder, replace(headers.TEXT["0.5B"], n_layers=1, n_embd=n_embd, n_head=n_embd // 64), "F16")
        shape = shape_from_headers(read_header(text), read_header(path))
        for count, size in zip(tiles, child(["mmproj"], asked), strict=True):
            plan = predict_memory(shape, MemoryRequest(2048, tiles_per_batch=count))
            name = f"InternViT-300M {kind}, text width {n_embd}, {count} tiles at once"
            found.append(Comparison("mmproj_compute_buffer", name, plan.host.mmproj_compute_buffer, size))
    return found


def formula_against_stand_in(folder: Path, library: Path) -> list[Comparison]:
    """Buffers by device with one to three GPUs of CUDA's rules: planned for large models, loaded for a small one."""
    found = []
    for model, quant, gpus in (("0.5B", "Q4_K_M", 1), ("7B", "Q6_K", 1), ("14B", "IQ2_XXS", 2), ("1.5B", "Q5_K_M", 3)):
        found += on_stand_in(folder, library, headers.TEXT[model], quant, gpus, allocate=False)
    for gpus in (1, 2, 3):
        found += on_stand_in(folder, library, SMALL, "Q4_K_M", gpus, allocate=True)
    for gpus in (1, 2):
        found += on_stand_in(folder, library, EXPERTS, "Q4_K_M", gpus, allocate=False)
    return found + on_stand_in(folder, library, SMALL_EXPERTS, "Q8_0", 1, allocate=True)


def on_stand_in(
    folder: Path, library: Path, architecture: headers.PublishedText, quant: str, gpus: int, *, allocate: bool
) -> list[Comparison]:
    """One model with none, one, half and all of its layers on GPUs, and with experts of some layers on the host."""
    path = write_text(folder, architecture, quant)
    shape = shape_from_headers(read_header(path))
    layers = architecture.n_layers
    requests = [
        replace(request, gpus=(3.0, 1.0, 2.0)[:gpus], n_gpu_layers=count, n_cpu_moe=experts)
        for experts in ((0, 1, layers // 2, -1) if architecture.n_expert else (0,))
        for count in (0, 1, layers // 2, layers, layers + 1)
        for request in draw_requests(6, f"{architecture.name} {count}")
    ]
    configurations = [_configuration(each) for each in requests]
    asked = {"path": str(path), "allocate": allocate, "configurations": configurations}
    found = []
    for request, answer in zip(requests, child(["stand-in", str(gpus), str(library.resolve())], asked), strict=True):
        name = named(f"{architecture.name} of {layers} layers {quant}", request)
        is_pipeline = gpus > 1 and request.n_gpu_layers > layers
        how = "loaded" if allocate else "planned, several GPUs with all layers" if is_pipeline else "planned"
        for device in predict_memory(shape, request).devices:
            parts = (("compute", device.compute_buffer), ("model", device.weights if allocate else 0))
            found += [
                Comparison(f"{part}, {how}", f"{name}, {device.device}", ours, answer[part][device.device])
                for part, ours in parts
                if answer[part].get(device.device)
            ]
    return found


def _configuration(request: MemoryRequest) -> dict[str, Any]:
    names = (
        *("n_ctx", "n_parallel", "n_candidates", "n_batch", "n_ubatch", "n_draft", "kv_type", "flash_attn"),
        *("n_gpu_layers", "n_cpu_moe", "gpus", "n_threads", "extra_buffers"),
    )
    return {name: getattr(request, name) for name in names}


def child(arguments: Sequence[str], request: dict[str, Any], cache: Path | None = None) -> Any:
    """What a process of `memory_children.py` answers."""
    environment = {**os.environ, **({"INTERNVL_CACHE": str(cache / "cache")} if cache else {})}
    command = [sys.executable, str(CHILDREN), *arguments]
    done = subprocess.run(
        command, input=json.dumps(request), stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def summary(title: str, comparisons: list[Comparison]) -> list[str]:
    """A table of each kind of number: how many were compared, the median error, the worst with its configuration."""
    lines = [f"### {title}", "", "| | compared | median error | largest error | at |", "|---|---|---|---|---|"]
    for what in dict.fromkeys(each.what for each in comparisons):
        some = [each for each in comparisons if each.what == what]
        errors = sorted(abs(each.error) for each in some)
        worst = max(some, key=lambda each: abs(each.error))
        sizes = f"{worst.predicted / MIB:,.2f} for {worst.measured / MIB:,.2f} MiB"
        lines.append(
            f"| {what} | {len(some)} | {errors[len(errors) // 2]:.3%} | {worst.error:+.3%} ({sizes}) |"
            f" {worst.configuration} |"
        )
    return [*lines, ""]


def rows(title: str, comparisons: list[Comparison]) -> list[str]:
    """A table of every comparison."""
    lines = [f"### {title}", "", "| configuration | predicted, MiB | measured, MiB | error |", "|---|---|---|---|"]
    lines += [
        f"| {each.configuration} | {each.predicted / MIB:,.2f} | {each.measured / MIB:,.2f} | {each.error:+.2%} |"
        for each in comparisons
    ]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stand-in", type=Path, help="the library built from stand_in_gpu.cpp")
    parser.add_argument("--write", type=Path, help="page to write the tables to")
    arguments = parser.parse_args()
    lines: list[str] = []
    result: dict[str, Any] = {"benchmark": "memory", "build": build()}

    def report(
        key: str, title: str, table: Callable[[str, list[Comparison]], list[str]], found: list[Comparison]
    ) -> None:
        part = table(title, found)
        print("\n".join(part), flush=True)
        lines.extend(part)
        worst = max(found, key=lambda each: abs(each.error))
        configurations = len({each.configuration for each in found})
        result[key] = {
            "configurations": configurations,
            "largest_error": worst.error,
            "of": worst.what,
            "at": worst.configuration,
        }

    with tempfile.TemporaryDirectory(prefix="internvl-memory-") as name:
        folder = Path(name)
        found, seconds = formula_against_dry_run(folder)
        report("formula", "Formula against dry run", summary, found)
        result["dry_run_seconds"] = sorted(seconds)[len(seconds) // 2]
        report("load", "Dry run against the log of a real load", summary, dry_run_against_load(folder))
        report("mmproj", "mmproj: formula against the log of a real encoder", rows, mmproj_against_load(folder))
        report("peak", "Sum of all parts against the peak of a process", rows, sum_against_peak(folder))
        if arguments.stand_in:
            found = formula_against_stand_in(folder, arguments.stand_in)
            report("gpus", "Formula against llama.cpp's placement on stand-in GPUs", summary, found)
    if arguments.write:
        write_between_markers(arguments.write, "memory", lines)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
