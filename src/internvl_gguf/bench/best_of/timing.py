"""Take the time of several answers against that of one, on some of the questions.

The answers that right ones are counted from are written `most` at a time, which says nothing about the time of fewer.
So some questions are asked again as a user would ask them: alone, and with each number of answers; once with a vote,
which ends as soon as it is decided, and once with a judge that waits for all. For a question the sides alternate, in an
order that changes, each with an empty KV cache and with its pictures encoded anew. A judge's own time is added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from internvl_gguf.bench.best_of.measure import MeasuredBestOf, question_options
from internvl_gguf.bench.best_of.settings import BestOfSettings
from internvl_gguf.bench.local_runtime import local_runtime
from internvl_gguf.bench.results import ORACLE, BestOfResult, Spread

if TYPE_CHECKING:
    from internvl_gguf.bench.quality.sets import PictureItem
    from internvl_gguf.bench.speed import StageProgress
    from internvl_gguf.session import Session

MOST_TIMED: Final = 5
"""Questions that are timed, spread evenly over the task."""
_MOST_TURNS: Final = 25
_ENOUGH: Final = 20.0
"""Seconds after which none of them is asked once more; a fast model has time for `_MOST_TURNS`."""
_VOTE: Final = "vote"
_WAITS: Final = "certainty"
_STAGE: Final = "time of answers"

_Side = tuple[str, int]
"""A judge that ends early or waits for all, and the number of answers."""


def with_seconds(
    session: Session,
    measured: MeasuredBestOf,
    settings: BestOfSettings,
    on_progress: StageProgress = lambda what, done: None,
) -> BestOfResult:
    """Return the result with the seconds of a question for each judge and number of answers.

    Args:
        session: of the configuration, without caches of embeddings; its conversation is cleared.
        measured: what was counted.
        settings: how the answers were made.
        on_progress: called with the fraction that is done.

    Raises:
        InternVLError: a question that could be asked before cannot be asked any more.
    """
    taken = _times(session, measured.asked, settings, on_progress)
    judged = []
    for each in measured.result.judged:
        side = _side(each.judge, each.count)
        own = measured.judging.get(each.judge, 0.0) * each.count if each.count > 1 else 0.0
        values = [seconds + own for seconds in taken[side]] if each.judge != ORACLE else []
        judged.append(replace(each, seconds=Spread.of(values) if values else None))
    return replace(measured.result, judged=tuple(judged))


def _side(judge: str, count: int) -> _Side:
    return (_VOTE if judge == _VOTE and count > 1 else _WAITS), count


def _times(
    session: Session,
    asked: Sequence[tuple[int, PictureItem]],
    settings: BestOfSettings,
    on_progress: StageProgress,
) -> Mapping[_Side, list[float]]:
    sides = list(dict.fromkeys(_side(judge, count) for count in settings.counts for judge in (_VOTE, _WAITS)))
    n_timed = min(MOST_TIMED, len(asked))
    chosen = [asked[place * len(asked) // n_timed] for place in range(n_timed)]
    taken: dict[_Side, list[float]] = {side: [] for side in sides}
    ask = _asker(session, settings)
    ask(*chosen[0], sides[0])  # a warm-up
    began, turn = time.perf_counter(), 0
    while turn < n_timed or (turn < _MOST_TURNS and time.perf_counter() - began < _ENOUGH):
        first = turn % len(sides)
        order = sides[first:] + sides[:first]
        for side in order[:: -1 if turn % 2 else 1]:
            taken[side].append(ask(*chosen[turn % n_timed], side))
        turn += 1
        is_slow = time.perf_counter() - began >= _ENOUGH
        on_progress(_STAGE, min(1.0, turn / (n_timed if is_slow else _MOST_TURNS)))
    return taken


def _asker(session: Session, settings: BestOfSettings) -> Callable[[int, PictureItem, _Side], float]:
    """Return what asks a question and returns the seconds it took."""
    engine = local_runtime(session).engine

    def ask(number: int, item: PictureItem, side: _Side) -> float:
        judge, count = side
        session.clear()
        engine.forget()
        options = question_options(item, number, settings, judge if count > 1 else None)
        started = time.perf_counter()
        if count == 1:
            session.ask(item.prompt, item.images, **options)
        else:
            session.best_of(item.prompt, item.images, n=count, **options)
        seconds = time.perf_counter() - started
        session.clear()
        return seconds

    return ask
