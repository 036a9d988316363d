"""What a judge gets, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_gguf.structured import AnswerFormat
    from internvl_gguf.types import Message, MessagePicture, Reply


@dataclass(frozen=True)
class Candidate:
    """One of several answers to a question.

    Attributes:
        index: its number; 0 is the first, which is the greedy one unless a temperature was given.
        reply: the answer.
        seed: seed of its sampling; None for a greedy one.
        logprob: mean natural-log probability of the tokens of its answer; None where it is not known.
        certainty: self-certainty in nats, the mean over its tokens of KL(uniform || p) (arXiv 2502.18581); None where
            it is not known.
    """

    index: int
    reply: Reply
    seed: int | None = None
    logprob: float | None = None
    certainty: float | None = None


@dataclass(frozen=True)
class JudgedQuestion:
    """The question that candidates answer.

    Attributes:
        prompt: its text.
        pictures: its pictures.
        messages: the conversation before it.
        format: the form that the answers are bound to; None for free text.
    """

    prompt: str
    pictures: tuple[MessagePicture, ...] = ()
    messages: tuple[Message, ...] = ()
    format: AnswerFormat | None = None


@dataclass(frozen=True)
class Verdict:
    """Which candidate is the best.

    Attributes:
        best: its place among the candidates that were judged, from 0.
        scores: one for each candidate, in order; the higher, the better. What they are is the judge's matter.
        confidence: from 0 to 1: how sure the judge is of the best. Of a vote it is the share of its weight.
        reason: one short line for people: "6 of 8 agree", "critic 0.93 (next 0.41)".
        groups: of a vote, places of candidates with equal answers, the largest weight first.
    """

    best: int
    scores: tuple[float, ...]
    confidence: float
    reason: str
    groups: tuple[tuple[int, ...], ...] = ()


Judge = Callable[[JudgedQuestion, Sequence[Candidate]], Verdict | Sequence[float]]
"""A judge: of one's own it may return scores alone, one for each candidate."""
