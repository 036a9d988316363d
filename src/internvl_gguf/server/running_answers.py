"""Answers under way: what is new of one as it is written, or the best of several once all have ended."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from internvl_gguf.server.answer_events import (
    Answering,
    CallDelta,
    Delta,
    Event,
    Finished,
    ThoughtDelta,
    TokenText,
)
from internvl_gguf.session.answer import AnswerStream
from internvl_gguf.session.candidate_answers import CandidateAnswers, CandidateProgress, ranked
from internvl_gguf.types import Reply, ToolCallDelta


class RunningAnswer:
    """An answer that is passed on as it is written.

    Args:
        choice: its number.
        stream: the answer.
        stops: the stop strings.
        tells_tokens: whether its tokens are told with their logprobs.

    Attributes:
        is_over: whether its end was passed on.
    """

    def __init__(self, choice: int, stream: AnswerStream, stops: Sequence[str], *, tells_tokens: bool) -> None:
        self.is_over = False
        self.handle = stream.handle
        self._stream = stream
        self._choice = choice
        self._stops = stops
        self._tells_tokens = tells_tokens
        self._shown = _ShownTokens()

    def events(self) -> list[Event]:
        """Return what is there: a piece of text, and the end.

        Raises:
            InternVLError: the error that ended it.
        """
        stream, events = self._stream, list[Event]()
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
            events.append(_finished(self._choice, stream, stream.reply(), self._stops))
        return events

    def _new_tokens(self) -> list[TokenText]:
        return _tokens(self._stream, self._shown.n_given) if self._tells_tokens else []


class RunningCandidates:
    """Several answers, of which the best are passed on once all have ended.

    Args:
        n: how many are passed on.
        begin: submits them; it gets a function to be called with the answers that have ended, all of them, and their
            tokens.
        stops, tells_tokens: as in `RunningAnswer`.

    Attributes:
        handle: of all of them.
        is_over: whether the ends of the best were passed on.
    """

    def __init__(
        self,
        n: int,
        begin: Callable[[CandidateProgress], CandidateAnswers],
        stops: Sequence[str],
        *,
        tells_tokens: bool,
    ) -> None:
        self.is_over = False
        self._n, self._stops, self._tells_tokens = n, stops, tells_tokens
        self._ended = self._told = Answering(0, 0)
        self._answers = begin(self._progress)
        self.handle = self._answers.handle

    @property
    def first(self) -> AnswerStream:
        """The answer that reads the prompt."""
        return self._answers.streams[0]

    def _progress(self, ended: int, every: int, tokens: int) -> None:
        if tokens:  # the prompt is read before
            self._ended = Answering(ended, every)

    def events(self) -> list[Event]:
        """Return what is there: how many have ended, or the best, each as a whole.

        Raises:
            InternVLError: the error that one of them ended in.
        """
        self.is_over = self._answers.take_ready()
        if not self.is_over:
            told, self._told = self._told, self._ended
            return [self._ended] if self._ended != told else []
        best_of = self._answers.best_of()
        events: list[Event] = []
        for choice, index in enumerate(ranked(best_of)[: self._n]):
            reply = best_of.reply
            if choice:
                reply = replace(best_of.candidates[index].reply, selection=reply.selection)
            events += self._whole(choice, self._answers.streams[index], reply)
        return events

    def _whole(self, choice: int, stream: AnswerStream, reply: Reply) -> Iterator[Event]:
        if reply.thinking:
            yield ThoughtDelta(choice, reply.thinking)
        new = _tokens(stream, 0) if self._tells_tokens else []
        tokens = _ShownTokens().taken(new, reply.text, is_last=not stream.is_stopped)
        if reply.text or tokens:
            yield Delta(choice, reply.text, tokens)
        for index, call in enumerate(reply.tool_calls):
            yield CallDelta(choice, ToolCallDelta(index, call.id, call.name))
            yield CallDelta(choice, ToolCallDelta(index, arguments=json.dumps(call.arguments, ensure_ascii=False)))
        yield _finished(choice, stream, reply, self._stops)


def _tokens(stream: AnswerStream, n_given: int) -> list[TokenText]:
    """Return the tokens of an answer behind those that were given before; those of its thought are none of them."""
    start = stream.answer_start
    if start is None:
        return []
    _, logprobs = stream.handle.since(start + n_given)
    return [
        TokenText(stream.piece(each.token), each.logprob, tuple((stream.piece(top), odds) for top, odds in each.top))
        for each in logprobs
    ]


def _finished(choice: int, stream: AnswerStream, reply: Reply, stops: Sequence[str]) -> Finished:
    return Finished(choice, reply, stream.messages(is_whole=True)[-1], _stop(stream, stops))


def _stop(stream: AnswerStream, stops: Sequence[str]) -> str | None:
    """Return the stop string that ended an answer: the one that its sampled text has first."""
    if not stream.is_stopped:
        return None
    answer = stream.handle.tokens[stream.answer_start or 0 :]
    whole = b"".join(map(stream.piece, answer)).decode("utf-8", "replace")
    found = [(whole.find(stop), stop) for stop in stops if stop in whole]
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
