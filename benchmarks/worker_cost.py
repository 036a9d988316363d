"""What it costs to have the model in a process of its own (`Session.open(worker=True)`).

Method. Two sessions on the same files with the same settings, one of them with a worker, each asked the same questions
in turn; a round asks both, in an order that changes from round to round, and the first round is a warm-up. Measured
here, where the answer is received, not where it is made:

- a token: from the first piece of a streamed answer to the last, by the tokens between. The answer is sampled so hot
  that it does not end before its limit, with a seed, so that both sides say the same.
- a picture question: from the question to the whole answer of at most ANSWER tokens, about a picture of 3 x 4 tiles
  and a thumbnail that was never seen before; nothing is kept on disk.
- the second question about it: the same of a question that finds everything in the cache.

    python benchmarks/worker_cost.py [--model TEXT.gguf --mmproj MMPROJ.gguf] [--threads N] [--rounds N] [--quick]

The last line of the output is one JSON document.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import measure
from internvl_gguf import SamplingParams, Session
from measure import Settings
from ours import noise

TOKENS, QUICK_TOKENS, ANSWER = 400, 20, 4
ENDLESS = SamplingParams(temperature=1e6, top_k=0, top_p=1.0)


class Seconds(NamedTuple):
    """One side in one round."""

    token: float
    picture: float
    second: float


def ask_all(session: Session, tokens: int, turn: int) -> Seconds:
    """Every question once; the conversation is empty before and after."""
    session.clear()
    token = seconds_a_token(session, tokens, turn)
    session.clear()
    picture = noise(3, 4, session.runtime.vision.image_size, turn)
    sampling = SamplingParams(max_tokens=ANSWER)
    started = time.perf_counter()
    session.ask("What is it?", [picture], sampling=sampling)
    seen = time.perf_counter()
    session.ask("And what else?", sampling=sampling)
    return Seconds(token, seen - started, time.perf_counter() - seen)


def seconds_a_token(session: Session, tokens: int, turn: int) -> float:
    """Seconds between tokens as they are received."""
    times = []
    sampling = replace(ENDLESS, max_tokens=tokens, seed=turn)
    stream = session.stream("Tell me everything.", sampling=sampling)
    count = 0
    for chunk in stream:
        times.append(time.perf_counter())
        count = chunk.reply.usage.completion_tokens if chunk.reply else 0
    if count < 2:
        raise SystemExit("The answer ended at once; take another seed.")
    return (times[-1] - times[0]) / (count - 1)


def main() -> None:
    arguments = measure.parser(__doc__, rounds=9, mmproj=True).parse_args()
    files = measure.model_files(arguments)
    settings = Settings(arguments.threads, 8192)
    options: dict[str, Any] = {**settings.engine_options(), "embedding_disk_bytes": 0}
    tokens = QUICK_TOKENS if arguments.quick else TOKENS
    with ExitStack() as owned:
        sides = {
            name: partial(
                ask_all, owned.enter_context(Session.open(files.text, files.mmproj, worker=worker, **options)), tokens
            )
            for name, worker in (("worker", True), ("this process", False))
        }
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    rows, result = [], {}
    for what in Seconds._fields:
        milliseconds = {side: [1000 * getattr(each, what) for each in values] for side, values in found.items()}
        added = [a - b for a, b in zip(milliseconds["worker"], milliseconds["this process"], strict=True)]
        label = {"token": "a token, ms", "picture": "picture question, ms", "second": "second question, ms"}[what]
        more, result[what] = measure.comparison(milliseconds, label, ours="worker")
        more[0].append(str(measure.Spread(tuple(added))))
        more[1].append("")
        rows += more
        result[what]["added"] = measure.Spread(tuple(added)).as_json()
    print(measure.table(["", "side", "median (range)", "worker by it", "added by the worker"], rows))
    measure.last_line("worker_cost", arguments, files.text, result)


if __name__ == "__main__":
    main()
