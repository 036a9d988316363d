"""Results of a benchmark, one row for each configuration; every report is made from them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

_ENOUGH_FOR_QUARTILES: Final = 4
_OUTLIER: Final = 1.5

Status = Literal["measured", "out of memory", "failed", "not run"]
ORACLE: Final = "pass"
"""In place of a judge's name: a question counts if any of its answers is right, which is pass@N."""


@dataclass(frozen=True)
class Spread:
    """A quantity measured several times.

    Attributes:
        median, low, high: of the repetitions.
        repetitions: how many there were, the warm-up not counted.
        values: of each repetition, in their order; empty where only their summary is known.
    """

    median: float
    low: float
    high: float
    repetitions: int
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summary of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values), tuple(values))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one, which one disturbed repetition hardly moves; the extremes of fewer than four.

        Between two repetitions they are interpolated (Hyndman and Fan 1996, method 7, as numpy does).
        """
        if len(self.values) < _ENOUGH_FOR_QUARTILES:
            return self.low, self.high
        lower, _, upper = statistics.quantiles(self.values, n=4, method="inclusive")
        return lower, upper

    @property
    def is_disturbed(self) -> bool:
        """Whether half the distance of the quartiles is as large as the median: other programs took the time."""
        lower, upper = self.quartiles
        return (upper - lower) / 2 >= self.median > 0

    @property
    def outliers(self) -> tuple[float, ...]:
        """Repetitions farther from the quartiles than 1.5 times their distance (Tukey 1977)."""
        lower, upper = self.quartiles
        reach = _OUTLIER * (upper - lower)
        return tuple(value for value in self.values if value < lower - reach or value > upper + reach)


@dataclass(frozen=True)
class Configuration:
    """The files and settings of one row.

    Attributes:
        quant: label of the text model's quant, such as "Q4_K_M".
        precision: label of the mmproj, such as "F16".
        text, mmproj: the files' names.
        text_bytes, mmproj_bytes: their sizes; all parts of a split file together.
        bits_per_weight: of the text model's file.
        settings: how it is run, by the names of `EngineConfig`.
    """

    quant: str
    precision: str
    text: str
    mmproj: str
    text_bytes: int
    mmproj_bytes: int
    bits_per_weight: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of both files together."""
        return self.text_bytes + self.mmproj_bytes


@dataclass(frozen=True)
class SpeedResult:
    """Speed of a configuration.

    Attributes:
        load: seconds to open a session, with the files in the system's page cache.
        tile: seconds to encode one tile.
        prefill: tokens a second of reading a prompt of `prompt_tokens`.
        decode: tokens a second of one answer of `answer_tokens`.
        time_to_first_token: seconds from a question about one picture to its answer's first token.
        decode_parallel: tokens a second of `parallel` answers together; None if not requested.
        prompt_tokens, answer_tokens, parallel: see above.
        picture_tiles: tiles of the picture of `time_to_first_token`, its thumbnail included.
    """

    load: Spread
    tile: Spread
    prefill: Spread
    decode: Spread
    time_to_first_token: Spread
    decode_parallel: Spread | None
    prompt_tokens: int
    answer_tokens: int
    parallel: int
    picture_tiles: int

    @property
    def is_disturbed(self) -> bool:
        """Whether a spread is as large as its value."""
        measured = (self.load, self.tile, self.prefill, self.decode, self.time_to_first_token, self.decode_parallel)
        return any(each is not None and each.is_disturbed for each in measured)


@dataclass(frozen=True)
class MemoryResult:
    """Memory of a configuration.

    Attributes:
        planned: predicted bytes of each device, the host first, under llama.cpp's names.
        peak: measured bytes: the largest resident set of the process on the host, the memory in use on each GPU.
    """

    planned: dict[str, int]
    peak: dict[str, int]


@dataclass(frozen=True)
class Divergence:
    """Divergence of next-token distributions from the reference's, over the scored tokens.

    KL divergence is sum(p * (ln p - ln q)) in nats, p the reference.

    Attributes:
        tokens: how many were scored.
        mean, median, p99, maximum: of the KL divergence.
        mean_error: standard error of the mean.
        top1: fraction of positions at which the likeliest token is the reference's.
        perplexity: exp of the mean negative log probability of the scored tokens.
        reference_perplexity: the reference's.
        quantiles: KL divergence at 0, 5, 10, ..., 100 percent, for a picture of its spread.
    """

    tokens: int
    mean: float
    mean_error: float
    median: float
    p99: float
    maximum: float
    top1: float
    perplexity: float
    reference_perplexity: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class QualityResult:
    """Loss of a configuration against the reference.

    Attributes:
        text: divergence on the text set; None if not requested.
        pictures: divergence on answers about the picture set; None if not requested.
        quant_alone: divergence on the picture set of this text quant with the reference's mmproj.
        mmproj_alone: divergence on the picture set of this mmproj with the reference's text quant.
        skipped: number of pictures or lines that could not be used.
    """

    text: Divergence | None
    pictures: Divergence | None
    quant_alone: Divergence | None
    mmproj_alone: Divergence | None
    skipped: int = 0


