"""Ask every question of a set of one model: which answers are right, how sure it is, and how long it takes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.quality.accuracy import MAX_TOKENS
from internvl_gguf.bench.quality.matching import is_relaxed
from internvl_gguf.bench.quality.sets import PictureItem, PictureSet
from internvl_gguf.config import AskOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    from internvl_gguf.session import Session
    from internvl_gguf.types import Reply

SEED: Final = 0
"""Seed of the first of several answers, so that they are the same each time; and of the order of the questions."""


@dataclass(frozen=True)
class ModelAnswer:
    """The answer of a model to one question.

    Attributes:
        item: place of the question in its set.
        text: the answer.
        is_right: whether it is right by the relaxed rules (docs/bench.md).
        confidence: how sure the model is of it, 0 to 1; 0 where that is not known.
        seconds: from the question to the whole answer, nothing known of its pictures.
        encode: seconds of these that the vision encoder took.
    """

    item: int
    text: str
    is_right: bool
    confidence: float
    seconds: float
    encode: float


@dataclass(frozen=True)
class ModelAnswers:
    """The answers of a model to all questions that could be asked.

    Attributes:
        encoder: identity of its vision encoder, hexadecimal: models with the same one share embeddings.
        answers: in the order of the set.
    """

    encoder: str
    answers: tuple[ModelAnswer, ...]


def answer_all(
    session: Session,
    questions: PictureSet,
    best_of: int,
    on_progress: Callable[[float], None] = lambda done: None,
    on_notice: Notice = log_notice,
) -> ModelAnswers:
    """Ask all questions one by one, after one that does not count.

    They are asked in an order of chance, the same each time: neighbours in a file are often about one picture, and the
    second of them would find it read already.

    Args:
        session: of the model, without embedding caches; its conversation is cleared.
        questions: with their right answers.
        best_of: answers to each, of which the vote chooses one.
        on_progress: called with the fraction that is done.
        on_notice: called with one line for each question that could not be asked.

    Raises:
        InternVLError: the model cannot answer.
    """
    order = list(range(len(questions.items)))
    random.Random(SEED).shuffle(order)
    found: list[ModelAnswer] = []
    _warm_up(session, questions, order[-1], best_of)
    for done, place in enumerate(order, 1):
        item = questions.items[place]
        session.clear()
        started = time.perf_counter()
        try:
            reply = _ask(session, item, best_of)
        except (PictureError, InvalidRequestError) as error:
            on_notice(f"{questions.place(item)}: {error.message}")
        else:
            seconds = time.perf_counter() - started
            is_right = is_relaxed(reply.text, item.answers, item.tolerance)
            confidence = reply.confidence or 0.0
            found.append(ModelAnswer(place, reply.text, is_right, confidence, seconds, reply.timings.encode))
        on_progress(done / len(order))
    session.clear()
    return ModelAnswers(session.runtime.encoder_identity.hex(), tuple(sorted(found, key=lambda each: each.item)))


def _warm_up(session: Session, questions: PictureSet, place: int, best_of: int) -> None:
    session.clear()
    try:
        _ask(session, questions.items[place], best_of)
    except (PictureError, InvalidRequestError):
        return  # it is told of when it is asked


def _ask(session: Session, item: PictureItem, best_of: int) -> Reply:
    sampling = SamplingParams(max_tokens=item.max_tokens or MAX_TOKENS, best_of=best_of, seed=SEED)
    options: AskOptions = {"sampling": sampling, "confidence": True}
    if item.max_tiles is not None:
        options["max_tiles"] = item.max_tiles
    return session.ask(item.prompt, item.images, **options)
