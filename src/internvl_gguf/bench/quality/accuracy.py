"""Count the questions of a task that a configuration answers right, decoding greedily."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.quality.matching import is_exact, is_relaxed
from internvl_gguf.bench.quality.sets import PictureItem, read_task
from internvl_gguf.bench.results import AccuracyResult
from internvl_gguf.config import AskOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.types import Question, Reply
from internvl_gguf.utils.notices import Notice, log_notice

if TYPE_CHECKING:
    from internvl_gguf.bench.speed import StageProgress
    from internvl_gguf.session import Session
    from internvl_gguf.session.batch import Outcome

MAX_TOKENS: Final = 64
"""Most tokens of an answer, unless its question sets a limit."""

Z_95: Final = 1.959963984540054
"""Half the width of a 95% interval of a normal distribution, in standard deviations."""


def measure_accuracy(
    session: Session,
    task: str | None,
    on_progress: StageProgress = lambda what, done: None,
    on_notice: Notice = log_notice,
) -> AccuracyResult:
    """Ask all questions of a task, as many at a time as the session answers at once.

    Args:
        session: of the configuration; its conversation is cleared.
        task: path of a file of questions (see `sets`); None for the demo model's held-out ones.
        on_progress: called with the task's name and the fraction that is done.
        on_notice: called with one line for each question that could not be asked.

    Raises:
        InvalidRequestError: the task cannot be read, or has no question that can be asked.
        LibraryError: llama.cpp refused, or the model computes what is no number.
    """
    session.clear()
    picture_set = read_task(task)
    done = exact = relaxed = skipped = 0

    def count(index: int, outcome: Outcome) -> None:
        nonlocal done, exact, relaxed, skipped
        item = picture_set.items[index]
        if isinstance(outcome, Reply):
            exact += is_exact(outcome.text, item.answers)
            relaxed += is_relaxed(outcome.text, item.answers, item.tolerance)
        elif isinstance(outcome, PictureError | InvalidRequestError):
            skipped += 1
            on_notice(f"{picture_set.place(item)}: {outcome.message}")
        else:
            raise outcome
        done += 1
        on_progress(picture_set.name, done / len(picture_set.items))

    session.batch(map(_question, picture_set.items), on_result=count)
    questions = done - skipped
    low, high = wilson_interval(relaxed, questions)
    return AccuracyResult(picture_set.name, questions, exact, relaxed, low, high, skipped + len(picture_set.problems))


def wilson_interval(right: float, questions: int) -> tuple[float, float]:
    """Return the ends of the 95% confidence interval of a fraction (Wilson, 1927); (0, 1) without questions.

    Args:
        right: how many were answered right. A sum of probabilities makes the interval wider than it had to be, never
            narrower: no numbers from 0 to 1 vary more about their mean than zeros and ones do.
        questions: how many were asked.
    """
    if not questions:
        return 0.0, 1.0
    fraction, spread = right / questions, Z_95 * Z_95 / questions
    centre = (fraction + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (fraction * (1 - fraction) + spread / 4)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def _question(item: PictureItem) -> Question:
    options: AskOptions = {"sampling": SamplingParams(max_tokens=item.max_tokens or MAX_TOKENS)}
    if item.max_tiles is not None:
        options["max_tiles"] = item.max_tiles
    return Question(item.prompt, item.images, {**options})
