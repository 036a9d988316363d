"""Prefill and decode alone and beside other programs: our engine against llama-cpp-python's `Llama`.

Method. Other programs are 0, 1, 2 and 4 processes of one thread that only loop. Beside each number of them the sides
take turns: ours, with a thread for each physical core where nothing else runs; `Llama` with as many threads, as
llama.cpp's own tools have by default; and `Llama` with its own default, half of the logical cores for one token and all
for many. All have the same batch sizes, KV type and flash attention. Each is a process of its own that has loaded the
model before, for libgomp reads its environment once; variables of OpenMP are taken out of it, so that each side waits
as it does by default.

A turn is: forget everything; half a second of another answer, which does not count, since ours tells by what the last
steps have seen how busy the cores are, and before its turn another side was what kept them busy; then a prompt of
PROMPT random tokens, and tokens of a greedy answer for SECONDS seconds. Prefill is the prompt's tokens by the time to
the first token, decode the later tokens by the time after it. In each round every side has one turn beside each number
of programs, in an order that changes; the first round is a warm-up and has no other programs.

Reported are the median and the range in tokens a second, the part of the median of the same side alone, and the median
of the round-by-round ratios. Run with nothing else on the machine.

    python benchmarks/shared_cores.py [--model TEXT.gguf] [--threads N] [--rounds N] [--others 0,1,2,4] [--quick]

Without --model the embedded demo model is measured; --quick is one short round beside one program and alone. The last
line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
from internvl_gguf.hardware.cores import usable_cores
from internvl_gguf.llama.library import devices
from measure import Spread

CHILDREN = Path(__file__).with_name("shared_cores_children.py")
LOOP = "while True: pass"
PROMPT, SECONDS, UNCOUNTED = 128, 2.0, 0.5
QUICK_PROMPT, QUICK_SECONDS = 16, 0.2
TOP = 250  # tokens below this number are in every vocabulary, the demo model's included
LEAST_OTHERS = (0, 1)


@dataclass(frozen=True)
class Turn:
    """Tokens a second of one side in one turn, and the cores that its process kept busy meanwhile."""

    prefill: float
    decode: float
    cpus: float


class Side:
    """A process that has loaded the model.

    Args:
        kind: "ours" or "llama".
        path: the text model.
        threads: CPU threads; 0 is the side's own default.
        owned: ends it.
    """

    def __init__(self, kind: str, path: Path, threads: int, owned: ExitStack) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        self._process = subprocess.Popen(
            [sys.executable, str(CHILDREN), kind, str(path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        owned.enter_context(self._process)
        owned.callback(self._process.kill)
        self._receive()

    def turn(self, sizes: tuple[int, float], turn: int) -> Turn:
        """One answer that does not count, then one that does, the same prompts for all sides."""
        length, seconds = sizes
        draw = random.Random(turn)
        self._ask(draw, 4, min(UNCOUNTED, seconds))
        return Turn(**self._ask(draw, length, seconds))

    def _ask(self, draw: random.Random, length: int, seconds: float) -> dict[str, float]:
        assert self._process.stdin is not None
        prompt = [draw.randrange(TOP) for _ in range(length)]
        print(json.dumps({"prompt": prompt, "seconds": seconds}), file=self._process.stdin, flush=True)
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A measured process has ended; run shared_cores_children.py by hand to see why.")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def other_programs(count: int) -> Iterator[None]:
    """So many processes that only loop."""
    with ExitStack() as owned:
        for _ in range(count):
            process = owned.enter_context(subprocess.Popen([sys.executable, "-S", "-c", LOOP]))
            owned.callback(process.kill)
        yield


def measured(
    sides: Mapping[str, Side], others: Sequence[int], sizes: tuple[int, float], rounds: int
) -> dict[int, dict[str, list[Turn]]]:
    """Turns of each side beside each number of other programs, one for each round."""
    turns = {name: partial(side.turn, sizes) for name, side in sides.items()}
    measure.interleaved(turns, rounds=0, warm_up=1)
    found: dict[int, dict[str, list[Turn]]] = {count: {name: [] for name in sides} for count in others}
    for turn in range(rounds):
        for count in others[:: -1 if turn % 2 else 1]:
            with other_programs(count):
                for name, result in measure.interleaved(turns, rounds=1, warm_up=0).items():
                    found[count][name] += result
    return found


def described(
    found: Mapping[int, Mapping[str, Sequence[Turn]]], phase: str
) -> tuple[list[list[str]], dict[str, dict[str, Any]]]:
    """Rows of a table and the part of the last line about prefill or decode."""
    rows: list[list[str]] = []
    result: dict[str, dict[str, Any]] = {}
    alone = {name: statistics.median(getattr(turn, phase) for turn in turns) for name, turns in found[0].items()}
    for count, by_side in found.items():
        values = {name: [getattr(turn, phase) for turn in turns] for name, turns in by_side.items()}
        _, result[str(count)] = measure.comparison(values, phase)
        for name, some in values.items():
            spread, about = Spread(tuple(some)), result[str(count)][name]
            about["of_alone"] = spread.median / alone[name]
            about["cpus"] = statistics.median(turn.cpus for turn in by_side[name])
            ratio = str(measure.ratios(values["ours"], some)) if name != "ours" else ""
            labels = (phase, str(count)) if name == "ours" else ("", "")
            rows.append([*labels, name, str(spread), f"{about['of_alone']:.2f}", ratio])
    return rows, result


def numbers(text: str) -> tuple[int, ...]:
    """Numbers of other programs, 0 among them: what everything is compared with."""
    values = tuple(int(part) for part in text.split(","))
    if 0 not in values or min(values) < 0:
        raise argparse.ArgumentTypeError(f"{text} has no 0 among its numbers, or one below")
    return values


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--others", type=numbers, default=(0, 1, 2, 4), help="numbers of other programs: 0,1,2,4")
    arguments = parser.parse_args()
    path = measure.text_file(arguments)
    others, sizes = arguments.others, (PROMPT, SECONDS)
    if arguments.quick:
        others, sizes = LEAST_OTHERS, (QUICK_PROMPT, QUICK_SECONDS)
    with ExitStack() as owned:
        sides = {
            "ours": Side("ours", path, arguments.threads, owned),
            "Llama": Side("llama", path, arguments.threads, owned),
            "Llama, its threads": Side("llama", path, 0, owned),
        }
        found = measured(sides, others, sizes, measure.rounds_of(arguments))
    rows, result = [], {}
    for phase in ("prefill", "decode"):
        some, result[phase] = described(found, phase)
        rows += some
    cpu = next(device.description for device in devices() if device.kind == "cpu")
    cores = len(usable_cores())
    print(f"{cpu}, {cores} logical cores, {arguments.threads} threads; {path.name}; tokens a second.\n")
    print(measure.table(["", "others", "side", "median (range)", "of alone", "ours/other"], rows))
    about = {"cpu": cpu, "cores": cores, "prompt": sizes[0], "seconds": sizes[1], "others": list(others)}
    measure.last_line("shared_cores", arguments, path, {**about, **result})


if __name__ == "__main__":
    main()
