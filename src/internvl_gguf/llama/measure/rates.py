"""Measure how fast each device reads and multiplies weights: the child process of `internvl_gguf.hardware.roofline`.

    python -m internvl_gguf.llama.measure.rates [--threads N] [--batch-threads N] [--start JOB] q4_k q6_k f16 ...

The process prints one JSON object a line: first each device, then each measurement when it is done. A device may abort
on a type it lacks, which is why this is a child process; `--start` continues after such a measurement.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from internvl_gguf.config import KV_TYPES
from internvl_gguf.errors import InternVLError
from internvl_gguf.hardware.cores import default_threads
from internvl_gguf.llama.library import Device, devices, gpus
from internvl_gguf.llama.measure.encoder import BLOCK_OPERATIONS, encoder_timing
from internvl_gguf.llama.measure.kernels import AttentionShape, KernelBench, reorders_weights
from internvl_gguf.llama.measure.timing import Timing

# Far more than a CPU's caches hold, so that each matrix comes from memory as it does while a real model decodes.
_WEIGHT_BYTES: Final = 256 * 1024**2
_COLUMNS: Final = 4096
_ROWS: Final = 4096
_BATCH: Final = 512  # llama.cpp's usual ubatch
# Matrices for a batch: a CPU takes 10 to 100 ms for 1024 rows, and a GPU needs more of them to be busy.
_CPU_BATCH_ROWS, _GPU_BATCH_ROWS = 1024, 16384
# Attention as in Qwen2.5 (7 query heads share the keys of one), with more keys and values than caches hold.
_DECODING: Final = AttentionShape(heads=14, kv_heads=2, head_dim=128, positions=4096, tokens=1, layers=12)
_READING: Final = AttentionShape(heads=14, kv_heads=2, head_dim=128, positions=1024, tokens=_BATCH, layers=1)
_KV_TYPES: Final = ("f16", *(each for each in KV_TYPES if each != "f16"))  # the default one first
_ENCODER_TYPES: Final = ("f16", "bf16", "f32", "q8_0")
_NODES, _NODE_WIDTH = 256, 1024
_SECOND_TRIES: Final = 2  # repetitions of disturbed measurements
_UPLOAD_BYTES: Final = 256 * 1024**2
_OF_BATCHES: Final = (
    "matrix_rate",
    "plain_matrix_rate",
    "attention_rate",
    "encoder_rate",
)  # computed by the threads for batches


@dataclass(frozen=True)
class _Job:
    """One measurement.

    Attributes:
        table: field of `DeviceSpeed` that it fills; "host_to_gpu" for that of the roofline.
        key: key in that table; empty if the field is no table.
        amount: bytes or operations of one run.
        run: performs the measurement; returns None if the device cannot.
        n_threads: CPU threads to run it with.
    """

    table: str
    key: str
    amount: float
    run: Callable[[KernelBench], Timing | None]
    n_threads: int = 1


def device_jobs(device: Device, kinds: Sequence[str], n_threads: int, n_threads_batch: int) -> list[_Job]:
    """Return the measurements of a device, the most useful first; see `measurements` for arguments."""
    is_gpu = device.kind != "cpu"
    jobs = [_Job("node_seconds", "", _NODES, lambda bench: bench.small_operations(_NODES, _NODE_WIDTH))]
    if is_gpu:
        jobs.append(_Job("host_to_gpu", "", _UPLOAD_BYTES, lambda bench: bench.uploads(_UPLOAD_BYTES)))
    rows = _GPU_BATCH_ROWS if is_gpu else _CPU_BATCH_ROWS
    for kind in kinds:
        weight = GGMLQuantizationType[kind.upper()]
        matrix = _bytes(weight, _COLUMNS * _ROWS)
        sizes = {"kind": weight, "columns": _COLUMNS}
        read = {**sizes, "rows": _ROWS, "tokens": 1, "total": _WEIGHT_BYTES}
        multiplied = {**sizes, "rows": rows, "tokens": _BATCH, "total": 0}
        n_bytes, operations = _WEIGHT_BYTES // matrix * matrix, 2 * _COLUMNS * rows * _BATCH
        jobs.append(_Job("bandwidth", kind, n_bytes, partial(KernelBench.products, **read)))
        jobs.append(_Job("matrix_rate", kind, operations, partial(KernelBench.products, **multiplied)))
        if not is_gpu:
            jobs.append(_Job("plain_bandwidth", kind, n_bytes, partial(KernelBench.plain_products, **read)))
            jobs.append(_Job("plain_matrix_rate", kind, operations, partial(KernelBench.plain_products, **multiplied)))
    for kind in (each for each in _KV_TYPES if each in kinds):
        jobs += _attention_jobs(kind)
    for kind in (each for each in _ENCODER_TYPES if each in kinds):
        weight = GGMLQuantizationType[kind.upper()]
        jobs.append(_Job("encoder_rate", kind, BLOCK_OPERATIONS, partial(_encode, weight, is_gpu)))
    return [replace(job, n_threads=n_threads_batch if job.table in _OF_BATCHES else n_threads) for job in jobs]


def _attention_jobs(kind: str) -> list[_Job]:
    """Return measurements of attention over a KV type: with flash attention and, unless quantised, without."""
    weight = GGMLQuantizationType[kind.upper()]
    per_layer = 2 * _DECODING.kv_heads * _DECODING.head_dim * _DECODING.positions
    cache = _DECODING.layers * _bytes(weight, per_layer)
    operations = 4 * _READING.heads * _READING.head_dim * _READING.positions * _READING.tokens
    jobs = []
    for flash in (False, True) if GGML_QUANT_SIZES[weight][0] == 1 else (True,):
        key = f"{kind} flash" if flash else kind
        for table, amount, shape in (
            ("attention_bandwidth", cache, _DECODING),
            ("attention_rate", operations, _READING),
        ):
            jobs.append(_Job(table, key, amount, partial(KernelBench.attention, kind=weight, shape=shape, flash=flash)))
    return jobs


def _encode(kind: GGMLQuantizationType, use_gpu: bool, bench: KernelBench) -> Timing:
    return encoder_timing(kind, bench.n_threads, use_gpu=use_gpu)


def _bytes(kind: GGMLQuantizationType, elements: int) -> int:
    block, size = GGML_QUANT_SIZES[kind]
    return int(elements // block * size)


def measurements(kinds: Sequence[str], n_threads: int, n_threads_batch: int, start: int) -> Iterator[dict[str, Any]]:
    """Yield every device of this machine, then its measurements.

    Args:
        kinds: weight types by name, in lower case.
        n_threads: CPU threads for one token.
        n_threads_batch: CPU threads for many tokens and for the encoder.
        start: number of measurements to skip, counted from the first device on.

    Yields:
        for each device `device`, `kind`, `name`, `description` and `jobs`, the number of its measurements; then for
        each measurement `device`, `job`, its number from 1 on, `table`, `key`, `amount`, `seconds` of the fastest
        sample and the median one and `disturbed`, or `error` in place of these three. A disturbed measurement may
        be repeated; the last one counts.
    """
    found = _used(devices())
    plans = [device_jobs(device, kinds, n_threads, n_threads_batch) for _, device in found]
    for (index, device), jobs in zip(found, plans, strict=True):
        kind = "cpu" if device.kind == "cpu" else "gpu"
        named = {"name": device.name, "description": device.description}
        yield {"device": index, "kind": kind, **named, "jobs": len(jobs)}
    reorders = reorders_weights(found, (kind.upper() for kind in kinds))
    number = 0
    for (index, _), jobs in zip(found, plans, strict=True):
        left = jobs[max(0, start - number) :]
        number += len(jobs) - len(left)
        if not left:
            continue
        try:
            bench = KernelBench(index, n_threads=n_threads, reorders=reorders)
        except InternVLError as error:
            number += len(left)
            yield {"device": index, "job": number, "table": "", "key": "", "error": error.message}
            continue
        with bench:
            for line in _all_measured(left, bench, number):
                yield {"device": index} | line
        number += len(left)


def _used(found: Sequence[Device]) -> list[tuple[int, Device]]:
    """Return the CPU and the GPUs that a model may lie on, with their numbers."""
    used = [*(device for device in found if device.kind == "cpu"), *gpus(found)]
    return [(found.index(device), device) for device in used]


def _all_measured(jobs: Sequence[_Job], bench: KernelBench, before: int) -> Iterator[dict[str, Any]]:
    """Measure the jobs one after another, then the disturbed ones again."""
    disturbed: list[tuple[_Job, dict[str, Any]]] = []
    for number, job in enumerate(jobs, before + 1):
        line: dict[str, Any] = {"job": number, "table": job.table, "key": job.key}
        line |= _measured(job, bench)
        yield line
        if line.get("disturbed"):
            disturbed.append((job, line))
    for _ in range(_SECOND_TRIES):
        for index, (job, line) in enumerate(disturbed):
            again = line | _measured(job, bench)
            if again["seconds"][0] < line["seconds"][0] or not again["disturbed"]:
                yield again
                disturbed[index] = job, again
        disturbed = [(job, line) for job, line in disturbed if line["disturbed"]]


def _measured(job: _Job, bench: KernelBench) -> dict[str, Any]:
    bench.use_threads(job.n_threads)
    try:
        timing = job.run(bench)
    except InternVLError as error:
        return {"error": error.message}
    if timing is None:
        return {"error": "the device cannot do it"}
    return {"amount": job.amount, "seconds": [timing.fastest, timing.median], "disturbed": timing.disturbed}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="+")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--batch-threads", type=int)
    parser.add_argument("--start", type=int, default=0)
    asked = parser.parse_args()
    for line in measurements(asked.kinds, asked.threads, asked.batch_threads or asked.threads, asked.start):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
