"""Measure CPU work with other thread counts and batch sizes: the child process of `internvl_gguf.hardware.cpu_tuning`.

    python -m internvl_gguf.llama.measure.threads threads 1 2 4
    python -m internvl_gguf.llama.measure.threads sizes --threads 2 --batch-threads 4 --answers 1 2 4 -- 256 512 1024

The process prints one JSON object a line: `table`, `setting`, the `seconds` of each sample, and `disturbed`. The runs
of one table are measured in turns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gguf import GGMLQuantizationType

from internvl_gguf.llama.library import devices
from internvl_gguf.llama.measure.kernels import AttentionShape, KernelBench, Run, reorders_weights
from internvl_gguf.llama.measure.timing import DEFAULT_LIMITS, Samples, TimedRun, TimingLimits, time_interleaved

_KIND: Final = GGMLQuantizationType.Q4_K  # what most published files hold most of
_ADDITIONS: Final = 3  # small operations after a matrix: a layer has 7 matrices and 24 of these
_SAMPLES: Final = 5
_ATTENTION_SAMPLES: Final = 3  # these times are only shown, nothing is chosen by them
_CACHES: Final = {
    "f16": (GGMLQuantizationType.F16, False),
    "f16 flash": (GGMLQuantizationType.F16, True),
    "q8_0 flash": (GGMLQuantizationType.Q8_0, True),
}
_BATCH: Final = 512
_DECODING: Final = AttentionShape(heads=14, kv_heads=2, head_dim=128, positions=4096, tokens=1, layers=12)
_READING: Final = AttentionShape(heads=7, kv_heads=1, head_dim=128, positions=4096, tokens=_BATCH, layers=1)


@dataclass(frozen=True)
class WorkSizes:
    """Sizes of the work that is timed.

    Attributes:
        width: values of the matrices' rows and of what is multiplied.
        weight_bytes: bytes of all matrices that one token goes through, far more than a CPU's caches hold.
        batch: tokens of a batch.
        ubatch_rows: rows of the matrix that batches of several sizes go through.
        decoding: attention of one token as in Qwen2.5, 7 query heads to one of keys, with more keys and values than
            caches hold.
        reading: attention of a batch, alike.
        waking: additions and their width, enough to start the threads of a team.
    """

    width: int = 4096
    weight_bytes: int = 256 * 1024**2
    batch: int = _BATCH
    ubatch_rows: int = 2048
    decoding: AttentionShape = _DECODING
    reading: AttentionShape = _READING
    waking: tuple[int, int] = (16, 1024)


_FULL_SIZES: Final = WorkSizes()


def thread_tables(
    bench: KernelBench, counts: Sequence[int], sizes: WorkSizes = _FULL_SIZES
) -> Iterator[dict[str, Any]]:
    """Measure one token, and 512, with each number of threads: tables `token` and `batch`, by threads."""
    for table, tokens, total in (("token", 1, sizes.weight_bytes), ("batch", sizes.batch, 0)):
        with (
            bench.multiplying(_KIND, sizes.width, sizes.width, tokens, total, _ADDITIONS) as run,
            bench.adding(*sizes.waking) as wake,
        ):
            yield from _lines(table, {str(count): (run, count) for count in counts}, bench, wake, _SAMPLES)


def size_tables(
    bench: KernelBench,
    n_threads: int,
    n_threads_batch: int,
    ubatches: Sequence[int],
    answers: Sequence[int],
    sizes: WorkSizes = _FULL_SIZES,
) -> Iterator[dict[str, Any]]:
    """Measure batches of several sizes, several answers at once, and attention at a depth of 4,096.

    Args:
        bench: the CPU.
        n_threads: threads for one token.
        n_threads_batch: threads for more.
        ubatches: positions computed at once.
        answers: numbers of answers of which one token each is computed at once.
        sizes: of everything else.

    Yields:
        lines of the tables `ubatch`, by size, `answers`, by their number, and `token attention` and `batch attention`,
        by type of keys and values.
    """
    with ExitStack() as ready:
        wake = ready.enter_context(bench.adding(*sizes.waking))
        with ExitStack() as graphs:
            runs = {
                str(size): (
                    graphs.enter_context(bench.multiplying(_KIND, sizes.width, sizes.ubatch_rows, size, 0, _ADDITIONS)),
                    n_threads_batch,
                )
                for size in ubatches
            }
            yield from _lines("ubatch", runs, bench, wake, _SAMPLES)
        with ExitStack() as graphs:
            width, total = sizes.width, sizes.weight_bytes
            runs = {
                str(count): (
                    graphs.enter_context(bench.multiplying(_KIND, width, width, count, total, _ADDITIONS)),
                    n_threads if count == 1 else n_threads_batch,
                )
                for count in answers
            }
            yield from _lines("answers", runs, bench, wake, _SAMPLES)
        for table, shape, threads in (
            ("token attention", sizes.decoding, n_threads),
            ("batch attention", sizes.reading, n_threads_batch),
        ):
            with ExitStack() as graphs:
                runs = {
                    name: (graphs.enter_context(bench.attending(kind, shape, flash=flash)), threads)
                    for name, (kind, flash) in _CACHES.items()
                }
                yield from _lines(table, runs, bench, wake, _ATTENTION_SAMPLES)


def _lines(
    table: str, runs: Mapping[str, tuple[Run | None, int]], bench: KernelBench, wake: Run, n_samples: int
) -> Iterator[dict[str, Any]]:
    """Measure every run in turns, each with its threads, which are started before its time counts."""

    def prepare(threads: int) -> None:
        bench.use_threads(threads)
        wake()

    trials = {name: TimedRun(partial(prepare, threads), run, threads) for name, (run, threads) in runs.items() if run}
    for name, samples in time_interleaved(trials, n_samples, bench.limits).items():
        yield _line(table, name, samples)


def _line(table: str, setting: str, samples: Samples) -> dict[str, Any]:
    return {"table": table, "setting": setting, "seconds": samples.seconds, "disturbed": samples.disturbed}


def cpu_bench(limits: TimingLimits = DEFAULT_LIMITS) -> KernelBench:
    """Return the CPU, with weights where llama.cpp would put them."""
    found = list(enumerate(devices()))
    index = next(index for index, device in found if device.kind == "cpu")
    return KernelBench(index, n_threads=1, reorders=reorders_weights(found, [_KIND.name]), limits=limits)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser()
    tables = parser.add_subparsers(dest="tables", required=True)
    threads = tables.add_parser("threads")
    threads.add_argument("counts", type=int, nargs="+")
    sizes = tables.add_parser("sizes")
    sizes.add_argument("ubatches", type=int, nargs="+")
    sizes.add_argument("--threads", type=int, required=True)
    sizes.add_argument("--batch-threads", type=int, required=True)
    sizes.add_argument("--answers", type=int, nargs="+", required=True)
    asked = parser.parse_args()
    with cpu_bench() as bench:
        lines = (
            thread_tables(bench, asked.counts)
            if asked.tables == "threads"
            else size_tables(bench, asked.threads, asked.batch_threads, asked.ubatches, asked.answers)
        )
        for line in lines:
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
