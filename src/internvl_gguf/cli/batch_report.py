"""Report the run of `internvl ask --batch`: its expected time, its progress and its result."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, cast

from internvl_gguf.bulk.animations import SAID, count_animations
from internvl_gguf.bulk.answer_file import records_path
from internvl_gguf.bulk.clip_fields import ClipOptionsError
from internvl_gguf.cli.batch_words import in_fields
from internvl_gguf.cli.bench_progress import duration
from internvl_gguf.cli.output import ProgressBars
from internvl_gguf.errors import ContextOverflowError, InternVLError, InvalidRequestError, PictureError, VideoError
from internvl_gguf.hardware.device_speed import Range
from internvl_gguf.images.sources import is_data_uri, is_pipe, local_path
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.session.batch import PREPARING_THREADS
from internvl_gguf.types import Picture, Question, Reply, Video
from internvl_gguf.utils.sizes import counted

if TYPE_CHECKING:
    from internvl_gguf.bulk.answerer import LoadedFacts
    from internvl_gguf.config import AskOptions

FEWER_TILES: Final = 4
"""The `--max-tiles` that is named to those who want a batch sooner: enough for what a picture shows, not for its small
print."""
LOOKED_AT: Final = 16
"""Questions whose pictures are read before the run, to know their tiles and the time that reading takes."""
WORTH_ESTIMATING: Final = 20
"""Fewest lines of which a run's time is told beforehand."""
_ANSWER_TOKENS: Final = 200
_TEXT_TOKENS: Final = 100
_LONG: Final = 60.0  # seconds
_MANY_TILES: Final = FEWER_TILES + 1.5  # with its thumbnail, a picture of FEWER_TILES has one more
_ERROR, _LENGTH = '"error"', '"length"'
_HOUR: Final = 3600
_UNITS: Final = ((24 * _HOUR, "days"), (_HOUR, "hours"), (60, "minutes"), (1, "seconds"))
_NAMED: Final = re.compile(r"Cannot use (?P<name>.+?): (?P<reason>.+)", re.DOTALL)


def seconds_of_question(
    facts: LoadedFacts, devices: int, tiles: float, words: float, reading: float, answers: float = 1
) -> Range:
    """Return the seconds for one question.

    The answers under way share each reading of the weights: at best their tokens cost an `n_parallel`th. Pictures
    are read and cut in threads beside the model: at best that costs no time, at worst all of it.

    Args:
        facts: the loaded model.
        devices: GPUs, or groups of them, that share the questions; 1 for a CPU, however many workers it has.
        tiles: tiles of its pictures in all.
        words: tokens of its answer.
        reading: seconds in which its pictures are read and cut.
        answers: how many are written for it; at best they share each reading of the weights, too.
    """
    found = facts.speed.decode.amount_over(words).times(1 / facts.n_parallel, answers)
    found += facts.speed.prefill.amount_over(_TEXT_TOKENS + tiles * facts.tokens_per_tile)
    if facts.speed.tile_seconds is not None:
        found += facts.speed.tile_seconds.times(tiles)
    return Range(max(found.low, reading / PREPARING_THREADS), found.high + reading).times(1 / devices)


@dataclass(frozen=True)
class _Looked:
    """What was seen of one question.

    Attributes:
        pictures: how many it has.
        tiles: their tiles.
        fewer: their tiles with FEWER_TILES.
        words: tokens of its answer, as far as they can be known.
        answers: how many are written for it.
        seconds: time in which its pictures were read and cut.
    """

    pictures: int
    tiles: int
    fewer: int
    words: int
    answers: int
    seconds: float


def estimate(
    facts: LoadedFacts,
    devices: int,
    count: int,
    questions: Iterable[Question],
    clock: Callable[[], float] = time.perf_counter,
) -> str | None:
    """Return how long a batch will take, in a line for the user; None if that is not known.

    Args:
        facts: the loaded model; of speeds that are only assumed the line says how to measure them. Its tile limits are
            those of pictures whose question sets none.
        devices: as in `seconds_of_question`.
        count: number of questions.
        questions: some of them, from all over the batch, each with its `sampling`. Their pictures are read; those that
            cannot be used are passed over.
        clock: gives seconds.
    """
    if count < WORTH_ESTIMATING:
        return None
    if not facts.speed.measured:
        return "How long this takes is not known; `internvl doctor --measure`, once, makes an estimate possible."
    looked = [found for each in questions if (found := _look(each, facts.limits, facts.tile_size, clock))]
    if not looked:
        return None
    pictures = sum(each.pictures for each in looked)
    tiles, words = fmean(each.tiles for each in looked), fmean(each.words for each in looked)
    reading, answers = fmean(each.seconds for each in looked), fmean(each.answers for each in looked)
    each = seconds_of_question(facts, devices, tiles, words, reading, answers)
    if pictures:
        shown, of_one = pictures / len(looked), f" (about {_tiles(tiles * len(looked) / pictures)} a picture)"
        rate = f"{_rate(each.times(1 / shown))} pictures an hour"
    else:
        shown, of_one, rate = 0.0, "", f"{_rate(each)} questions an hour"
    line = (
        f"{counted(count, 'question')}{of_one} will take {_between(each.times(count))} ({rate}) by the speed of this "
        f"machine, with answers of {counted(round(words), 'token')}."
    )
    if tiles <= _MANY_TILES * max(1.0, shown):
        return line
    fewer = fmean(each.fewer for each in looked)
    least = seconds_of_question(facts, devices, fewer, words, reading, answers)
    return f"{line} Fewer tiles are faster: --max-tiles {FEWER_TILES} takes {_between(least.times(count))}."


