"""Many questions, independent of one another, answered several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final

from internvl_gguf.answering import Answering
from internvl_gguf.engine import Engine
from internvl_gguf.errors import InternVLError
from internvl_gguf.preparation import Request
from internvl_gguf.types import Question, Reply

Outcome = Reply | InternVLError
"""What became of a question."""

_PREPARING_THREADS: Final = 2  # a picture is cut in a fraction of the time it takes to encode


def answer_all(
    engine: Engine,
    questions: Iterable[Question],
    prepare: Callable[[Question], Request],
    begin: Callable[[Request], Answering],
) -> Generator[tuple[int, Outcome], None, None]:
    """Answer questions, `engine.n_parallel` at a time, while the pictures of the next ones are read and cut.

    The model is worked for in the calling thread; closing the iterator ends the answers under way.

    Args:
        engine: the engine that `begin` submits to.
        questions: taken as they are needed: the ones being answered, and as many again ahead of them.
        prepare: called in threads of a pool.
        begin: called in the calling thread, in the order of the questions.

    Yields:
        The number of a question and what became of it, as each is over.
    """
    numbered = enumerate(questions)
    prepared: deque[tuple[int, Future[Request]]] = deque()
    running: dict[int, Answering] = {}
    pool = ThreadPoolExecutor(_PREPARING_THREADS, "internvl-pictures")

    def can_begin() -> bool:
        return bool(prepared) and len(running) < engine.n_parallel and prepared[0][1].done()

    def has_news() -> bool:
        return can_begin() or any(answering.handle.has_news for answering in running.values())

    try:
        while True:
            wanted = engine.n_parallel + 1 - len(prepared)
            taken = [(index, pool.submit(prepare, question)) for index, question in islice(numbered, wanted)]
            prepared.extend(taken)
            while can_begin() or (prepared and not running):
                index, future = prepared.popleft()
                try:
                    running[index] = begin(future.result())
                except InternVLError as error:
                    yield index, error
            if running:
                engine.work_until(has_news)
                yield from _finished(running)
            elif len(taken) < wanted:  # there were no more, and all are over
                return
    finally:
        for answering in running.values():
            answering.handle.cancel()
        pool.shutdown(cancel_futures=True)


def _finished(running: dict[int, Answering]) -> Iterator[tuple[int, Outcome]]:
    """Take what there is of each answer, and those that are over out of the ones that run."""
    for index, answering in list(running.items()):
        try:
            if not answering.take_ready():
                continue
            answering.finish()
            outcome: Outcome = answering.reply()
        except InternVLError as error:
            outcome = error
        del running[index]
        yield index, outcome
