"""Report the run of `internvl ask --batch`: its expected time, its progress and its result."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.cli.bench_progress import duration
from internvl_gguf.cli.output import ProgressBars
from internvl_gguf.errors import InternVLError, PictureError
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.types import Picture, Question, Reply

if TYPE_CHECKING:
    from internvl_gguf.hardware.device_speed import Range
    from internvl_gguf.planning.speed_estimate import SpeedEstimate

FEWER_TILES: Final = 4
"""The `--max-tiles` that is named to those who want a batch sooner: enough for what a picture shows, not for its small
print."""
LOOKED_AT: Final = 8
"""Questions whose pictures are measured before the run; each is decoded for that."""
WORTH_ESTIMATING: Final = 20
"""Fewest lines of which a run's time is told beforehand."""
_ANSWER_TOKENS: Final = 200
_TEXT_TOKENS: Final = 100
_LONG: Final = 60.0  # seconds
_MANY_TILES: Final = FEWER_TILES + 1.5  # with its thumbnail, a picture of FEWER_TILES has one more
_HOUR: Final = 3600
_UNITS: Final = ((24 * _HOUR, "days"), (_HOUR, "hours"), (60, "minutes"), (1, "seconds"))
_NAMED: Final = re.compile(r"Cannot use (?P<name>.+?): (?P<reason>.+)", re.DOTALL)


@dataclass(frozen=True)
class BatchSpeed:
    """The speed of a loaded model, and the size of the questions it is asked.

    Attributes:
        speed: the planner's estimate for this machine.
        tokens_per_tile: visual tokens of a tile.
        tile_size: side of a tile in pixels.
        n_parallel: questions answered at once.
        max_tokens: most tokens of an answer.
    """

    speed: SpeedEstimate
    tokens_per_tile: int
    tile_size: int
    n_parallel: int
    max_tokens: int

    def seconds(self, tiles: float) -> Range:
        """Return the seconds for a question whose pictures have this many tiles in all.

        The answers under way share each reading of the weights: at best their tokens cost an `n_parallel`th.
        """
        words = min(self.max_tokens, _ANSWER_TOKENS)
        found = self.speed.decode.amount_over(words).times(1 / self.n_parallel, 1)
        found += self.speed.prefill.amount_over(_TEXT_TOKENS + tiles * self.tokens_per_tile)
        return found if self.speed.tile_seconds is None else found + self.speed.tile_seconds.times(tiles)


def estimate(speed: BatchSpeed, count: int, questions: Iterable[Question], limits: TileLimits) -> str | None:
    """Return how long a batch will take, in a line for the user; None if that is not known.

    Args:
        speed: the model and its speed; nothing is told of speeds that are only assumed.
        count: number of questions.
        questions: some of them, whose pictures are measured; those that cannot be used are passed over.
        limits: tile limits of pictures whose question sets none.
    """
    if not speed.speed.measured or count < WORTH_ESTIMATING:
        return None
    tiles: list[int] = []
    fewer: list[int] = []
    pictures = 0
    for question in itertools.islice(questions, LOOKED_AT):
        cuts = [cut for image in question.images if (cut := _cut(image, question, limits, speed.tile_size))]
        if len(cuts) == len(question.images):
            pictures += len(cuts)
            tiles.append(sum(whole for whole, _ in cuts))
            fewer.append(sum(least for _, least in cuts))
    if not tiles:
        return None
    mean, least = sum(tiles) / len(tiles), sum(fewer) / len(fewer)
    each = speed.seconds(mean)
    what = f"{count:,} questions" if not pictures else f"{count:,} questions with {mean:.2g} tiles each"
    line = (
        f"{what} will take {_between(each.times(count))} ({_rate(each)} an hour) by the speed of this machine, "
        f"with answers of {min(speed.max_tokens, _ANSWER_TOKENS)} tokens."
    )
    if mean <= _MANY_TILES * max(1.0, pictures / len(tiles)):
        return line
    return (
        f"{line} Fewer tiles are faster: --max-tiles {FEWER_TILES} takes {_between(speed.seconds(least).times(count))}."
    )


def _cut(image: object, question: Question, limits: TileLimits, tile_size: int) -> tuple[int, int] | None:
    """Return the number of tiles of a picture, and that with FEWER_TILES; None if the picture cannot be used."""
    from internvl_gguf.images.load import load_image

    if not isinstance(image, str) or not (image.startswith("data:") or Path(image).is_file()):  # a pipe is read once
        return None
    try:
        size = load_image(image).size
        own = limits.narrowed(Picture(image), question.options)  # type: ignore[arg-type]  # a mapping of such options
        return own.grid(size, tile_size).tiles, own.capped(FEWER_TILES).grid(size, tile_size).tiles
    except (InternVLError, OSError, ValueError):
        return None