@dataclass(frozen=True)
class AccuracyResult:
    """Number of right answers to the questions of a task.

    Attributes:
        task: its name.
        questions: number of questions asked.
        exact: number answered right word for word, letter case and spaces aside.
        relaxed: number answered right by the relaxed rules (docs/bench.md).
        low, high: ends of the 95% confidence interval (Wilson) of the relaxed fraction.
        skipped: number of questions that could not be asked.
    """

    task: str
    questions: int
    exact: int
    relaxed: int
    low: float
    high: float
    skipped: int = 0

    @property
    def fraction(self) -> float:
        """Fraction of the questions that were answered right by the relaxed rules."""
        return self.relaxed / self.questions if self.questions else 0.0


@dataclass(frozen=True)
class JudgedAnswers:
    """Right answers where one judge chooses among so many.

    Attributes:
        judge: its name; `ORACLE` stands for one that finds a right answer wherever there is one.
        count: answers to each question that it chooses among.
        right: expected number of questions answered right by the relaxed rules.
        low, high: ends of the 95% interval (Wilson) of that as a fraction.
        gain: fraction of the questions answered right more than by one answer.
        gain_low, gain_high: ends of its 95% interval, which compares question by question.
        seconds: from a question to the chosen answer; None where that was not measured.
    """

    judge: str
    count: int
    right: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    seconds: Spread | None = None


@dataclass(frozen=True)
class BestOfResult:
    """What several answers to each question of a task are worth.

    Attributes:
        task: its name.
        questions: number of questions asked.
        counts: numbers of answers in ascending order, the first 1.
        seed: from which those of the answers were counted on.
        first_is_greedy: whether the first answer was greedy and only the others were sampled.
        temperature, top_p: of the sampled answers.
        pass1: mean fraction of the sampled answers that are right (pass@1).
        pass1_low, pass1_high: ends of its 95% interval (Wilson).
        mixed: number of questions of which some answers are right and some are wrong: only there a judge matters.
        tokens: for each of `counts`, mean number of tokens of all answers to a question.
        judged: right answers by judge and count.
        skipped: number of questions that could not be asked.
    """

    task: str
    questions: int
    counts: tuple[int, ...]
    seed: int
    first_is_greedy: bool
    temperature: float
    top_p: float
    pass1: float
    pass1_low: float
    pass1_high: float
    mixed: int
    tokens: tuple[float, ...]
    judged: tuple[JudgedAnswers, ...]
    skipped: int = 0

    @property
    def judges(self) -> tuple[str, ...]:
        """Names of the judges, the oracle last."""
        return tuple(dict.fromkeys(each.judge for each in self.judged))

    def of(self, judge: str, count: int) -> JudgedAnswers | None:
        """Return what a judge makes of so many answers; None if that is not known."""
        return next((each for each in self.judged if (each.judge, each.count) == (judge, count)), None)

    def fraction(self, judged: JudgedAnswers) -> float:
        """Return the fraction of the questions that is answered right."""
        return judged.right / self.questions if self.questions else 0.0


@dataclass(frozen=True)
class Row:
    """Results of one configuration.

    Attributes:
        configuration: files and settings.
        status: "measured", or why it was not measured.
        error: what happened and what to do, if it failed.
        speed, memory, quality, accuracy, best_of: None or empty if not requested or not reached.
    """

    configuration: Configuration
    status: Status = "not run"
    error: str = ""
    speed: SpeedResult | None = None
    memory: MemoryResult | None = None
    quality: QualityResult | None = None
    accuracy: tuple[AccuracyResult, ...] = ()
    best_of: tuple[BestOfResult, ...] = ()


@dataclass(frozen=True)
class Results:
    """Results of a whole benchmark.

    Attributes:
        model: name of the model.
        machine: the machine it ran on, in one line.
        build: of llama.cpp.
        version: of this package.
        started_at: ISO 8601 with the offset from UTC.
        reference: index in `rows` of the configuration that quality is measured against; None without quality.
        rows: in the order of the request.
        command: the command line that repeats the benchmark.
        notices: remarks for the reader, one line each.
        free_bytes: free bytes of the devices that compute, at the start; None if not determined.
        fits_bytes: bytes of these devices that every configuration had to fit in; None without such a limit.
    """

    model: str
    machine: str
    build: str
    version: str
    started_at: str
    reference: int | None
    rows: tuple[Row, ...]
    command: str = ""
    notices: tuple[str, ...] = ()
    free_bytes: int | None = None
    fits_bytes: int | None = None
