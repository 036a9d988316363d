"""The same lines answered by workers and by actors of Ray on this machine: what the cluster costs.

Method. Drawn pictures (`internvl_gguf.demo.pictures`), one tile each, are asked about by as many workers as actors,
with the same threads each, and by one of either. Nothing comes from the disk cache. Rounds alternate; the first is a
warm-up. Two figures: pictures a second from the first model loaded to the last answer (the cluster is started before,
and its actors load their models within), and in the steady state: without what is answered before each has had its
first batch, and without the last batch, in which some are idle.

The simulation (`pipeline.py`) is given what one actor was measured at, and its prediction for two stands beside it.

    python benchmarks/ray_overhead.py [--model TEXT.gguf] [--pictures N] [--rounds N] [--threads N] [--quick]

--threads is for each worker. Needs the extra `ray`. The last line of the output is one JSON document.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import measure
from internvl_gguf.bulk.answer_lines import answer_lines
from internvl_gguf.bulk.answerer import Answered, Answering, LoadedFacts, PlacedLine
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.bulk.pool import Told
from internvl_gguf.config import EngineConfig, SamplingParams
from internvl_gguf.demo.pictures import draw_pictures
from internvl_gguf.hardware.identity import processor_name
from internvl_gguf.ray import lines as on_ray
from internvl_gguf.ray.dataset import BATCH_SIZE
from internvl_gguf.types import Reply
from pipeline import Rates, simulate

PICTURES, QUICK_PICTURES = 1000, 12
TOKENS: Final = 8
PROMPT: Final = "How many shapes are there?"
ACTORS: Final = 2


@dataclass
class Run:
    """Outcomes of a run, by the time at which each came.

    Attributes:
        times: seconds since `started`.
        failed: how many had no answer.
    """

    started: float = field(default_factory=time.perf_counter)
    times: list[float] = field(default_factory=list)
    failed: int = 0

    def answered(self, outcome: Answered) -> None:
        """Note an outcome."""
        self.times.append(time.perf_counter() - self.started)
        self.failed += not isinstance(outcome.outcome, Reply)

    def ready(self, facts: LoadedFacts, devices: int) -> None:
        """Begin: the first model is loaded."""
        self.started = time.perf_counter()

    @property
    def whole(self) -> float:
        """Pictures a second of all of it."""
        return len(self.times) / self.times[-1]

    def steady(self, left_out: int) -> float:
        """Pictures a second without so many at the beginning, and as many at the end."""
        times = sorted(self.times)
        first, last = times[left_out], times[-1 - left_out]
        return (len(times) - 2 * left_out - 1) / (last - first)


def by_workers(answering: Answering, lines: Sequence[PlacedLine], workers: int, _turn: int) -> Run:
    """A run by workers of this machine; one is in this process."""
    run = Run()

    def nothing(_: object) -> None:
        pass

    answer_lines(answering, lines, len(lines), Told(run.answered, nothing, nothing, nothing, run.ready), workers)
    return run


def by_ray(answering: Answering, lines: Sequence[PlacedLine], actors: int, _turn: int) -> Run:
    """A run by actors."""
    run = Run()
    on_ray.answer_lines(answering, lines, run.answered, actors)
    return run


def main() -> None:
    parser = measure.parser(__doc__, rounds=3, mmproj=True)
    parser.add_argument("--pictures", type=measure.positive, default=PICTURES)
    arguments = parser.parse_args()
    files = measure.model_files(arguments)
    count = QUICK_PICTURES if arguments.quick else arguments.pictures
    threads = max(1, arguments.threads // ACTORS)
    engine = EngineConfig(n_ctx=1024, n_threads=threads, n_parallel=4, embedding_disk_bytes=0)
    opening = {"system": None, "max_tiles": 1, "min_tiles": None, "thumbnail": True, **engine.options}
    common = Common(prompt=PROMPT, sampling=SamplingParams(max_tokens=TOKENS))
    answering = Answering(files, opening, {}, common)
    with tempfile.TemporaryDirectory() as root, on_ray.cluster(on_ray.LOCAL):
        folder = Path(root) / "photos"
        draw_pictures(folder, count)
        lines = [
            PlacedLine(place, Line(place + 1, json.dumps({"images": [str(path)]}).encode()))
            for place, path in enumerate(sorted(folder.iterdir()))
        ]
        sides: dict[str, Callable[[int], Run]] = {}
        for number in (1, ACTORS):
            # Workers share the threads that they are given; an actor has as many for itself.
            shared = answering.with_engine(n_threads=threads * number)
            sides[f"{number} workers"] = partial(by_workers, shared, lines, number)
            sides[f"{number} actors"] = partial(by_ray, answering, lines, number)
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    rows, result = [], {}
    left_out = min(ACTORS * BATCH_SIZE, count // 4)
    for name, runs in found.items():
        whole = measure.Spread(tuple(run.whole for run in runs))
        steady = measure.Spread(tuple(run.steady(left_out) for run in runs))
        rows.append([name, str(whole), str(steady), str(sum(run.failed for run in runs))])
        result[name] = {"whole": whole.as_json(), "steady": steady.as_json()}
    ratio = measure.ratios(
        [run.steady(left_out) for run in found[f"{ACTORS} actors"]],
        [run.steady(left_out) for run in found[f"{ACTORS} workers"]],
    )
    one = result["1 actors"]["steady"]["median"]
    predicted = simulate(Rates(read=0, prepare=0, device=1 / one, driver=0, batch=BATCH_SIZE), ACTORS, count)
    print(f"{processor_name()}, {threads} threads each; {count:,} pictures.\n")
    print(measure.table(["", "pictures/s", "steady", "failed"], rows))
    print(f"\nActors answer {ratio} times what workers do, in the steady state.")
    print(f"Simulated for {ACTORS} actors: {predicted.rate:.1f} pictures/s.")
    about: dict[str, Any] = {"pictures": count, "sides": result, "actors_of_workers": ratio.as_json()}
    measure.last_line("ray_overhead", arguments, files.text, {**about, "simulated": predicted.rate})


if __name__ == "__main__":
    main()