class Tally:
    """The counts of a run so far.

    Attributes:
        answered: lines with an answer.
        failed: lines without.
    """

    def __init__(self) -> None:
        self.answered = self.failed = 0
        self._pictures = self._tiles = self._encoded = 0
        self._first_failure: tuple[int, InternVLError] | None = None
        self._started = time.perf_counter()

    def start(self) -> None:
        """Start to count time, now that the model is loaded."""
        self._started = time.perf_counter()

    def add(self, number: int, outcome: Reply | InternVLError) -> None:
        """Count the outcome of a line, by its number."""
        if isinstance(outcome, InternVLError):
            self.failed += 1
            if self._first_failure is None or number < self._first_failure[0]:
                self._first_failure = number, outcome
            return
        self.answered += 1
        self._pictures += outcome.usage.images
        self._tiles += outcome.usage.tiles
        self._encoded += outcome.usage.tiles_encoded

    def summary(self) -> Sequence[str]:
        """Return lines for the user: the speed of the run, and the first failures."""
        lines = [self._speed()] if self.answered else []
        if self._first_failure:
            number, error = self._first_failure
            count = self.answered + self.failed
            lines.append(
                f"{self.failed:,} of {count:,} lines failed; the output says why. "
                f"The first is line {number}{_reason(error)}"
            )
        return lines

    def _speed(self) -> str:
        seconds = time.perf_counter() - self._started
        what, count = ("pictures", self._pictures) if self._pictures else ("questions", self.answered)
        known = self._tiles - self._encoded
        rate = f"{_rounded(count * _HOUR / seconds)} {what} an hour"
        line = f"Answered {self.answered:,} {'line' if self.answered == 1 else 'lines'} in {duration(seconds)}: {rate}"
        line += f", {known:,} of {self._tiles:,} tiles known from before." if known else "."
        if seconds > _LONG and self._encoded > _MANY_TILES * self._pictures:
            mean = self._tiles / self._pictures
            line += f" A picture had {mean:.2g} tiles; fewer are faster (--max-tiles {FEWER_TILES})."
        return line


class BatchProgress:
    """A bar that shows how many lines are done.

    Args:
        bars: where it is shown.
        count: number of lines.
        tally: is started when the model is loaded.
    """

    def __init__(self, bars: ProgressBars, count: int, tally: Tally) -> None:
        self._bars = bars
        self._tally = tally
        self._change = bars.add("Loading the model", total=count)
        self._told: set[str] = set()

    def load(self, done: float) -> None:
        """Show how much of the model is loaded, 0 to 1."""
        self._change(label=f"Loading the model, {done:.0%}" if done < 1 else "Answering")

    def advance(self) -> None:
        """Count one more line as done."""
        self._change(advance=1, label=f"{self._tally.failed} failed" if self._tally.failed else "Answering")

    def notice(self, line: str) -> None:
        """Show a notice to the user, once; each record has its own notices."""
        if line not in self._told:
            self._told.add(line)
            self._bars.say(line)


def _reason(error: InternVLError) -> str:
    """Return the text after the number of a line: " (pics/50.jpg): it is not a picture of a known format."."""
    named = _NAMED.fullmatch(error.message) if isinstance(error, PictureError) else None
    return f" ({named['name']}): {named['reason']}" if named else f": {error.message}"


def _between(seconds: Range) -> str:
    """Return a range of times as text, no more precise than it is known: "3.1 to 5.2 hours"."""
    unit, name = next((each for each in _UNITS if seconds.high >= 2 * each[0]), _UNITS[-1])
    low, high = _rounded(seconds.low / unit), _rounded(seconds.high / unit)
    return f"about {low} {name}" if low == high else f"{low} to {high} {name}"


def _rate(seconds: Range) -> str:
    low, high = (_rounded(_HOUR / each) for each in (seconds.high, seconds.low))
    return low if low == high else f"{low} to {high}"


def _rounded(value: float) -> str:
    """Return a number as text with its two known digits: "29,000", "140", "3.2"."""
    return f"{float(f'{value:.2g}'):,.{1 if value < 9.95 else 0}f}"
