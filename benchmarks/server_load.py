"""Time to the first token and tokens a second with several clients at once, of `internvl serve` and llama-server.

Method. Both servers run on the same model files with the same threads, batch sizes, KV type, flash attention and
context of each conversation, and answer PARALLEL requests at once; with --default-parallel there is a third side, ours
as it is started without that option: one request at a time, the others in a queue. All sides are started before the
first question and stay, idle while another one is asked. A run is so many clients, each with a connection of its own,
that ask at the same moment over the streaming /v1/chat/completions of one server: a text of about TEXT words of its
own, or a question about a picture of its own of 13 tiles, in JPEG. Nobody has asked it before, so no server knows more
of it than the system message (which only ours has). Answers are greedy, of at most ANSWER tokens, and end where the
model ends them. A round is one run of each side, in an order that changes; the first round is a warm-up.

Pictures are encoded on the CPU by both; ours takes the library that it would for a user, which is OpenVINO where that
is installed and was measured to be faster.

Reported for each number of clients, as a client sees it: "first token" is the median over the clients of the seconds
from sending the question to the first text; "tokens/s" is the tokens of all answers by the time until the last one has
ended, reading the prompts and encoding the pictures included. Medians over the rounds with their range, and the median
of the round-by-round ratios. How many answers of both were the same to the letter is counted: llama-server cuts
pictures differently (docs/parity.md).

    python benchmarks/server_load.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--tools DIR] [--clients 1,2,4,8]
                                     [--only text|picture] [--parallel N] [--default-parallel] [--threads N]
                                     [--rounds N] [--quick]

Without --model the embedded demo model is measured, which answers in a few words; a model of benchmarks/real_size.py
answers at full length. Run with nothing else on the machine. The last line of the output is one JSON document.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import measure
import peers
from internvl_gguf.gguf.header import read_header
from internvl_gguf.hardware.identity import processor_name
from measure import Settings
from ours import GRID, jpeg, noise
from parallel import sizes_of
from server_runs import OurServer, Served, question, streamed, together

TOOL = "llama-server"
DEFAULT = "ours, one at a time"
TEXT, ANSWER, N_CTX = 200, 64, 4608
QUICK_TEXT, QUICK_ANSWER = 20, 4
SIZES, QUICK_SIZES = (1, 2, 4, 8), (1, 2)
KINDS = ("text", "picture")
WORDS = ("red", "blue", "circle", "square", "number", "house", "river", "seven", "photo", "table", "under", "street")


@dataclass(frozen=True)
class Run:
    """So many clients once: seconds to the first token, tokens a second, and the answers."""

    first: float
    rate: float
    texts: tuple[str, ...]

    @classmethod
    def of(cls, answers: Sequence[Served], seconds: float) -> Run:
        """What the clients saw."""
        tokens = sum(each.tokens for each in answers)
        first = statistics.median(each.first for each in answers)
        return cls(first, tokens / seconds, tuple(each.text for each in answers))


@dataclass(frozen=True)
class Questions:
    """Makes the questions of a run; the same for all sides.

    Attributes:
        kind: of `KINDS`.
        words: of a text.
        answer: most tokens of an answer.
        tile_size: of the vision encoder.
    """

    kind: str
    words: int
    answer: int
    tile_size: int

    def body(self, seed: str) -> dict[str, Any]:
        """A question that the seed decides."""
        draw = random.Random(seed)
        if self.kind == "text":
            return question(" ".join(draw.choices(WORDS, k=self.words)), max_tokens=self.answer)
        picture = jpeg(noise(*GRID, self.tile_size, draw.randrange(2**32)))
        return question("What is it?", peers.data_uri(picture), max_tokens=self.answer)


@lru_cache(maxsize=1)
def requests_of(questions: Questions, clients: int, turn: int) -> list[bytes]:
    """One question for each client, all different, and different in every round."""
    return [streamed(questions.body(f"{questions.kind} {clients} {turn} {client}")) for client in range(clients)]


def one_run(url: str, questions: Questions, clients: int, turn: int) -> Run:
    """The clients of a run at one server."""
    return Run.of(*asyncio.run(together(url, requests_of(questions, clients, turn))))


def start(arguments: Any, parallel: int, tool: Path | None, owned: ExitStack) -> dict[str, str]:
    """Start the servers; the URL of each side."""
    files = measure.model_files(arguments)
    settings = Settings(arguments.threads, N_CTX, n_parallel=parallel)
    flags = [str(files.text), "--mmproj", str(files.mmproj), "--context", str(N_CTX)]
    flags += ["--threads", str(settings.threads)]
    flags += ["--gpu-layers", "0", "--kv-type", "f16", "--flash-attn", "on"]
    flags += ["--batch-size", str(settings.n_batch), "--ubatch-size", str(settings.n_ubatch)]
    sides = {"ours": owned.enter_context(OurServer(*flags, "--parallel", str(parallel))).url}
    if tool:
        sides[TOOL] = owned.enter_context(peers.Server(tool, files.text, files.mmproj, settings)).url
    if arguments.default_parallel:
        sides[DEFAULT] = owned.enter_context(OurServer(*flags)).url
    return sides


def report(found: dict[str, list[Run]], kind: str, clients: int) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of the table, and the same for the last line."""
    rows: list[list[str]] = []
    result: dict[str, Any] = {}
    for name, runs in found.items():
        row = [f"{kind}, {clients} at once" if name == "ours" else "", name]
        result[name] = {}
        for quantity in ("first", "rate"):
            values, ours = ([getattr(run, quantity) for run in side] for side in (runs, found["ours"]))
            spread, ratio = measure.Spread(tuple(values)), measure.ratios(ours, values)
            row += [str(spread), "" if name == "ours" else str(ratio)]
            result[name][quantity] = {**spread.as_json(), "ratio": ratio.median}
        if name != "ours":
            pairs = [
                zip(mine.texts, theirs.texts, strict=True) for mine, theirs in zip(found["ours"], runs, strict=True)
            ]
            same = sum(mine == theirs for pair in pairs for mine, theirs in pair)
            result[name]["same_answers"] = f"{same} of {clients * len(runs)}"
        rows.append(row)
    return rows, result


