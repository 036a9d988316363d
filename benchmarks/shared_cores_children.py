"""The processes that `shared_cores.py` measures: each loads a text model, and answers requests until its input ends.

python benchmarks/shared_cores_children.py ours  MODEL THREADS    our engine, as a session runs it
python benchmarks/shared_cores_children.py llama MODEL THREADS    llama-cpp-python's `Llama`; 0 threads: its default

A request is a JSON document in a line: `prompt`, tokens to read; `seconds`, for which an answer is produced after them.
So is what it answers: `prefill` and `decode` in tokens a second, and `cpus`, the cores that the process kept busy.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

N_CTX = 2048
LEAST = 3
"""Tokens that an answer has at least, however long they take."""


class Side(Protocol):
    def generate(self, prompt: list[int]) -> Iterator[int]: ...


class Ours:
    """The engine of this package without a vision encoder; its answers have no end."""

    def __init__(self, path: Path, threads: int, owned: ExitStack) -> None:
        from internvl_gguf.config import EngineConfig
        from internvl_gguf.engine import Engine
        from internvl_gguf.engine.embedding_cache import EmbeddingCache
        from internvl_gguf.llama.context import Context
        from internvl_gguf.session.in_process_runtime import core_watch
        from measure import Settings
        from ours import EndlessModel

        cores = core_watch()
        model = EndlessModel(path)
        owned.callback(model.close)
        config = EngineConfig(**Settings(threads, N_CTX).engine_options())
        context = Context(model, config, n_ctx=N_CTX, n_threads=threads)
        owned.callback(context.close)
        self._engine = Engine(model, None, context, EmbeddingCache(0), cores)
        owned.callback(self._engine.close)

    def generate(self, prompt: list[int]) -> Iterator[int]:
        from internvl_gguf.config import SamplingParams
        from internvl_gguf.types import TokenSpan

        self._engine.forget()
        answer = self._engine.submit([TokenSpan(tuple(prompt))], SamplingParams(max_tokens=N_CTX - len(prompt)))
        try:
            yield from answer.stream()
        finally:
            answer.cancel()


class Peer:
    """llama-cpp-python's `Llama`, with its own number of threads or a given one."""

    def __init__(self, path: Path, threads: int, owned: ExitStack) -> None:
        from llama_cpp import Llama

        from measure import Settings

        options = Settings(threads, N_CTX).llama_options()
        if not threads:
            del options["n_threads"], options["n_threads_batch"]
        self._llama = Llama(str(path), **options, verbose=False)
        owned.callback(self._llama.close)

    def generate(self, prompt: list[int]) -> Iterator[int]:
        self._llama.reset()  # else it would keep the prefix it knows
        yield from self._llama.generate(prompt, temp=0.0, repeat_penalty=1.0)


def answer(side: Side, request: dict[str, Any]) -> dict[str, float]:
    """Read the prompt, produce tokens until the time is over."""
    prompt, seconds = request["prompt"], request["seconds"]
    used, started = time.process_time(), time.perf_counter()
    tokens = side.generate(prompt)
    next(tokens)
    first = now = time.perf_counter()
    count = 0
    while (count < LEAST or now - first < seconds) and count + len(prompt) < N_CTX - 8:
        next(tokens)
        count += 1
        now = time.perf_counter()
    cpus = (time.process_time() - used) / (now - started)
    tokens.close()  # type: ignore[attr-defined]  # a generator
    return {"prefill": len(prompt) / (first - started), "decode": count / (now - first), "cpus": cpus}


def main() -> None:
    name, path, threads = sys.argv[1:]
    with ExitStack() as owned:
        sides: dict[str, type[Ours | Peer]] = {"ours": Ours, "llama": Peer}
        side = sides[name](Path(path), int(threads), owned)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(side, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
