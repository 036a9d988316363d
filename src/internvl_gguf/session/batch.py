"""Batches: independent questions, answered several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Generic

from internvl_gguf.errors import InternVLError, WorkerDiedError
from internvl_gguf.session.answer import AnswerStream
from internvl_gguf.session.candidate_answers import CandidateAnswers
from internvl_gguf.session.feed import Absent, AnyQuestion, Feed
from internvl_gguf.session.prepare import PreparedQuestion
from internvl_gguf.types import Question, Reply

if TYPE_CHECKING:
    from internvl_gguf.engine import ModelEngine

Outcome = Reply | InternVLError
"""Result of one question of a batch: its reply, or the error that it ended in."""

PREPARING_THREADS: Final = 2
"""Threads that read and cut pictures: one is cut in a fraction of the time it takes to encode."""


@dataclass(frozen=True)
class BatchModel:
    """The calls that a batch makes to its session.

    Attributes:
        engine: runs the requests.
        prepare: prepares a question; called in threads of a pool.
        begin: submits it; called in the calling thread, in the order of the questions.
        revive: loads the model again if its process has died.
        on_second: called when a second question was read.
    """

    engine: ModelEngine
    prepare: Callable[[Question], PreparedQuestion]
    begin: Callable[[PreparedQuestion], AnswerStream | CandidateAnswers]
    revive: Callable[[], None]
    on_second: Callable[[], None]


def as_question(given: Question | str) -> Question:
    """Return one item of a batch as a `Question`; an iterator of pictures is read, as it may be prepared twice."""
    if isinstance(given, str):
        return Question(given)
    if isinstance(given, Question) and isinstance(given.images, Iterator):
        return replace(given, images=tuple(given.images))
    return given


def answer_all(
    model: BatchModel, questions: Feed[AnyQuestion]
) -> Generator[tuple[int, AnyQuestion, Outcome], None, None]:
    """Answer questions, as many at a time as the engine runs, while the pictures of the next ones are read and cut.

    Closing the iterator ends the running answers. If the process of the model dies, the questions that it was answering
    are asked once more, each alone; a question that it dies of again ends in that error, and the others go on.

    Args:
        model: the calls to the session.
        questions: taken as they are needed: the ones being answered, and as many again ahead of them.

    Yields:
        The number of a question, the question as it was given and its outcome, in the order in which they end.

    Raises:
        InternVLError: the model's process has died and cannot be started again.
    """
    with _Batch(model, questions) as batch:
        while batch.goes_on():
            yield from batch.step()


@dataclass(eq=False)
class _BatchQuestion(Generic[AnyQuestion]):
    """A question of the batch.

    Attributes:
        index: its number.
        given: the question as it was given.
        question: the question.
        prepared: the prepared question; None before its preparation began.
        deaths: number of processes of the model that died while they answered it.
    """

    index: int
    given: AnyQuestion
    question: Question
    prepared: Future[PreparedQuestion] | None = None
    deaths: int = 0


class _Batch(Generic[AnyQuestion]):
    """The unfinished questions that were read: prepared in order, running, or suspected of killing the process."""

    def __init__(self, model: BatchModel, questions: Feed[AnyQuestion]) -> None:
        self._model = model
        self._feed = questions
        self._are_more = True
        self._n_taken = 0
        self._prepared: deque[_BatchQuestion[AnyQuestion]] = deque()
        self._suspects: deque[_BatchQuestion[AnyQuestion]] = deque()
        self._running: dict[_BatchQuestion[AnyQuestion], AnswerStream | CandidateAnswers] = {}
        self._has_died = False
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, "internvl-pictures")

    def __enter__(self) -> _Batch[AnyQuestion]:
        return self

    def __exit__(self, *_: object) -> None:
        for answer in self._running.values():
            answer.handle.cancel()
        self._pool.shutdown(cancel_futures=True)

    def goes_on(self) -> bool:
        """Return whether questions are left or may come, after taking new ones as they are needed."""
        if self._feed.is_recalling:
            self._withdraw()
        while self._has_room:
            taken = self._feed.take(waits=not self._has_work)
            if taken is Absent.NOT_NOW:
                break
            if taken is Absent.NO_MORE:
                self._are_more = False
            else:
                self._add(taken)
        return self._are_more or self._has_work

    def _add(self, given: AnyQuestion) -> None:
        if self._n_taken == 1:
            self._model.on_second()
        self._prepared.append(_BatchQuestion(self._n_taken, given, as_question(given)))
        self._n_taken += 1

    def _withdraw(self) -> None:
        """Forget the questions that have not begun and are wanted back."""
        unbegun = list(self._prepared)
        wanted = self._feed.withdraw([item.given for item in unbegun])
        for place in wanted:
            self._prepared.remove(unbegun[place])
            if (preparing := unbegun[place].prepared) is not None:
                preparing.cancel()

    @property
    def _has_room(self) -> bool:
        """Whether one more question is read ahead."""
        return self._are_more and len(self._prepared) <= self._model.engine.n_parallel

    @property
    def _has_work(self) -> bool:
        return bool(self._prepared or self._suspects or self._running)

    def step(self) -> Iterator[tuple[int, AnyQuestion, Outcome]]:
        """Submit the questions that can begin, and have the model work until one has ended."""
        if self._has_died and not self._running:
            self._revive()
        if not self._has_died and not self._has_suspects:
            for item in self._prepared:
                self._prepare(item)
        yield from self._begin()
        if not self._running:
            return
        self._model.engine.work_until(self._has_news)
        for item, answer in list(self._running.items()):
            try:
                if not answer.take_ready():
                    continue
                answer.finish()
                outcome: Outcome = answer.reply()
            except InternVLError as error:
                outcome = error
            del self._running[item]
            yield from self._end(item, outcome)

    def _begin(self) -> Iterator[tuple[int, AnyQuestion, Outcome]]:
        while not self._has_died and (self._can_begin() or not self._running):
            queue = self._suspects or self._prepared
            if not queue:
                return
            item = queue.popleft()
            try:
                self._running[item] = self._model.begin(self._prepare(item).result())
            except InternVLError as error:
                yield from self._end(item, error)

    def _prepare(self, item: _BatchQuestion[AnyQuestion]) -> Future[PreparedQuestion]:
        if item.prepared is None:
            item.prepared = self._pool.submit(self._model.prepare, item.question)
        return item.prepared

    def _can_begin(self) -> bool:
        """Return whether the next question can begin beside the running ones: a suspect runs alone."""
        if self._has_suspects or not self._prepared or len(self._running) >= self._model.engine.n_parallel:
            return False
        return self._prepare(self._prepared[0]).done()

    @property
    def _has_suspects(self) -> bool:
        return bool(self._suspects) or any(item.deaths for item in self._running)

    def _has_news(self) -> bool:
        has_come = self._feed.is_recalling or (self._has_room and self._feed.is_ready)
        return has_come or self._can_begin() or any(answer.handle.is_readable for answer in self._running.values())

    def _end(self, item: _BatchQuestion[AnyQuestion], outcome: Outcome) -> Iterator[tuple[int, AnyQuestion, Outcome]]:
        """Yield the outcome of a question; one whose process died for the first time is asked once more instead."""
        if not isinstance(outcome, WorkerDiedError):
            yield item.index, item.given, outcome
            return
        self._has_died = True
        item.deaths += 1
        if item.deaths == 1:
            self._suspects.append(item)
        else:
            again = f"{outcome.message} That happened twice with this question."
            yield item.index, item.given, WorkerDiedError(again, outcome.hint)

    def _revive(self) -> None:
        """Start another process. Prepared questions may not suit it: they are prepared again after the suspects."""
        for item in (*self._suspects, *self._prepared):
            if item.prepared is not None and not item.prepared.cancel():
                item.prepared.exception()  # waits: nothing is prepared for others while a suspect runs
            item.prepared = None
        self._model.revive()
        self._has_died = False
