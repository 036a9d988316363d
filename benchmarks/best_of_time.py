"""Time of eight answers to one question against that of one answer, and of the question asked eight times.

Method. A question about a picture of one tile, and one about a picture of 13, each answered with 64 tokens whatever
they say. The picture is encoded before and its embeddings kept, on all sides: what is measured is reading the prompt
and writing the answers. The sides:

    one answer       `Session.ask`, sampled as the candidates are
    best of 8        `Session.best_of`, with a judge that waits for all: no vote that ends early
    asked 8 times    eight times `Session.ask`, the KV of the question kept from one to the next
    8 questions      the same with an empty KV cache each, as a runtime without a prompt cache reads them

All run in one process, with the same model, threads and context; each begins with an empty KV cache. A round is each
side once, in an order that changes; the first round is a warm-up. Reported are seconds, and round by round how many
times those of one answer they are.

Positions of the KV cache behind best of 8: how many it takes, how many its eight answers see, each with the prompt, and
how many the prompt has. Held once, it takes the prompt and eight answers; eight conversations take what all see.

    python benchmarks/best_of_time.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--threads N] [--rounds N] [--quick]
                                      [--one-tile]

Without --model the embedded demo model is measured; `real_size.py` makes files of the 1B's shape. --quick is one short
round; with --one-tile the large picture is left out, of which a round takes ten minutes on two cores with the 1B's
shape. Run with nothing else on the machine. The last line of the output is one JSON document.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import measure
from internvl_gguf import SamplingParams, Session
from internvl_gguf.gguf.header import read_header
from internvl_gguf.hardware.identity import processor_name
from internvl_gguf.judging import Candidate, JudgedQuestion
from measure import Settings
from ours import engine_of, jpeg, make_endless, noise, picture_of_tiles

ANSWERS: Final = 8
TOKENS, QUICK_TOKENS = 64, 4
N_CTX: Final = 8192
PROMPT: Final = "What is in this picture, and how do you know? Think about every part of it, and then answer."
ONE, BEST, AGAIN, ANEW = "one answer", f"best of {ANSWERS}", f"asked {ANSWERS} times", f"{ANSWERS} questions"


class Sides:
    """One model and one picture.

    Args:
        session: whose answers go on until `max_tokens`.
        picture: a JPEG.
        tokens: of each answer.

    Attributes:
        cells: positions of the KV cache that the last best of 8 took.
        seen: positions that its answers see, all together.
        prompt: positions of the question.
    """

    def __init__(self, session: Session, picture: bytes, tokens: int) -> None:
        self._session, self._engine = session, engine_of(session)
        self._picture, self._tokens = picture, tokens
        self.cells = self.seen = self.prompt = 0
        session.embed_image(picture)

    def one(self, turn: int) -> float:
        """Seconds of one answer."""
        return self._timed(lambda: self._ask(turn))

    def best(self, turn: int) -> float:
        """Seconds of eight answers to one question."""
        sampling = self._sampling(turn)
        seconds = self._timed(
            lambda: self._session.best_of(PROMPT, [self._picture], n=ANSWERS, judge=first, sampling=sampling)
        )
        sequences = self._engine._scheduler.sequences
        self._engine.check_integrity()
        self.cells = self._engine.n_ctx - sequences.room(0)
        self.seen = sum(ledger.length for ledger in sequences.ledgers)
        return seconds

    def again(self, turn: int, *, anew: bool) -> float:
        """Seconds of the question asked eight times, with an empty KV cache each time or not."""

        def ask() -> None:
            for number in range(ANSWERS):
                if anew:
                    self._engine.forget()
                self._ask(ANSWERS * turn + number)
                self._session.clear()

        return self._timed(ask)

    def _ask(self, seed: int) -> None:
        reply = self._session.ask(PROMPT, [self._picture], sampling=self._sampling(seed))
        self.prompt = reply.usage.prompt_tokens

    def _sampling(self, seed: int) -> SamplingParams:
        return SamplingParams(max_tokens=self._tokens, temperature=0.7, top_p=0.95, seed=seed)

    def _timed(self, work: Callable[[], object]) -> float:
        self._session.clear()
        self._engine.forget()
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        self._session.clear()
        return seconds


def first(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
    """A judge that takes no time and waits for all."""
    return [0.0] * len(candidates)


def measure_picture(session: Session, picture: bytes, tokens: int, rounds: int) -> dict[str, Any]:
    """Times of all sides, and positions of the KV cache.

    Args:
        session: see `Sides`.
        picture: a JPEG.
        tokens: of each answer.
        rounds: that count.
    """
    sides = Sides(session, picture, tokens)
    by_name: dict[str, Callable[[int], float]] = {
        ONE: sides.one,
        BEST: sides.best,
        AGAIN: partial(sides.again, anew=False),
        ANEW: partial(sides.again, anew=True),
    }
    found = measure.interleaved(by_name, rounds)
    seconds = {name: measure.Spread(tuple(values)) for name, values in found.items()}
    return {
        "seconds": seconds,
        "of_one": {name: measure.ratios(spread.values, seconds[ONE].values) for name, spread in seconds.items()},
        "positions": {"taken": sides.cells, "seen": sides.seen, "prompt": sides.prompt},
    }


def main() -> None:
    parser = measure.parser(__doc__, mmproj=True)
    parser.add_argument("--one-tile", action="store_true", help="only the picture of one tile")
    arguments = parser.parse_args()
    files = measure.model_files(arguments)
    tokens, rounds = QUICK_TOKENS if arguments.quick else TOKENS, measure.rounds_of(arguments)
    tile_size = read_header(files.mmproj).integer("clip.vision.image_size")
    pictures = {"1 tile": jpeg(noise(1, 1, tile_size, seed=1)), "13 tiles": picture_of_tiles(files.mmproj)}
    if arguments.one_tile:
        del pictures["13 tiles"]
    options = Settings(arguments.threads, N_CTX).engine_options()
    result: dict[str, Any] = {}
    rows = []
    with make_endless(Session.open(files.text, files.mmproj, on_notice=lambda line: None, **options)) as session:
        for name, picture in pictures.items():
            found = measure_picture(session, picture, tokens, rounds)
            for side, spread in found["seconds"].items():
                rows.append([name if side == ONE else "", side, str(spread), str(found["of_one"][side])])
            result[name] = {
                "seconds": {side: spread.as_json() for side, spread in found["seconds"].items()},
                "of_one": {side: spread.as_json() for side, spread in found["of_one"].items()},
                "positions": found["positions"],
            }
    print(f"{processor_name()}, {arguments.threads} threads; answers of {tokens} tokens.\n")
    print(measure.table(["picture", "", "seconds, median (range)", "times one answer"], rows))
    for name, found in result.items():
        positions = found["positions"]
        print(
            f"\n{name}: best of {ANSWERS} takes {positions['taken']:,} positions of the KV cache, of a prompt of "
            f"{positions['prompt']:,} held once; {ANSWERS} conversations take {positions['seen']:,}."
        )
    measure.last_line("best_of_time", arguments, files.text, {"tokens": tokens, "answers": ANSWERS, **result})


if __name__ == "__main__":
    main()
