"""The thread that passes on what a model answers: text, progress and ends of all its requests."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from internvl_gguf.config import SamplingParams
from internvl_gguf.errors import InternVLError
from internvl_gguf.session.answer import AnswerStream
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import PreparedQuestion
from internvl_gguf.types import Message, Reply, Span, TileSpan, TokenLogprobs, ToolCallDelta

logger: Final = logging.getLogger("internvl_gguf.server")


@dataclass(frozen=True)
class TokenText:
    """A token of an answer with how likely it was.

    Attributes:
        piece: its UTF-8 bytes.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at its place, as bytes and logprobs.
    """

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True)
class Encoding:
    """Tiles whose embeddings are known, of all that follow what was known of the prompt."""

    done: int
    total: int


@dataclass(frozen=True)
class Reading:
    """Positions of the prompt that are read, of all."""

    done: int
    total: int


@dataclass(frozen=True)
class Delta:
    """A piece of an answer.

    Attributes:
        choice: number of the answer.
        text: its text, perhaps none.
        tokens: the tokens that it ends, if logprobs were asked for.
    """

    choice: int
    text: str
    tokens: tuple[TokenText, ...] = ()


@dataclass(frozen=True)
class ThoughtDelta:
    """A piece of the thought before an answer; it comes before all else of the answer."""

    choice: int
    text: str


@dataclass(frozen=True)
class CallDelta:
    """A piece of a call of a tool; it comes after all text of its answer."""

    choice: int
    call: ToolCallDelta


@dataclass(frozen=True)
class Finished:
    """The end of an answer.

    Attributes:
        choice: number of the answer.
        reply: the whole answer.
        message: the answer as a later prompt holds it.
        stop: the stop string that ended it; None for none.
    """

    choice: int
    reply: Reply
    message: Message
    stop: str | None


@dataclass(frozen=True)
class Failed:
    """An error that ended the request."""

    error: Exception


Event = Encoding | Reading | ThoughtDelta | Delta | CallDelta | Finished | Failed
Emit = Callable[[Event], None]


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
        keeps_tags: bool = False,
    ) -> Callable[[], None]:
        """Submit a question.

        Args:
            question: the prepared question.
            history: the messages before it.
            samplings: one for each answer.
            top_logprobs: as in `Engine.submit`.
            emit: called with each event, in threads of the model.
            keeps_tags: whether the text has the tags of boxes.

        Returns:
            Function that ends its answers; callable from any thread, and harmless later.

        Raises:
            InternVLError: the engine does not take it.
        """
        request = _RunningRequest(self._runtime, question, history, samplings, top_logprobs, emit, keeps_tags)
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
        keeps_tags: bool,
    ) -> None:
        self._emit = emit
        self._spans = question.spans
        self._total = sum(span.length for span in question.spans)
        self._read = -1
        self._answers: dict[int, _RunningAnswer] = {}
        for choice, sampling in enumerate(samplings):
            stream = AnswerStream(
                runtime,
                replace(question, sampling=sampling),
                history,
                self._tell_tiles if choice == 0 else None,
                top_logprobs=top_logprobs,
                keeps_tags=keeps_tags,
                reads_value=False,  # the client reads it
            )
            self._answers[choice] = _RunningAnswer(choice, stream, sampling, tells_tokens=top_logprobs is not None)
        self._first = self._answers[0].stream if self._answers else None

    @property
    def is_over(self) -> bool:
        return not self._answers

    @property
    def has_news(self) -> bool:
        return self.is_over or self._has_read or any(a.stream.handle.is_readable for a in self._answers.values())

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
        for answer in list(self._answers.values()):
            answer.stream.handle.cancel()

    def fail(self, error: Exception) -> None:
        """End all answers with an error."""
        self.cancel()
        self._answers = {}
        self._emit(Failed(error))

    def advance(self) -> None:
        """Pass on what is there."""
        if self._has_read and self._first is not None:
            self._read = self._first.handle.report.prompt_read
            self._emit(Reading(self._read, self._total))
        for choice, answer in list(self._answers.items()):
            try:
                for event in answer.events():
                    self._emit(event)
                if answer.is_over:
                    self._answers.pop(choice, None)
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


class _RunningAnswer:
    """One answer of a request."""

    def __init__(self, choice: int, stream: AnswerStream, sampling: SamplingParams, *, tells_tokens: bool) -> None:
        self.stream = stream
        self.is_over = False
        self._choice = choice
        self._piece = stream.piece
        self._stops = sampling.stop
        self._tells_tokens = tells_tokens
        self._shown = _ShownTokens()

    def events(self) -> list[Event]:
        """Return what is there: a piece of text, and the end.

        Raises:
            InternVLError: the error that ended it.
        """
        stream, events = self.stream, list[Event]()
        pieces = stream.ready()
        is_over = stream.handle.is_over
        if is_over:
            pieces += stream.finish()
        if thought := "".join(piece.thinking for piece in pieces):
            events.append(ThoughtDelta(self._choice, thought))
        text = "".join(piece.text for piece in pieces)
        tokens = self._shown.taken(self._new_tokens(), text, is_last=is_over and not stream.is_stopped)
        if text or tokens:
            events.append(Delta(self._choice, text, tokens))
        events += [CallDelta(self._choice, call) for call in _joined(piece.call for piece in pieces if piece.call)]
        if is_over:
            self.is_over = True
            events.append(Finished(self._choice, stream.reply(), stream.messages(is_whole=True)[-1], self._stop()))
        return events

    def _new_tokens(self) -> list[TokenText]:
        start = self.stream.answer_start
        if not self._tells_tokens or start is None:
            return []
        _, logprobs = self.stream.handle.since(start + self._shown.n_given)
        return [self._token_text(each) for each in logprobs]

    def _token_text(self, token: TokenLogprobs) -> TokenText:
        top = tuple((self._piece(each), logprob) for each, logprob in token.top)
        return TokenText(self._piece(token.token), token.logprob, top)

    def _stop(self) -> str | None:
        """Return the stop string that ended the answer: the one that its sampled text has first."""
        if not self.stream.is_stopped:
            return None
        answer = self.stream.handle.tokens[self.stream.answer_start or 0 :]
        whole = b"".join(map(self._piece, answer)).decode("utf-8", "replace")
        found = [(whole.find(stop), stop) for stop in self._stops if stop in whole]
        return min(found)[1] if found else None


def _joined(pieces: Iterable[ToolCallDelta]) -> Iterator[ToolCallDelta]:
    """Join what is there of each call's arguments to one piece; the first piece of a call stays without any."""
    for (index, is_first), group in itertools.groupby(pieces, lambda piece: (piece.index, bool(piece.id))):
        if is_first:
            yield from group
        else:
            yield ToolCallDelta(index, arguments="".join(piece.arguments for piece in group))


class _ShownTokens:
    """Holds tokens back until their text is shown: the text of an answer may wait for a stop string or a character."""

    def __init__(self) -> None:
        self.n_given = 0
        self._held: list[tuple[TokenText, int]] = []
        self._end = 0
        self._shown = 0

    def taken(self, new: Sequence[TokenText], text: str, *, is_last: bool) -> tuple[TokenText, ...]:
        """Return the tokens that end in the text shown so far.

        Args:
            new: tokens that are new.
            text: text that is shown now.
            is_last: whether all tokens are shown, since the answer has ended by itself.
        """
        self.n_given += len(new)
        for token in new:
            self._end += len(token.piece)
            self._held.append((token, self._end))
        self._shown += len(text.encode())
        count = len(self._held) if is_last else sum(end <= self._shown for _, end in self._held)
        shown, self._held = self._held[:count], self._held[count:]
        return tuple(token for token, _ in shown)