def _look(question: Question, limits: TileLimits, tile_size: int, clock: Callable[[], float]) -> _Looked | None:
    """Read the pictures of a question; None if one cannot be used."""
    began = clock()
    if any(isinstance(image, Video) and is_pipe(image.source) for image in question.images):
        return None  # it is read once
    try:
        images = [each for image in question.images for each in _shown(image, question)]
    except VideoError:
        return None
    cuts = [_cut(image, question, limits, tile_size) for image in images]
    whole = [cut for cut in cuts if cut]
    if len(whole) < len(cuts):
        return None
    sampling = question.options["sampling"]
    words, tiles = min(sampling.effective_max_tokens, _ANSWER_TOKENS), sum(cut[0] for cut in whole)
    return _Looked(len(cuts), tiles, sum(cut[1] for cut in whole), words, sampling.best_of, clock() - began)


def _shown(image: Any, question: Question) -> Sequence[Any]:
    """Return the frames of a clip, as many as without a bound by the context; another picture alone."""
    from internvl_gguf.session.clips import clip_pictures

    return clip_pictures(image, cast("AskOptions", question.options)).pictures if isinstance(image, Video) else [image]


def _cut(image: object, question: Question, limits: TileLimits, tile_size: int) -> tuple[int, int] | None:
    """Cut a picture; return its tiles, and those with FEWER_TILES. None if the picture cannot be used."""
    from internvl_gguf.images.load import load_image

    try:
        is_file = isinstance(image, str) and (is_data_uri(image) or Path(local_path(image, image)).is_file())
        if not is_file and not isinstance(image, Picture):
            return None  # a pipe is read once
        given = image if isinstance(image, Picture) else Picture(image)
        picture = load_image(given.source)
        own = limits.narrowed(given, question.options)  # type: ignore[arg-type]  # a mapping of such options
        own.cut(picture, tile_size)
        return own.grid(picture.size, tile_size).tiles, own.capped(FEWER_TILES).grid(picture.size, tile_size).tiles
    except (InternVLError, OSError, ValueError):
        return None