def main() -> None:
    parser = measure.parser(__doc__, mmproj=True, tools=True, rounds=5)
    parser.add_argument("--clients", type=sizes_of, help="clients at once; 1,2,4,8 if left out")
    parser.add_argument("--only", choices=KINDS, help="text questions or pictures only")
    parser.add_argument(
        "--parallel", type=measure.positive, help="requests that both answer at once; else the most clients"
    )
    parser.add_argument("--default-parallel", action="store_true", help="also ours without --parallel")
    arguments = parser.parse_args()
    sizes = arguments.clients or (QUICK_SIZES if arguments.quick else SIZES)
    words, answer = (QUICK_TEXT, QUICK_ANSWER) if arguments.quick else (TEXT, ANSWER)
    parallel = arguments.parallel or max(sizes)
    files, tool = measure.model_files(arguments), peers.find_tool(TOOL, arguments)
    tile_size = read_header(files.mmproj).integer("clip.vision.image_size")
    rows: list[list[str]] = []
    result: dict[str, Any] = {}
    with ExitStack() as owned:
        sides = start(arguments, parallel, tool, owned)
        for kind in (arguments.only,) if arguments.only else KINDS:
            questions, result[kind] = Questions(kind, words, answer, tile_size), {}
            for clients in sizes:
                runs = {name: partial(one_run, url, questions, clients) for name, url in sides.items()}
                found = measure.interleaved(runs, measure.rounds_of(arguments))
                some, result[kind][str(clients)] = report(found, kind, clients)
                rows += some
                print(f"{kind}, {clients} at once: done", file=sys.stderr, flush=True)
    print(f"{processor_name()}, {arguments.threads} threads; {parallel} requests answered at once, answers of at most")
    print(f"{answer} tokens, rounds: {measure.rounds_of(arguments)}.\n")
    header = ["", "side", "first token, s: median (range)", "ours/other", "tokens/s: median (range)", "ours/other"]
    print(measure.table(header, rows))
    about = {"cpu": processor_name(), "parallel": parallel, "answer": answer}
    measure.last_line("server_load", arguments, files.text, {**about, **result})


if __name__ == "__main__":
    main()
