"""How cost grows: with the tiles of a question, with the turns of a conversation, with the questions at once.

Method. Three measurements on one model, each in rounds whose first is a warm-up.

1. Tiles: a question about pictures of 1, 3 + 1 and 12 + 1 tiles, and about four pictures of 12 + 1, all with nothing
   known before: no embeddings, an empty KV cache. Time in the vision encoder, time of reading the prompt, and time to
   the first token, which has both in it. The order changes each round.
2. Turns: a conversation about a picture of 3 + 1 tiles, TURNS questions of one line with answers of ANSWER tokens. Time
   to the first token, and for each token after it, of each turn from the second on; the first reads the picture.
3. At once: 1, 2, 4, 8 questions as `parallel.py` has them, tokens a second of all together.

"By linear" is what a size costs by what it would cost if it grew as it should from the smallest one: in proportion with
tiles and, as a speed, with the questions at once; not at all with turns. The exponent is the slope in logarithms: 1 is
linear, 0 is no growth. Where a cost is off by more than MARGIN somewhere, the worst size is named.

    python benchmarks/growth.py [--model TEXT.gguf] [--mmproj MMPROJ.gguf] [--threads N] [--rounds N] [--quick]

Without --model the embedded demo model is measured; --quick is one short round. Run with nothing else on the machine.
The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import measure
import parallel
from internvl_gguf import SamplingParams, Session
from internvl_gguf.gguf.header import read_header
from internvl_gguf.memory import shape_from_headers
from internvl_gguf.models.resolve import ModelFiles
from measure import Settings, Spread
from ours import engine_of, make_endless, noise

GRIDS = {1: ((1, 1),), 4: ((3, 1),), 13: ((4, 3),), 52: ((4, 3),) * 4}
"""Tiles of a question, thumbnails included, and the grids of its pictures."""
TURNS, ANSWER, AT_ONCE = 20, 32, (1, 2, 4, 8)
QUICK_TILES, QUICK_TURNS, QUICK_ANSWER, QUICK_AT_ONCE = (1, 4), 3, 4, (1, 2)
TEXT_TOKENS = 256  # of the prompt around pictures, at most
TURN_TOKENS = 64  # of a question and what is around it, at most
MARGIN = 0.15


@dataclass(frozen=True)
class Growth:
    """How one cost grows.

    Attributes:
        what: the cost.
        sizes: what it grows with.
        values: of each size, one for each round.
        by_linear: of each size: the median by what it would be, growing as it should.
        exponent: the slope in logarithms.
    """

    what: str
    sizes: tuple[int, ...]
    values: tuple[Spread, ...]
    by_linear: tuple[float, ...]
    exponent: float

    @classmethod
    def of(cls, what: str, values: Mapping[int, Sequence[float]], expected: float) -> Growth:
        """A cost in all rounds.

        Args:
            what: its name.
            values: by size, the smallest first.
            expected: the exponent it should have: 1 for what grows in proportion, 0 for what stays.
        """
        sizes, spreads = tuple(values), tuple(Spread(tuple(each)) for each in values.values())
        smallest, medians = sizes[0], [spread.median for spread in spreads]
        linear = [medians[0] * (size / smallest) ** expected for size in sizes]
        by_linear = tuple(median / should for median, should in zip(medians, linear, strict=True))
        return cls(what, sizes, spreads, by_linear, measure.growth_exponent(sizes, medians))

    @property
    def is_off(self) -> bool:
        """Whether some size is off by more than the margin."""
        return any(abs(each - 1) > MARGIN for each in self.by_linear)

    def __str__(self) -> str:
        worst = max(range(len(self.sizes)), key=lambda index: abs(self.by_linear[index] - 1))
        off = f"; {self.by_linear[worst]:.2f} times linear at {self.sizes[worst]}" if self.is_off else ""
        return f"{self.what}: exponent {self.exponent:.2f}{off}"

    def as_json(self) -> dict[str, Any]:
        """For the last line."""
        by_size = {
            str(size): {**spread.as_json(), "by_linear": by_linear}
            for size, spread, by_linear in zip(self.sizes, self.values, self.by_linear, strict=True)
        }
        return {"exponent": self.exponent, "as_expected": not self.is_off, "sizes": by_size}


def open_session(files: ModelFiles, threads: int, n_ctx: int) -> Session:
    """A session that keeps no embeddings and whose answers go on."""
    options = Settings(threads, n_ctx).engine_options()
    options |= {"embedding_cache_bytes": 0, "embedding_disk_bytes": 0}
    return make_endless(Session.open(files.text, files.mmproj, **options))


def grow_tiles(
    files: ModelFiles, tile_size: int, tokens_per_tile: int, sizes: Sequence[int], arguments: argparse.Namespace
) -> list[Growth]:
    """Encoding, reading, first token by the tiles of a question."""

    def ask(session: Session, count: int, turn: int) -> dict[str, float]:
        pictures = [noise(*grid, tile_size, seed=100 * turn + index) for index, grid in enumerate(GRIDS[count])]
        session.clear()
        engine_of(session).forget()
        reply = session.ask("What is it?", pictures, sampling=SamplingParams(max_tokens=1))
        if reply.usage.tiles_encoded != count:
            raise SystemExit(f"{reply.usage.tiles_encoded} tiles were encoded where {count} should be.")
        times = reply.timings
        return {"encode": times.encode, "prefill": times.prefill, "first token": times.time_to_first_token}

    n_ctx = max(sizes) * tokens_per_tile + TEXT_TOKENS
    with open_session(files, arguments.threads, n_ctx) as session:
        sides: dict[str, Callable[[int], dict[str, float]]] = {
            str(count): partial(ask, session, count) for count in sizes
        }
        found = measure.interleaved(sides, measure.rounds_of(arguments))
    return [
        Growth.of(f"{what}, s", {count: [run[what] for run in found[str(count)]] for count in sizes}, expected=1)
        for what in ("encode", "prefill", "first token")
    ]


def grow_turns(
    files: ModelFiles, tile_size: int, tokens_per_tile: int, turns: int, answer: int, arguments: argparse.Namespace
) -> list[Growth]:
    """First token and decoding by the turn of a conversation."""

    def talk(session: Session, turn: int) -> dict[str, list[float]]:
        session.clear()
        engine_of(session).forget()
        found: dict[str, list[float]] = {"first": [], "decode": []}
        for number in range(1, turns + 1):
            pictures = [noise(3, 1, tile_size, seed=turn)] if number == 1 else []
            reply = session.ask(f"Question {number}?", pictures, sampling=SamplingParams(max_tokens=answer))
            found["first"].append(1000 * reply.timings.time_to_first_token)
            found["decode"].append(1000 / reply.timings.decode_tokens_per_second)
        return found

    n_ctx = 4 * tokens_per_tile + TEXT_TOKENS + turns * (answer + TURN_TOKENS)
    with open_session(files, arguments.threads, n_ctx) as session:
        runs = measure.interleaved({"talk": partial(talk, session)}, measure.rounds_of(arguments))["talk"]
    later = range(2, turns + 1)
    return [
        Growth.of("first token, ms", {turn: [run["first"][turn - 1] for run in runs] for turn in later}, expected=0),
        Growth.of("each token, ms", {turn: [run["decode"][turn - 1] for run in runs] for turn in later}, expected=0),
    ]


def grow_at_once(files: ModelFiles, sizes: Sequence[int], answer: int, arguments: argparse.Namespace) -> list[Growth]:
    """Speed by the questions at once."""
    rounds = measure.rounds_of(arguments)
    found = parallel.measure_sizes(files.text, arguments.threads, sizes, answer, rounds)
    values = {size: [runs[size].decode for runs in found[str(size)]] for size in sizes}
    return [Growth.of("decode, tokens/s", values, expected=1)]


def table(name: str, grown: Sequence[Growth]) -> str:
    """A row for each size, with two columns for each cost."""
    header = [name, *(title for growth in grown for title in (growth.what, "vs linear"))]
    rows = [
        [str(size)]
        + [cell for each in grown for cell in (str(each.values[index]), measure.number(each.by_linear[index]))]
        for index, size in enumerate(grown[0].sizes)
    ]
    return measure.table(header, rows)


def main() -> None:
    arguments = measure.parser(__doc__, rounds=3, mmproj=True).parse_args()
    files, quick = measure.model_files(arguments), arguments.quick
    vision = shape_from_headers(read_header(files.text), read_header(files.mmproj)).vision
    assert vision is not None
    shape = vision.image_size, vision.tokens_per_tile
    tiles = QUICK_TILES if quick else tuple(GRIDS)
    turns, answer = (QUICK_TURNS, QUICK_ANSWER) if quick else (TURNS, ANSWER)
    grown: dict[str, list[Growth]] = {}
    for name, grow in {
        "tiles": partial(grow_tiles, files, *shape, tiles),
        "turn": partial(grow_turns, files, *shape, turns, answer),
        "at once": partial(grow_at_once, files, QUICK_AT_ONCE if quick else AT_ONCE, answer),
    }.items():
        grown[name] = grow(arguments)
        print(table(name, grown[name]), *map(str, grown[name]), sep="\n", end="\n\n", flush=True)
    result = {name: {growth.what: growth.as_json() for growth in several} for name, several in grown.items()}
    measure.last_line("growth", arguments, files.text, result)


if __name__ == "__main__":
    main()
