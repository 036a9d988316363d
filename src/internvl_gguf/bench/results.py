"""What a benchmark found: one row for each configuration. Everything that shows results reads these."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

_ENOUGH_FOR_QUARTILES: Final = 4
_OUTLIER: Final = 1.5

Status = Literal["measured", "out of memory", "failed", "not run"]


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
    def outliers(self) -> tuple[float, ...]:
        """Repetitions farther from the quartiles than 1.5 times their distance (Tukey 1977)."""
        lower, upper = self.quartiles
        reach = _OUTLIER * (upper - lower)
        return tuple(value for value in self.values if value < lower - reach or value > upper + reach)


@dataclass(frozen=True)
class Configuration:
    """One way to run one quant: what a row is about.

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
        """Both files together."""
        return self.text_bytes + self.mmproj_bytes


@dataclass(frozen=True)
class SpeedResult:
    """How fast a configuration is.

    Attributes:
        load: seconds from nothing to a session that can be asked, the files being in the system's page cache.
        tile: seconds to encode one tile.
        prefill: tokens a second of reading a prompt of `prompt_tokens`.
        decode: tokens a second of one answer of `answer_tokens`.
        time_to_first_token: seconds from a question about one picture to its answer's first token.
        decode_parallel: tokens a second of `parallel` answers together; None where it was not asked for.
        prompt_tokens, answer_tokens, parallel: see there.
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


@dataclass(frozen=True)
class MemoryResult:
    """What a configuration takes.

    Attributes:
        planned: bytes of each device by the plan, the host first, under llama.cpp's names.
        peak: bytes measured: the process's largest resident set for the host, what was taken of each GPU.
    """

    planned: dict[str, int]
    peak: dict[str, int]


@dataclass(frozen=True)
class Divergence:
    """How far next-token distributions are from the reference's, over scored tokens.

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
    """What a configuration loses against the reference configuration.

    Attributes:
        text: on the text set; None where it was not asked for.
        pictures: on answers about the picture set; None likewise.
        quant_alone: on the picture set, of this text quant behind the reference's mmproj.
        mmproj_alone: on the picture set, of this mmproj before the reference's text quant.
        skipped: pictures or lines that could not be used.
    """

    text: Divergence | None
    pictures: Divergence | None
    quant_alone: Divergence | None
    mmproj_alone: Divergence | None
    skipped: int = 0


@dataclass(frozen=True)
class AccuracyResult:
    """Right answers of a task.

    Attributes:
        task: its name.
        questions: how many were asked.
        exact: of them answered word for word, letter case and spaces aside.
        relaxed: of them answered in a form that means the same (docs/bench.md).
        low, high: ends of the 95% confidence interval (Wilson) of the relaxed fraction.
        skipped: questions that could not be asked.
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
        """Relaxed matches by questions."""
        return self.relaxed / self.questions if self.questions else 0.0


@dataclass(frozen=True)
class Row:
    """What is known of one configuration.

    Attributes:
        configuration: what was run.
        status: "measured", or why it was not.
        error: what happened and what to do, where it failed.
        speed, memory, quality, accuracy: None where not asked for or not reached.
    """

    configuration: Configuration
    status: Status = "not run"
    error: str = ""
    speed: SpeedResult | None = None
    memory: MemoryResult | None = None
    quality: QualityResult | None = None
    accuracy: tuple[AccuracyResult, ...] = ()


@dataclass(frozen=True)
class Results:
    """A whole benchmark.

    Attributes:
        model: name of the model.
        machine: what it ran on, one line.
        build: of llama.cpp.
        version: of this package.
        started_at: ISO 8601 with the offset from UTC.
        reference: index in `rows` of the configuration that quality is measured against; None without quality.
        rows: in the order they were asked for.
        command: the command line that makes them again.
        notices: what a reader should know, one line each.
        free_bytes: of the devices that compute, when it began; None where nobody looked.
        fits_bytes: of them, that every configuration was to fit; None without such a bound.
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
