"""Many questions, independent of one another, answered several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from internvl_gguf.errors import InternVLError, WorkerDiedError
from internvl_gguf.session.answer import Answering
from internvl_gguf.session.prepare import Request
from internvl_gguf.types import Question, Reply

if TYPE_CHECKING:
    from internvl_gguf.engine import ModelEngine

Outcome = Reply | InternVLError
"""What became of a question."""

_PREPARING_THREADS: Final = 2  # a picture is cut in a fraction of the time it takes to encode


@dataclass(frozen=True)
class BatchModel:
    """The calls that a batch needs of its session.

    Attributes:
        engine: runs the requests.
        prepare: makes a question ready; called in threads of a pool.
        begin: submits it; called in the calling thread, in the order of the questions.
        revive: loads the model again if its process has died.
    """

    engine: ModelEngine
    prepare: Callable[[Question], Request]
    begin: Callable[[Request], Answering]
    revive: Callable[[], None]


def as_question(given: Question | str) -> Question:
    """A question of a batch; pictures that come one after another are taken, for it may be made ready twice."""
    if isinstance(given, str):
        return Question(given)
    if isinstance(given, Question) and isinstance(given.images, Iterator):
        return replace(given, images=tuple(given.images))
    return given


def answer_all(model: BatchModel, questions: Iterable[Question]) -> Generator[tuple[int, Outcome], None, None]:
    """Answer questions, as many at a time as the engine runs, while the pictures of the next ones are read and cut.

    Closing the iterator ends the answers under way. Where the process of the model dies, the questions that it was
    answering are asked once more, each alone; one that it dies of again ends in that error, and the others go on.

    Args:
        model: answers them.
        questions: taken as they are needed: the ones being answered, and as many again ahead of them.

    Yields:
        The number of a question and what became of it, as each is over.

    Raises:
        InternVLError: the model's process has died and cannot be started again.
    """
    with _Batch(model, questions) as batch:
        while batch.goes_on():
            yield from batch.step()


@dataclass(eq=False)
class _Asked:
    """A question of the batch.

    Attributes:
        index: its number.
        request: the question made ready, once that is done; None where nobody has begun.
        deaths: processes of the model that died while they answered it.
    """

    index: int
    question: Question
    request: Future[Request] | None = None
    deaths: int = 0


class _Batch:
    """The questions that were taken and are not over: prepared in order, running, or suspected of killing processes."""

    def __init__(self, model: BatchModel, questions: Iterable[Question]) -> None:
        self._model = model
        self._questions = enumerate(questions)
        self._are_more = True
        self._prepared: deque[_Asked] = deque()
        self._suspects: deque[_Asked] = deque()
        self._running: dict[_Asked, Answering] = {}
        self._has_died = False
        self._pool = ThreadPoolExecutor(_PREPARING_THREADS, "internvl-pictures")

    def __enter__(self) -> _Batch:
        return self

    def __exit__(self, *_: object) -> None:
        for answering in self._running.values():
            answering.handle.cancel()
        self._pool.shutdown(cancel_futures=True)

    def goes_on(self) -> bool:
        """Whether a question is not over; takes new ones as they are needed."""
        while self._are_more and len(self._prepared) <= self._model.engine.n_parallel:
            taken = next(self._questions, None)
            if taken is None:
                self._are_more = False
            else:
                self._prepared.append(_Asked(*taken))
        return bool(self._prepared or self._suspects or self._running)

    def step(self) -> Iterator[tuple[int, Outcome]]:
        """Begin what can begin, and have the model work until something is over."""
        if self._has_died and not self._running:
            self._revive()
        if not self._has_died and not self._has_suspects:
            for asked in self._prepared:
                self._request(asked)
        yield from self._begin()
        if not self._running:
            return
        self._model.engine.work_until(self._has_news)
        for asked, answering in list(self._running.items()):
            try:
                if not answering.take_ready():
                    continue
                answering.finish()
                outcome: Outcome = answering.reply()
            except InternVLError as error:
                outcome = error
            del self._running[asked]
            yield from self._end(asked, outcome)

    def _begin(self) -> Iterator[tuple[int, Outcome]]:
        while not self._has_died and (self._can_begin() or not self._running):
            queue = self._suspects or self._prepared
            if not queue:
                return
            asked = queue.popleft()
            try:
                self._running[asked] = self._model.begin(self._request(asked).result())
            except InternVLError as error:
                yield from self._end(asked, error)

    def _request(self, asked: _Asked) -> Future[Request]:
        if asked.request is None:
            asked.request = self._pool.submit(self._model.prepare, asked.question)
        return asked.request

    def _can_begin(self) -> bool:
        """Whether the next question can begin beside those that run: a suspect runs alone."""
        if self._has_suspects or not self._prepared or len(self._running) >= self._model.engine.n_parallel:
            return False
        return self._request(self._prepared[0]).done()

    @property
    def _has_suspects(self) -> bool:
        return bool(self._suspects) or any(asked.deaths for asked in self._running)

    def _has_news(self) -> bool:
        return self._can_begin() or any(answering.handle.has_news for answering in self._running.values())

    def _end(self, asked: _Asked, outcome: Outcome) -> Iterator[tuple[int, Outcome]]:
        """A question is over, unless the model's process died: then it is asked once more."""
        if not isinstance(outcome, WorkerDiedError):
            yield asked.index, outcome
            return
        self._has_died = True
        asked.deaths += 1
        if asked.deaths == 1:
            self._suspects.append(asked)
        else:
            again = f"{outcome.message} That happened twice with this question."
            yield asked.index, WorkerDiedError(again, outcome.hint)

    def _revive(self) -> None:
        """Start another process. What was made ready may not suit it, and is made ready when the suspects are over."""
        for asked in (*self._suspects, *self._prepared):
            if asked.request is not None and not asked.request.cancel():
                asked.request.exception()  # waits: nothing is done for others while a suspect runs
            asked.request = None
        self._model.revive()
        self._has_died = False
