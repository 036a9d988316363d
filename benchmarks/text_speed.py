"""Prefill and decode of our engine against llama-cpp-python's `Llama`, on the same weights.

Method. Both load the same text GGUF in one process with the same threads, context, batch sizes, KV type and flash
attention. A round is: forget everything, read a prompt of PROMPT random tokens, produce ANSWER tokens greedily; the
peer does the same before or after, the order changing each round. The first round of each is a warm-up. Prefill is
the prompt's tokens by the time to the first token, decode the later tokens by the time after it; both through the
interface that a caller uses (`Engine.submit`, `Llama.generate`), one token handed out at a time. Reported are the
median, the spread and the median of the round-by-round ratios, which holds when the machine's speed drifts.

Run with nothing else on the machine: native threads that share a core with anything slow down several times.

    python benchmarks/text_speed.py [--model TEXT.gguf] [--threads N] [--rounds N]

Without --model the embedded demo model is measured. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from internvl_gguf.config import EngineConfig, SamplingParams
from internvl_gguf.embedding_cache import EmbeddingCache
from internvl_gguf.engine import Engine
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.library import build
from internvl_gguf.llama.model import TextModel
from internvl_gguf.resolve import resolve_model
from internvl_gguf.this_machine import default_threads
from internvl_gguf.types import TokenSpan

PROMPT, ANSWER, N_CTX, N_BATCH, N_UBATCH = 512, 128, 2048, 2048, 512


@dataclass
class Speeds:
    """Tokens a second, one entry for each round."""

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


class EndlessModel(TextModel):
    """A text model whose answers go on, as those of `Llama.generate` do: both sides produce equally many tokens."""

    def is_end_of_generation(self, token: int) -> bool:
        return False


class Ours:
    """The engine of this package, without a vision encoder."""

    def __init__(self, path: Path, threads: int, owned: ExitStack) -> None:
        model = EndlessModel(path)
        owned.callback(model.close)
        config = EngineConfig(flash_attn=True, n_batch=N_BATCH, n_ubatch=N_UBATCH)
        context = Context(model, config, n_ctx=N_CTX, n_threads=threads)
        owned.callback(context.close)
        self.n_vocab = model.n_vocab
        self._engine = Engine(model, None, context, EmbeddingCache(0))

    def generate(self, prompt: list[int]) -> Iterator[int]:
        self._engine.forget()
        return self._engine.submit([TokenSpan(tuple(prompt))], SamplingParams(max_tokens=ANSWER)).stream()


class Peer:
    """llama-cpp-python's `Llama` with the same settings."""

    def __init__(self, path: Path, threads: int, owned: ExitStack) -> None:
        from llama_cpp import Llama

        self._llama = Llama(
            str(path),
            n_ctx=N_CTX,
            n_batch=N_BATCH,
            n_ubatch=N_UBATCH,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        owned.callback(self._llama.close)

    def generate(self, prompt: list[int]) -> Iterator[int]:
        self._llama.reset()  # else it would keep the prefix it knows
        return self._llama.generate(prompt, temp=0.0, repeat_penalty=1.0)


def one_round(runner: Ours | Peer, prompt: list[int], speeds: Speeds) -> list[int]:
    """Read the prompt, produce the answer, note both speeds."""
    tokens = []
    started = time.perf_counter()
    first = started
    for token in runner.generate(prompt):
        tokens.append(token)
        if len(tokens) == 1:
            first = time.perf_counter()
        if len(tokens) == ANSWER:
            break
    ended = time.perf_counter()
    speeds.prefill.append(len(prompt) / (first - started))
    if len(tokens) > 1:
        speeds.decode.append((len(tokens) - 1) / (ended - first))
    return tokens


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):9.1f}  ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a text GGUF; the demo model if left out")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    path = arguments.model or resolve_model("demo").text
    draw = random.Random(1)
    with ExitStack() as owned:
        ours, peer = Ours(path, arguments.threads, owned), Peer(path, arguments.threads, owned)
        speeds = {"ours": Speeds(), "peer": Speeds()}
        agree = 0
        for turn in range(arguments.rounds + 1):
            prompt = [draw.randrange(min(ours.n_vocab, 1000) - 1) for _ in range(PROMPT)]
            pair: list[tuple[str, Ours | Peer]] = [("ours", ours), ("peer", peer)]
            answers = [
                one_round(runner, prompt, speeds[name] if turn else Speeds())
                for name, runner in pair[:: -1 if turn % 2 else 1]
            ]
            agree += answers[0][: len(answers[1])] == answers[1][: len(answers[0])]
    result: dict[str, object] = {
        "benchmark": "text_speed",
        "model": path.name,
        "build": build(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "same_answers": f"{agree} of {arguments.rounds + 1}",
    }
    for phase in ("prefill", "decode"):
        mine, theirs = getattr(speeds["ours"], phase), getattr(speeds["peer"], phase)
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=False))
        print(f"{phase:<8} ours  {spread(mine)} tokens/s")
        print(f"{'':<8} Llama {spread(theirs)} tokens/s")
        print(f"{'':<8} ratio {ratio:9.3f}")
        result |= {
            f"{phase}_ours": statistics.median(mine),
            f"{phase}_peer": statistics.median(theirs),
            f"{phase}_ratio": ratio,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
