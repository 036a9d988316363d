"""The thread that passes on what a model answers: text, progress and ends of all its requests."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import InternVLError
from internvl_gguf.server.answer_events import Emit, Encoding, Failed, Reading
from internvl_gguf.server.running_answers import RunningAnswer, RunningCandidates
from internvl_gguf.session.answer import AnswerStream
from internvl_gguf.session.candidate_answers import CandidateAnswers, CandidateProgress, question_numbers
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import PreparedQuestion
from internvl_gguf.types import Message, Span, TileSpan

logger: Final = logging.getLogger("internvl_gguf.server")


class AnswerPump:
    """Makes a model work for requests and passes on what they bring, in one thread of its own.

    Args:
        runtime: the model.
    """

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime
        self._requests: dict[_RunningRequest, None] = {}
        self._news = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="internvl-answers", daemon=True)
        self._thread.start()

    def begin(
        self,
        question: PreparedQuestion,
        history: Sequence[Message],
        samplings: Sequence[SamplingParams],
        top_logprobs: int | None,
        emit: Emit,
        *,
        n: int = 1,
        keeps_tags: bool = False,
    ) -> Callable[[], None]:
        """Submit a question.

        Args:
            question: the prepared question.
            history: the messages before it.
            samplings: one for each answer; or one alone, whose `best_of` answers are judged, and the best passed on.
            n: number of answers that are passed on.
            top_logprobs: as in `Engine.submit`.
            emit: called with each event, in threads of the model.
            keeps_tags: whether the text has the tags of boxes.

        Returns:
            Function that ends its answers; callable from any thread, and harmless later.

        Raises:
            InternVLError: the engine does not take it.
        """
        request = _RunningRequest(self._runtime, question, history, samplings, top_logprobs, emit, n, keeps_tags)
        with self._news:
            self._requests[request] = None
            self._news.notify()
        return request.cancel

    def fail_all(self, error: Exception) -> None:
        """End all requests with an error."""
        with self._news:
            requests = list(self._requests)
        for request in requests:
            request.fail(error)

    def close(self) -> None:
        """End the thread, once no request is left: they are cancelled."""
        with self._news:
            self._is_closed = True
            for request in self._requests:
                request.cancel()
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._requests or self._is_closed)
                if not self._requests:
                    return
                requests = list(self._requests)
            try:
                self._runtime.engine.work_until(self._has_news)
            except Exception as error:  # nothing may end this thread: requests would wait for ever
                logger.exception("The model could not be waited for")
                for request in requests:
                    request.fail(error)
            for request in requests:
                request.advance()
                if request.is_over:
                    with self._news:
                        self._requests.pop(request, None)

    def _has_news(self) -> bool:
        return any(request.has_news for request in list(self._requests))


class _RunningRequest:
    """A request whose answers are under way."""

    def __init__(
        self,
        runtime: ModelRuntime,
        question: PreparedQuestion,
        history: Sequence[Message],
        samplings: Sequence[SamplingParams],
        top_logprobs: int | None,
        emit: Emit,
        n: int,
        keeps_tags: bool,
    ) -> None:
        self._emit = emit
        self._spans = question.spans
        self._total = sum(span.length for span in question.spans)
        self._read = -1
        self._first: AnswerStream | None = None
        self._answers: list[RunningAnswer | RunningCandidates] = []
        tells_tokens = top_logprobs is not None
        if samplings[0].best_of > 1:

            def begin(on_progress: CandidateProgress) -> CandidateAnswers:
                return CandidateAnswers(
                    runtime,
                    replace(question, sampling=samplings[0]),
                    history,
                    self._tell_tiles,
                    on_progress=on_progress,
                    n_kept=n,
                    top_logprobs=top_logprobs,
                    keeps_tags=keeps_tags,
                )

            several = RunningCandidates(n, begin, samplings[0].stop, tells_tokens=tells_tokens)
            self._answers, self._first = [several], several.first
            return
        number = next(question_numbers) if len(samplings) > 1 else None
        for choice, sampling in enumerate(samplings):
            stream = AnswerStream(
                runtime,
                replace(question, sampling=sampling),
                history,
                self._tell_tiles if choice == 0 else None,
                top_logprobs=top_logprobs,
                keeps_tags=keeps_tags,
                reads_value=False,  # the client reads it
                candidates_of=number,
            )
            self._first = self._first or stream
            self._answers.append(RunningAnswer(choice, stream, sampling.stop, tells_tokens=tells_tokens))

    @property
    def is_over(self) -> bool:
        return not self._answers

    @property
    def has_news(self) -> bool:
        return self.is_over or self._has_read or any(answer.handle.is_readable for answer in self._answers)

    @property
    def _has_read(self) -> bool:
        return self._first is not None and self._first.handle.report.prompt_read > max(self._read, 0)

    def _tell_tiles(self, done: int, total: int) -> None:
        """Tell how many tiles are encoded, of all pictures; the engine counts those of one at a time."""
        if self._first is None:
            return
        report = self._first.handle.report
        to_end_of_run, every = tile_counts(self._spans, report.cached_tokens, report.prompt_read)
        self._emit(Encoding(to_end_of_run - (total - done), every))

    def cancel(self) -> None:
        for answer in list(self._answers):
            answer.handle.cancel()

    def fail(self, error: Exception) -> None:
        """End all answers with an error."""
        self.cancel()
        self._answers = []
        self._emit(Failed(error))

    def advance(self) -> None:
        """Pass on what is there."""
        if self._has_read and self._first is not None:
            self._read = self._first.handle.report.prompt_read
            self._emit(Reading(self._read, self._total))
        for answer in list(self._answers):
            try:
                for event in answer.events():
                    self._emit(event)
                if answer.is_over and answer in self._answers:
                    self._answers.remove(answer)
            except InternVLError as error:
                self.fail(error)
                return
            except Exception as error:
                logger.exception("An answer could not be passed on")
                self.fail(error)
                return


def tile_counts(spans: Sequence[Span], cached: int, read: int) -> tuple[int, int]:
    """Return how many new tiles a prompt has up to the end of those that are encoded next, and in all.

    Args:
        spans: the prompt.
        cached: positions that were known before the request.
        read: positions that are read.
    """
    placed = list(zip(itertools.accumulate((span.length for span in spans), initial=0), spans, strict=False))
    new = [start for start, span in placed if isinstance(span, TileSpan) and start >= cached]
    rest = (span for start, span in placed if start >= read)
    run = sum(1 for _ in itertools.takewhile(lambda span: isinstance(span, TileSpan), rest))
    return sum(start < read for start in new) + run, len(new)
