"""Several questions at once against one after another, on the same weights, and against llama-batched-bench.

Method. Several prompts of PROMPT random tokens that share nothing, each answered greedily with ANSWER tokens, as many
of them as the largest of the sizes. At size 1 each question waits for the one before; at size N so many are submitted
together to an engine of N sequences, which reads their prompts and decodes their answers in shared batches, and when
all have ended, the next N. All in one process with the same model, threads and batch sizes, with an empty KV cache.
llama-batched-bench is a process of its own: it reads N prompts and decodes N sequences at once, without sampling; once
with a KV cache for each, as it does by default, and once with one that all share, as ours do. A round runs every size
and both kinds of the tool once, in an order that changes; the first round is a warm-up.

Reported for each size, for all answers together: "whole" is tokens of the answers by the time from the submission to
the last token, reading the prompts included; "decode" is the tokens after the first of each answer by the time they
took. Last, in how many rounds all answers were the same at all sizes: sums of floats depend in their last bits on what
else is in a batch.

    python benchmarks/parallel.py [--model TEXT.gguf] [--sizes 1,2,4,8] [--tools DIR] [--threads N] [--rounds N]
                                  [--quick]

Without --model the embedded demo model is measured; --quick is one short round. Run with nothing else on the machine.
The last line of the output is one JSON document.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import measure
import peers
from internvl_gguf.config import SamplingParams
from internvl_gguf.engine import Engine
from internvl_gguf.types import TokenSpan
from measure import Settings
from ours import EndlessModel, open_engine

PROMPT, ANSWER, QUICK_ANSWER = 64, 64, 8
SIZES, QUICK_SIZES = (1, 2, 4, 8), (1, 3)
TOOL = "llama-batched-bench"
SHARED = "shared KV"
"""llama-batched-bench with one KV cache for all sequences."""


@dataclass(frozen=True)
class Run:
    """One size in one round: tokens a second of all answers together, and the answers where they are known."""

    whole: float
    decode: float
    answers: tuple[tuple[int, ...], ...] = ()


Runs = dict[int, Run]
"""By size."""


def sizes_of(text: str) -> tuple[int, ...]:
    """A list of sizes, for arguments; one at a time is always among them."""
    return tuple(sorted({1, *map(measure.positive, text.split(","))}))


def one_size(engine: Engine, top: int, questions: int, answer: int, turn: int) -> Runs:
    """Answer the prompts of this round, as many at once as the engine takes."""
    draw, size = random.Random(turn), engine.n_parallel
    prompts = [TokenSpan(tuple(draw.randrange(top) for _ in range(PROMPT))) for _ in range(questions)]
    engine.forget()
    decoded, decoding = 0, 0.0
    answers: list[tuple[int, ...]] = []
    started = time.perf_counter()
    for begin in range(0, questions, size):
        handles = [
            engine.submit([prompt], SamplingParams(max_tokens=answer)) for prompt in prompts[begin : begin + size]
        ]
        answers += [tuple(handle.result()) for handle in handles]
        times = [moment for handle in handles for moment in handle.times]
        first = max(handle.times[0] for handle in handles)
        decoded += sum(moment > first for moment in times)
        decoding += max(times) - first
    whole = sum(map(len, answers)) / (time.perf_counter() - started)
    return {size: Run(whole, decoded / decoding, tuple(answers))}


def with_tool(
    tool: Path, path: Path, settings: Settings, sizes: Sequence[int], answer: int, shares_kv: bool, _turn: int
) -> Runs:
    """All sizes through llama-batched-bench."""
    found = peers.batched_bench(tool, path, settings, sizes, PROMPT, answer, shares_kv=shares_kv)
    return {
        size: Run(answer / (PROMPT / speed.prefill + answer / speed.decode), speed.decode)
        for size, speed in found.items()
    }


def measure_sizes(
    path: Path, threads: int, sizes: Sequence[int], answer: int, rounds: int, tool: Path | None = None
) -> dict[str, list[Runs]]:
    """Every size in every round: ours by the size in words, and the tool's by its name and by `SHARED`.

    Args:
        path: a text model.
        answer: tokens of each answer.
        tool: llama-batched-bench.
    """
    settings = Settings(threads, n_ctx=PROMPT + answer)
    with ExitStack() as owned:
        model = EndlessModel(path)
        owned.callback(model.close)
        sides: dict[str, Callable[[int], Runs]] = {}
        for size in sizes:
            engine = open_engine(model, replace(settings, n_parallel=size), owned)
            sides[str(size)] = partial(one_size, engine, min(model.n_vocab, 1000) - 1, max(sizes), answer)
        if tool:
            for name in (TOOL, SHARED):
                sides[name] = partial(with_tool, tool, path, settings, sizes, answer, name == SHARED)
        return measure.interleaved(sides, rounds)


def report(found: dict[str, list[Runs]], sizes: Sequence[int]) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of the table, and the same for the last line: phase, size, and what was found."""
    rows: list[list[str]] = []
    result: dict[str, Any] = {}
    for phase in ("decode", "whole"):

        def values(side: str, size: int, phase: str = phase) -> tuple[float, ...]:
            return tuple(getattr(runs[size], phase) for runs in found[side])

        result[phase] = {}
        for size in sizes:
            ours = measure.Spread(values(str(size), size))
            by_one = measure.ratios(ours.values, values("1", 1))
            row = [phase, str(size), str(ours), str(by_one)]
            entry: dict[str, Any] = {"ours": ours.as_json(), "by_one": by_one.median}
            for name in (TOOL, SHARED):
                if name in found:
                    theirs = measure.Spread(values(name, size))
                    ratio = measure.ratios(ours.values, theirs.values)
                    row += [str(theirs), str(ratio)]
                    entry[name] = {**theirs.as_json(), "ratio": ratio.median}
            rows.append(row)
            result[phase][str(size)] = entry
    return rows, result


def main() -> None:
    parser = measure.parser(__doc__, tools=True)
    parser.add_argument("--sizes", type=sizes_of, help="questions at once; 1,2,4,8 if left out")
    arguments = parser.parse_args()
    path, tool = measure.text_file(arguments), peers.find_tool(TOOL, arguments)
    usual, answer = (QUICK_SIZES, QUICK_ANSWER) if arguments.quick else (SIZES, ANSWER)
    sizes = arguments.sizes or usual
    found = measure_sizes(path, arguments.threads, sizes, answer, measure.rounds_of(arguments), tool)
    same = [
        all(runs[size].answers == first[1].answers for size, runs in zip(sizes, others, strict=True))
        for first, *others in zip(found["1"], *(found[str(size)] for size in sizes), strict=True)
    ]
    rows, result = report(found, sizes)
    print(f"{max(sizes)} questions of {PROMPT} tokens, answers of {answer}: tokens a second of all together.")
    print(f"All answers were the same at all sizes in {sum(same)} of {len(same)} rounds.\n")
    header = ["", "at once", "ours, median (range)", "vs one at a time"]
    tools = [TOOL, "ours/other", f"with {SHARED}", "ours/other"] if tool else []
    print(measure.table(header + tools, rows))
    answers = {"questions": max(sizes), "same_answers": f"{sum(same)} of {len(same)}"}
    measure.last_line("parallel", arguments, path, {**answers, **result})


if __name__ == "__main__":
    main()
