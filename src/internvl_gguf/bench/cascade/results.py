"""Results of a benchmark of cascades: a row for each way of answering; every report is made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from internvl_gguf.bench.cascade.intervals import Interval

Kind = Literal["model", "vote", "cascade", "oracle"]


@dataclass(frozen=True)
class CascadeRow:
    """One way of answering all questions.

    Attributes:
        kind: one model alone, its vote, a cascade, or the oracle, which knows the fastest model that is right.
        name: what is asked: "demo:Q2_K", "vote of 4 of demo:Q2_K", "demo:Q2_K, then demo:BF16".
        best_of: answers of each model to each question.
        questions, right: how many were asked and answered right. Of a cascade by thresholds that were fitted to other
            questions.
        low, high: ends of the 95% confidence interval (Wilson) of the fraction of right answers.
        seconds: mean time of an answer.
        shares: fraction of the questions that each model answers; empty for one model.
        thresholds: of a cascade, fitted to all questions; what to take.
        separation: of one model: how often a right answer is surer than a wrong one (0.5 is chance); None where there
            are not both.
        gained: of a cascade: fraction of right answers gained over the last model alone.
        saved: of a cascade: fraction of the time saved over the last model alone.
    """

    kind: Kind
    name: str
    best_of: int
    questions: int
    right: int
    low: float
    high: float
    seconds: float
    shares: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    separation: float | None = None
    gained: Interval | None = None
    saved: Interval | None = None

    @property
    def fraction(self) -> float:
        """Fraction of the questions that were answered right."""
        return self.right / self.questions


@dataclass(frozen=True)
class CurvePoint:
    """What thresholds would have done on the very questions that they are fitted to.

    Attributes:
        thresholds: one for each model but the last.
        fraction: of right answers.
        seconds: mean time of an answer.
    """

    thresholds: tuple[float, ...]
    fraction: float
    seconds: float


@dataclass(frozen=True)
class Curve:
    """The thresholds that no others beat in both time and right answers, the fastest first.

    Attributes:
        best_of: answers of each model to each question.
        points: the thresholds and what they do.
    """

    best_of: int
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class CascadeResults:
    """Results of a benchmark of a cascade.

    Attributes:
        models: its models, the smallest first.
        task: name of the questions.
        rows: in the order of the report.
        curves: for each number of answers.
        recommended: index in `rows` of what to take.
        advice: the sentence about it.
        shares_encoder: whether all models have one vision encoder.
        machine, build, version, started_at, command: as in `bench.results.Results`.
        notices: remarks for the reader, one line each.
    """

    models: tuple[str, ...]
    task: str
    rows: tuple[CascadeRow, ...]
    curves: tuple[Curve, ...]
    recommended: int
    advice: str
    shares_encoder: bool
    machine: str
    build: str
    version: str
    started_at: str
    command: str = ""
    notices: tuple[str, ...] = ()
