"""Several questions at once against one after another, on the same weights, through the engine.

Method. Several prompts of PROMPT random tokens that share nothing, each answered greedily with ANSWER tokens. "One at
a time": one sequence, each request waits for the one before. "At once": as many sequences as questions, all submitted
together; prompts are read and answers decoded in shared batches. Both in one process with the same model, threads and
batch sizes; a round is one after the other, the order changing each round, with an empty KV cache; the first round is
a warm-up. Reported are tokens of all answers by the time from the first submission to the last token, reading the
prompts included; then the same by the time between the first answer's first token and the last token of all, which is
nearly decoding alone; the median, the spread, and the median of the round-by-round ratios. Last, in how many rounds
all answers were the same both ways: sums of floats depend in their last bits on what else is in a batch.

Run with nothing else on the machine.

    python benchmarks/parallel.py [--model TEXT.gguf] [--threads N] [--rounds N] [--questions N] [--quick]

Without --model the embedded demo model is measured; --quick is one short round. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from internvl_gguf.config import EngineConfig, SamplingParams
from internvl_gguf.embedding_cache import EmbeddingCache
from internvl_gguf.engine import Engine, Handle
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import build
from internvl_gguf.llama.model import TextModel
from internvl_gguf.resolve import resolve_model
from internvl_gguf.this_machine import default_threads
from internvl_gguf.types import TokenSpan

PROMPT, ANSWER, QUICK_ANSWER = 64, 64, 8


@dataclass
class Speeds:
    """Tokens a second, one entry for each round."""

    whole: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


class EndlessModel(TextModel):
    """A text model whose answers go on: every one is equally long."""

    def is_end_of_generation(self, token: int) -> bool:
        return False


def open_engine(model: TextModel, n_parallel: int, answer: int, threads: int, owned: ExitStack) -> Engine:
    """An engine with room for so many questions at once."""
    config = EngineConfig(flash_attn=False, n_parallel=n_parallel)
    context = Context(model, config, n_ctx=PROMPT + answer, n_threads=threads)
    owned.callback(context.close)
    engine = Engine(model, None, context, EmbeddingCache(0))
    owned.callback(engine.close)
    return engine


def one_round(engine: Engine, prompts: list[list[int]], answer: int, speeds: Speeds) -> list[list[int]]:
    """Answer all prompts, as many at once as the engine takes, and note both speeds."""
    engine.forget()
    started = time.perf_counter()
    handles: list[Handle] = [
        engine.submit([TokenSpan(tuple(prompt))], SamplingParams(max_tokens=answer)) for prompt in prompts
    ]
    answers = [handle.result() for handle in handles]
    times = [moment for handle in handles for moment in handle.times]
    speeds.whole.append(len(times) / (max(times) - started))
    speeds.decode.append((len(times) - 1) / (max(times) - min(times)))
    return answers


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):9.1f}  ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a text GGUF; the demo model if left out")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    arguments = parser.parse_args()
    path = arguments.model or resolve_model("demo").text
    rounds, answer = (1, QUICK_ANSWER) if arguments.quick else (arguments.rounds, ANSWER)
    draw = random.Random(1)
    speeds = {"alone": Speeds(), "together": Speeds()}
    same = 0
    with ExitStack() as owned:
        model = EndlessModel(path)
        owned.callback(model.close)
        engines = {
            "alone": open_engine(model, 1, answer, arguments.threads, owned),
            "together": open_engine(model, arguments.questions, answer, arguments.threads, owned),
        }
        for turn in range(rounds + 1):
            top = min(model.n_vocab, 1000) - 1
            prompts = [[draw.randrange(top) for _ in range(PROMPT)] for _ in range(arguments.questions)]
            answers = {
                name: one_round(engines[name], prompts, answer, speeds[name] if turn else Speeds())
                for name in list(engines)[:: -1 if turn % 2 else 1]
            }
            same += bool(turn) and answers["alone"] == answers["together"]
    result: dict[str, object] = {
        "benchmark": "parallel",
        "model": path.name,
        "build": build(),
        "threads": arguments.threads,
        "rounds": rounds,
        "questions": arguments.questions,
        "same_answers": f"{same} of {rounds}",
    }
    for phase in ("whole", "decode"):
        alone, together = getattr(speeds["alone"], phase), getattr(speeds["together"], phase)
        ratio = statistics.median(b / a for a, b in zip(alone, together, strict=True))
        print(f"{phase:<7} one at a time {spread(alone)} tokens/s")
        print(f"{'':<7} at once       {spread(together)} tokens/s")
        print(f"{'':<7} ratio         {ratio:9.3f}")
        result |= {
            f"{phase}_alone": statistics.median(alone),
            f"{phase}_together": statistics.median(together),
            f"{phase}_ratio": ratio,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