class Tally:
    """The counts of a run so far.

    Args:
        output: the file of answers; None for stdout.

    Attributes:
        answered: lines with an answer.
        failed: lines without.
        copied: those of `answered` that have the answer of another line, as they ask the same about equal pictures.
        cut_off: lines whose answer ended at its limit before the form that it was bound to was complete: it holds no
            value.
    """

    def __init__(self, output: Path | None = None) -> None:
        self.answered = self.failed = self.cut_off = self.copied = 0
        self._output = output
        self._pictures = self._frames = self._tiles = self._encoded = self._animated = 0
        self._kinds: Counter[tuple[str, str]] = Counter()
        self._first_failure: tuple[int, InternVLError] | None = None
        self._first_cut_off = 0
        self._started = time.perf_counter()

    def start(self) -> None:
        """Start to count time, now that the model is loaded."""
        self._started = time.perf_counter()

    def add(self, number: int, outcome: Reply | InternVLError, *, is_bound: bool = False) -> None:
        """Count the outcome of a line.

        Args:
            number: of the line.
            outcome: its answer or error.
            is_bound: whether the answer had to have a form.
        """
        if isinstance(outcome, InternVLError):
            self.failed += 1
            self._kinds[_kind(outcome)] += 1
            if self._first_failure is None or number < self._first_failure[0]:
                self._first_failure = number, outcome
            return
        self.answered += 1
        if is_bound and outcome.finish_reason == "length":
            self.cut_off += 1
            self._first_cut_off = min(self._first_cut_off or number, number)
        self._animated += count_animations(outcome.notices)
        self._pictures += outcome.usage.images
        self._frames += sum(len(clip.frames) for clip in outcome.clips)
        self._tiles += outcome.usage.tiles
        self._encoded += outcome.usage.tiles_encoded

    def add_copy(self) -> None:
        """Count a line that has the answer of another."""
        self.answered += 1
        self.copied += 1

    def rate(self) -> str:
        """Return how many lines an hour are done, as text; "" before there is any."""
        done, seconds = self.answered + self.failed, time.perf_counter() - self._started
        return f"{_rounded(done * _HOUR / seconds)}/h" if done and seconds else ""

    def all_of(self, count: int) -> str | None:
        """Return how long all lines take at the pace so far, as a line for the user; None where nothing was answered.

        Args:
            count: how many there are.
        """
        done, seconds = self.answered + self.failed, time.perf_counter() - self._started
        if not self.answered:
            return None
        these = f"{'This was' if done == 1 else 'These were'} {done:,} of {counted(count, 'line')}"
        if self._tiles and not self._encoded:
            return (
                f"{these}, all of whose pictures were known from before: how "
                "long new ones take is not known. Without --sample all are asked."
            )
        each = Range(seconds / done, seconds / done)
        return f"{these}: at this pace all of them take {_between(each.times(count))}. Without --sample they are asked."

    def summary(self) -> Sequence[str]:
        """Return lines for the user: the speed of the run, answers without a value, and failures by their kinds."""
        lines = [self._speed()] if self.answered > self.copied else []
        if self.copied:
            lines.append(f"{counted(self.copied, 'line')} asked the same about equal pictures: answered once.")
        if self._animated:
            are, were = ("is", "frame was") if self._animated == 1 else ("are", "frames were")
            where = f"; `{_listing(self._output, SAID)}` lists which" if self._output else ""
            lines.append(f"{counted(self._animated, 'picture')} {are} animated, and the first {were} shown{where}.")
        if self.cut_off:
            where = f"; `{_listing(self._output, _LENGTH)}` lists what was cut" if self._output else ""
            these = "this line" if self.cut_off == 1 else "these lines"
            lines.append(
                f"{self.cut_off:,} of {counted(self.answered, 'answer')} ended at the limit before the form was "
                f"complete, without a value{where}. Give more max_tokens to {these}, or --max-tokens to all. "
                f"The first is line {self._first_cut_off:,}."
            )
        if self._first_failure:
            number, error = self._first_failure
            kinds = ", ".join(f"{count:,} {kind[count > 1]}" for kind, count in self._kinds.most_common())
            them = "it" if self.failed == 1 else "them"
            where = f"`{_listing(self._output, _ERROR)}` lists {them}" if self._output else "the output says why"
            lines.append(
                f"{self.failed:,} of {counted(self.answered + self.failed, 'line')} failed ({kinds}); {where}. "
                f"The first is line {number:,}{_reason(error)}"
            )
        return lines

    def _speed(self) -> str:
        seconds = time.perf_counter() - self._started
        answered = self.answered - self.copied
        line = f"Answered {counted(answered, 'line')} in {duration(seconds)}: "
        noun = "pictures" if not self._frames else "frames" if self._frames == self._pictures else "pictures and frames"
        what, count = (noun, self._pictures) if self._pictures else ("questions", answered)
        line += f"{_rounded(count * _HOUR / seconds)} {what} an hour"
        known = self._tiles - self._encoded
        if known and not self._encoded:
            return f"{line}, which says nothing of new ones: no picture was encoded, all were known from before."
        line += f", {known:,} of {counted(self._tiles, 'tile')} known from before." if known else "."
        if seconds > _LONG and self._encoded > _MANY_TILES * self._pictures:
            line += (
                f" A picture had {_tiles(self._tiles / self._pictures)}; fewer are faster (--max-tiles {FEWER_TILES})."
            )
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

    def wait(self, label: str) -> None:
        """Show what is waited for."""
        self._change(label=label)

    def load_critic(self, done: float) -> None:
        """Show how much of the critic is loaded, 0 to 1."""
        self._change(label=f"Loading the critic, {done:.0%}" if done < 1 else "Answering")

    def advance(self) -> None:
        """Count one more line as done."""
        label = f"{self._tally.failed:,} failed" if self._tally.failed else "Answering"
        self._change(advance=1, label=label, note=self._tally.rate())

    def notice(self, line: str) -> None:
        """Show a notice to the user, once; each record has its own notices."""
        if line not in self._told:
            self._told.add(line)
            self._bars.say(in_fields(line))


def _tiles(mean: float) -> str:
    return "1 tile" if (text := f"{mean:.2g}") == "1" else f"{text} tiles"


def _listing(output: Path, part: str) -> str:
    """Return the command that shows the records of an output that have a part."""
    return f"grep {shlex.quote(part)} {shlex.quote(str(records_path(output)))}"


def _kind(error: InternVLError) -> tuple[str, str]:
    """Return what kind of failure an error is, for one and for several."""
    if isinstance(error, PictureError):
        what = "unusable clip" if isinstance(error, VideoError) else "unusable picture"
        return ("missing file", "missing files") if error.is_missing else (what, f"{what}s")
    if isinstance(error, ContextOverflowError):
        return "too long for the context", "too long for the context"
    if isinstance(error, ClipOptionsError):
        return "line with options of a clip that cannot be used", "lines with options of a clip that cannot be used"
    if isinstance(error, InvalidRequestError):
        return "line that cannot be asked", "lines that cannot be asked"
    return "failure of the model", "failures of the model"


def _reason(error: InternVLError) -> str:
    """Return the text after the number of a line: " (pics/50.jpg): it is not a picture of a known format."."""
    named = _NAMED.fullmatch(error.message) if isinstance(error, PictureError) else None
    return f" ({named['name']}): {named['reason']}" if named else f": {in_fields(error.message)}"


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
