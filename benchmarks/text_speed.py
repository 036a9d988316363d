"""Prefill and decode of our engine against llama-cpp-python's `Llama` and llama.cpp's llama-bench, on the same weights.

Method. All sides load the same text GGUF with the same threads, batch sizes, KV type and flash attention. A round is:
forget everything, read a prompt of PROMPT random tokens, produce ANSWER tokens greedily; each side once, in an order
that changes each round. The first round is a warm-up. Ours and `Llama` run in one process, through the interface that
a caller uses (`Engine.submit`, `Llama.generate`), one token handed out at a time: prefill is the prompt's tokens by the
time to the first token, decode the later tokens by the time after it. llama-bench is a process of its own, with one
repetition after its own warm-up; it reads as many random tokens, and decodes as many behind them, without sampling and
without handing anything out: what the library can do at best.

Reported are the median, the range and the median of the round-by-round ratios, which holds when the machine's speed
drifts. Run with nothing else on the machine: native threads that share a core with anything slow down several times.

    python benchmarks/text_speed.py [--model TEXT.gguf] [--tools DIR] [--threads N] [--rounds N] [--quick]

Without --model the embedded demo model is measured; --quick is one short round. The last line of the output is one JSON
document.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import measure
import peers
from internvl_gguf.config import SamplingParams
from internvl_gguf.types import TokenSpan
from measure import Settings
from ours import EndlessModel, open_engine

PROMPT, ANSWER, N_CTX = 512, 128, 2048
QUICK_PROMPT, QUICK_ANSWER = 64, 16


@dataclass(frozen=True)
class Run:
    """One side in one round: tokens a second, and the tokens of the answer where they are known."""

    prefill: float
    decode: float
    tokens: tuple[int, ...] = ()


class Ours:
    """The engine of this package, without a vision encoder."""

    def __init__(self, path: Path, settings: Settings, owned: ExitStack) -> None:
        model = EndlessModel(path)
        owned.callback(model.close)
        self.n_vocab = model.n_vocab
        self._engine = open_engine(model, settings, owned)

    def generate(self, prompt: list[int], answer: int) -> Iterator[int]:
        self._engine.forget()
        return self._engine.submit([TokenSpan(tuple(prompt))], SamplingParams(max_tokens=answer)).stream()


class Peer:
    """llama-cpp-python's `Llama` with the same settings."""

    def __init__(self, path: Path, settings: Settings, owned: ExitStack) -> None:
        from llama_cpp import Llama

        self._llama = Llama(str(path), **settings.llama_options(), verbose=False)
        owned.callback(self._llama.close)

    def generate(self, prompt: list[int], answer: int) -> Iterator[int]:
        self._llama.reset()  # else it would keep the prefix it knows
        yield from self._llama.generate(prompt, temp=0.0, repeat_penalty=1.0)


def one_run(runner: Ours | Peer, top: int, sizes: tuple[int, int], turn: int) -> Run:
    """Read a prompt of this round, the same for all sides, and produce an answer."""
    length, answer = sizes
    draw = random.Random(turn)
    prompt = [draw.randrange(top) for _ in range(length)]
    tokens = []
    started = first = time.perf_counter()
    for token in runner.generate(prompt, answer):
        tokens.append(token)
        if len(tokens) == 1:
            first = time.perf_counter()
        if len(tokens) == answer:
            break
    ended = time.perf_counter()
    return Run(length / (first - started), (len(tokens) - 1) / (ended - first), tuple(tokens))


def bench_run(tool: Path, path: Path, settings: Settings, sizes: tuple[int, int], _turn: int) -> Run:
    """The same lengths through llama-bench."""
    speed = peers.bench(tool, path, settings, sizes[0], sizes[1] - 1)
    return Run(speed.prefill, speed.decode)


def main() -> None:
    arguments = measure.parser(__doc__, tools=True).parse_args()
    path, settings = measure.text_file(arguments), Settings(arguments.threads, N_CTX)
    sizes = (QUICK_PROMPT, QUICK_ANSWER) if arguments.quick else (PROMPT, ANSWER)
    tool = peers.find_tool("llama-bench", arguments)
    with ExitStack() as owned:
        ours, peer = Ours(path, settings, owned), Peer(path, settings, owned)
        top = min(ours.n_vocab, 1000) - 1
        sides: dict[str, Callable[[int], Run]] = {
            "ours": partial(one_run, ours, top, sizes),
            "Llama": partial(one_run, peer, top, sizes),
        }
        if tool:
            sides["llama-bench"] = partial(bench_run, tool, path, settings, sizes)
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    agree = sum(mine.tokens == theirs.tokens for mine, theirs in zip(found["ours"], found["Llama"], strict=True))
    same = f"{agree} of {len(found['ours'])}"
    rows, result = [], {"prompt": sizes[0], "answer": sizes[1], "same_answers": same}
    for phase in ("prefill", "decode"):
        values = {name: [getattr(run, phase) for run in runs] for name, runs in found.items()}
        some, result[phase] = measure.comparison(values, phase)
        rows += some
    print(f"Tokens a second, {sizes[0]} read and {sizes[1]} produced; ours and Llama gave the same tokens in {same}.\n")
    print(measure.table(["", "side", "tokens/s, median (range)", "ours/other"], rows))
    measure.last_line("text_speed", arguments, path, result)


if __name__ == "__main__":
    main()
