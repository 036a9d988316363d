"""What answers the lines of a batch in one process: a model of its own, and a critic where one judges.

The command line has one in its own process, each worker has one (`bulk.worker_main`), and so may a machine of a
cluster. What it is made of can be pickled, so that all of them have the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from internvl_gguf.bulk.animations import animation_notices
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.errors import InternVLError, InvalidRequestError, PictureError
from internvl_gguf.session.feed import Absent, Feed, feed_of
from internvl_gguf.types import Question, Reply, plain

if TYPE_CHECKING:
    from internvl_gguf.config import AskOptions
    from internvl_gguf.critics.found_critic import FoundCritic
    from internvl_gguf.images.tile_limits import TileLimits
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.planning.speed_estimate import SpeedEstimate
    from internvl_gguf.session import Session
    from internvl_gguf.session.model_runtime import LoadProgress
    from internvl_gguf.utils.notices import Notice


class PlacedLine(NamedTuple):
    """A line with its place among those of a run, from 0."""

    place: int
    line: Line


PlacedLines = Iterable[PlacedLine] | Feed[PlacedLine]
"""The lines of a run, in order: a list, a generator, or a feed that may have none at a moment."""


@dataclass(frozen=True)
class Answered:
    """The outcome of a line. It can be pickled.

    Attributes:
        place: the line's place among those of the run.
        line: the line.
        outcome: its answer, or the error that it alone ended in.
        is_bound: whether the answer had to have a form.
    """

    place: int
    line: Line
    outcome: Reply | InternVLError
    is_bound: bool = False


OnAnswered = Callable[[Answered], None]


@dataclass(frozen=True)
class Answering:
    """How lines are answered. It can be pickled.

    Attributes:
        files: the files of the model, which are here.
        opening: other arguments of `Session.open`, options of the engine among them.
        asked: options of every question that does not say otherwise, `sampling` among them.
        common: what the lines have in common.
        critic: the critic that judges several answers to a line; None where none has to.
    """

    files: ModelFiles
    opening: Mapping[str, Any]
    asked: AskOptions
    common: Common
    critic: FoundCritic | None = None

    def with_engine(self, **options: Any) -> Answering:
        """Return the same with other options of the engine."""
        return replace(self, opening={**self.opening, **options})


@dataclass(frozen=True)
class LoadedFacts:
    """Facts about a loaded model. They can be pickled.

    Attributes:
        speed: the planner's estimate for this machine.
        tokens_per_tile: visual tokens of a tile.
        tile_size: side of a tile in pixels.
        n_parallel: questions answered at once.
        limits: tile limits of the session.
    """

    speed: SpeedEstimate
    tokens_per_tile: int
    tile_size: int
    n_parallel: int
    limits: TileLimits


class Answerer:
    """Answers lines with a loaded model. Made by `open_answerer`.

    Args:
        session: the model; its conversation is empty.
        common: what the lines have in common.
        asked: options of every question that does not say otherwise.
    """

    def __init__(self, session: Session, common: Common, asked: AskOptions) -> None:
        self._session = session
        self._common = common
        self._asked = asked

    @property
    def facts(self) -> LoadedFacts:
        """Facts about the model as it is loaded."""
        runtime = self._session.runtime
        return LoadedFacts(
            runtime.configuration.speed,
            runtime.vision.tokens_per_tile,
            runtime.vision.image_size,
            runtime.engine.n_parallel,
            self._session.limits,
        )

    def answer(self, lines: PlacedLines, on_answered: OnAnswered) -> None:
        """Answer lines, several at a time; none is kept.

        A call for each outcome, and not an iterator, so that a line that is no question has its outcome at once:
        whoever hands out lines does not wait for it until another line is answered.

        Args:
            lines: read as they are needed.
            on_answered: called with the outcome of each line, in the order in which they end.

        Raises:
            LibraryError: the model's process has died and cannot be started again.
            InvalidRequestError: options of all lines that cannot be used.
        """
        questions = _Questions(feed_of(lines), self._common, on_answered)
        for question, outcome in self._session.each(questions, **self._asked):
            is_bound = self._common.is_bound(question)
            if isinstance(outcome, Reply):
                parsed = plain(outcome.parsed)  # what records have, and pickles can
                outcome = replace(
                    outcome, parsed=parsed, notices=(*outcome.notices, *animation_notices(question.images))
                )
            elif isinstance(outcome, PictureError) and outcome.is_missing and question.line.if_missing:
                outcome = type(outcome)(outcome.message, question.line.if_missing, is_missing=True)
            on_answered(Answered(question.place, question.line, outcome, is_bound))


@contextlib.contextmanager
def open_answerer(
    answering: Answering,
    on_load: LoadProgress,
    on_notice: Notice,
    on_load_critic: LoadProgress | None = None,
) -> Iterator[Answerer]:
    """Load a model, and the critic where there is one, each in a process of its own; both end with the block.

    Args:
        answering: how lines are answered.
        on_load: called with the fraction of the model that is loaded.
        on_notice: called with notices for the user.
        on_load_critic: called with the fraction of the critic that is loaded; None calls `on_load`.

    Raises:
        InternVLError: the model or the critic cannot be loaded, or options of all lines cannot be used.
    """
    from internvl_gguf.session import Session
    from internvl_gguf.session.question_options import checked_options

    files = answering.files
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(
            Session.open(
                files.text, files.mmproj, **answering.opening, on_load=on_load, on_notice=on_notice, worker=True
            )
        )
        asked = answering.asked
        if answering.critic:
            judge = stack.enter_context(answering.critic.open(on_load_critic or on_load, on_notice, in_worker=True))
            asked = cast("AskOptions", {**asked, "judge": judge})
        yield Answerer(session, answering.common, checked_options(asked))


@dataclass(frozen=True, kw_only=True)
class _LineQuestion(Question):
    """The question of a line.

    Attributes:
        place: its place among the lines of this run, from 0.
        line: the line.
    """

    place: int
    line: Line


class _Questions(Feed[_LineQuestion]):
    """Turns lines into questions; one that is no question has its outcome as soon as it is read."""

    def __init__(self, lines: Feed[PlacedLine], common: Common, on_answered: OnAnswered) -> None:
        self._lines = lines
        self._common = common
        self._on_answered = on_answered

    def take(self, *, waits: bool) -> _LineQuestion | Absent:
        while not isinstance(taken := self._lines.take(waits=waits), Absent):
            place, line = taken
            try:
                return _LineQuestion(**vars(self._common.question_of(line)), place=place, line=line)
            except InvalidRequestError as error:
                self._on_answered(Answered(place, line, error))
        return taken

    @property
    def is_ready(self) -> bool:
        return self._lines.is_ready

    @property
    def is_recalling(self) -> bool:
        return self._lines.is_recalling

    def withdraw(self, unbegun: Sequence[_LineQuestion]) -> frozenset[int]:
        return self._lines.withdraw([PlacedLine(question.place, question.line) for question in unbegun])
