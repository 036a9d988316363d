"""The stream of one answer: turns its tokens into text, and at its end makes the reply and the messages to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from internvl_gguf.engine import Handle, TileProgress
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.errors import InvalidAnswerError
from internvl_gguf.session.call_reader import AnswerPiece, CallReader
from internvl_gguf.session.detokenizer import TextStream
from internvl_gguf.session.grounding import AnswerBoxes
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import PreparedQuestion
from internvl_gguf.session.thinking import Place, ThoughtReader
from internvl_gguf.types import Chunk, FinishReason, Message, Reply, Timings, Usage

_LEAST_MEASURED: Final = 1e-4
"""Seconds of decoding below which it has no rate: all tokens behind the first had to follow."""
_CUT_IN_THOUGHT: Final = (
    "The answer ended inside its thought: give it more max_tokens, or end the thought sooner with a thinking_budget."
)


class AnswerStream:
    """The answer to one question, from its submission to the engine to its end.

    Args:
        runtime: the model.
        question: the prepared question; it is submitted at once.
        history: the messages before it.
        on_tiles: called with the progress of encoding its pictures.
        evicts, top_logprobs, candidates_of, tells_certainty: as in `Engine.submit`.
        keeps_tags: whether the text has the tags of boxes.
        reads_value: whether the reply has the value of an answer that has to have a form.

    Attributes:
        handle: the engine's handle of the question; cancel it to end the answer.
        text: the text of the answer so far, without calls of tools.
    """

    def __init__(
        self,
        runtime: ModelRuntime,
        question: PreparedQuestion,
        history: Sequence[Message],
        on_tiles: TileProgress | None,
        *,
        evicts: bool = True,
        top_logprobs: int | None = None,
        keeps_tags: bool = False,
        reads_value: bool = True,
        candidates_of: int | None = None,
        tells_certainty: bool = False,
    ) -> None:
        self._tells_certainty = tells_certainty
        self._boxes = AnswerBoxes(runtime, [*history, *question.messages], keeps_tags=keeps_tags)
        self.handle: Handle = runtime.engine.submit(
            question.spans,
            question.sampling,
            on_tiles,
            evicts=evicts,
            top_logprobs=top_logprobs,
            grammar=question.form.grammar if question.form else None,
            logprobs_between=self._boxes.logprobs_between,
            thought=question.thought.bounds,
            candidates_of=candidates_of,
            tells_certainty=tells_certainty,
        )
        self.text = ""
        self._written = ""
        self._thought = ""
        self._n_taken = 0
        self._n_answered = 0
        self._thoughts = ThoughtReader(runtime.text.thinking)
        self._thought_stream = TextStream()
        self._piece = runtime.engine.model.piece
        self._question = question
        self._reads_value = reads_value
        self._pictures = [picture for message in [*history, *question.messages] for picture in message.pictures]
        self._stream = TextStream(question.sampling.stop)
        self._strips_space = runtime.text.strips_space and question.form is None
        self._calls = CallReader() if question.form and question.form.kind == "tools" else None
        for token in question.thought.opening:  # not new to anyone
            for part in self._thoughts.take(token, self._piece(token)):
                self._taken(*part)

    def pieces(self) -> Iterator[AnswerPiece]:
        """Yield the answer piece by piece; text that may be the beginning of a stop string is held back."""
        for token in self.handle.stream():
            yield from self._feed(token)

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token as the text has them."""
        return self._boxes.piece(token, self._piece(token))

    def take_ready(self) -> bool:
        """Take the part of the answer that is there, without waiting; return whether the answer has ended.

        Raises:
            InternVLError: the error that ended it.
        """
        self.ready()
        return self.handle.is_over

    def ready(self) -> list[AnswerPiece]:
        """Return what is there and was not taken yet, without waiting. Raises as `take_ready`."""
        return [piece for token in self.handle.ready() for piece in self._feed(token)]

    @property
    def answer_start(self) -> int | None:
        """Number of the first sampled token of the answer behind its thought; None before it is there."""
        return self._n_taken - self._n_answered if self._n_answered else None

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string ended it."""
        return self._stream.stopped

    def finish(self) -> list[AnswerPiece]:
        """Return what was still held back; call it once, after the last piece."""
        pieces = [piece for part in self._thoughts.finish() for piece in self._taken(*part)]
        self._thought += (rest := self._thought_stream.finish())
        pieces += [AnswerPiece(thinking=rest)] if rest else []
        pieces += self._take(self._stream.finish())
        return [*pieces, *self._shown(self._calls.finish())] if self._calls else pieces

    def partial(self) -> Callable[[], Any] | None:
        """Return a function that reads the value of the answer as far as it has come now; None if it has no form."""
        form, written = self._question.form, self._written
        return partial(form.parse_partial, written) if form else None

    def messages(self, *, is_whole: bool) -> list[Message]:
        """Return question and answer as the conversation keeps them.

        The sampled tokens are kept only if they spell exactly the text of the answer: after a stop string, or in an
        iterator closed early, there are tokens that the user was not shown.
        """
        is_exact = is_whole and not self._stream.stopped
        tokens = (*self._question.thought.opening, *self.handle.tokens) if is_exact else None
        answer = Message("assistant", self._written, tokens=tokens, thinking=self._thought)
        return [*self._question.messages, answer]

    def reply(self) -> Reply:
        """Return the finished answer with its usage and timings."""
        question, report, times = self._question, self.handle.report, self.handle.times
        prompt_tokens = total_length(question.spans)
        usage = Usage(
            prompt_tokens=prompt_tokens,
            # Another candidate may have written what this one's answer has to begin with, too.
            cached_tokens=min(report.cached_tokens, prompt_tokens),
            completion_tokens=len(times),
            images=len(self._pictures),
            tiles=sum(len(picture.tiles) for picture in self._pictures),
            tiles_encoded=report.tiles_encoded,
            drafted_tokens=report.drafted_tokens,
            accepted_tokens=report.accepted_tokens,
            forced_tokens=report.forced_tokens,
            thinking_tokens=max(0, self._thoughts.n_tokens - len(question.thought.opening)),
        )
        decode = times[-1] - times[0] if times else 0.0
        timings = Timings(
            preprocess=question.preprocess_seconds,
            encode=report.encode_seconds,
            prefill=report.prefill_seconds,
            time_to_first_token=times[0] - question.started if times else 0.0,
            decode=decode,
            decode_tokens_per_second=(len(times) - 1) / decode if decode > _LEAST_MEASURED else 0.0,
        )
        reason = self.handle.finish_reason or "stop"
        parsed, notices = self._parsed(reason)
        calls = tuple(self._calls.calls) if self._calls else ()
        boxes = self._boxes.read(self.text, self.handle.logprobs[self.answer_start or 0 :])
        return Reply(
            self.text,
            reason,
            usage,
            timings,
            (*question.notices, *boxes.notices, *notices),
            boxes=boxes.boxes,
            parsed=parsed,
            tool_calls=calls,
            clips=question.clips,
            thinking=self._thought.strip(),
            logprob=self._logprob(),
        )

    def _logprob(self) -> float | None:
        """Return the mean logprob of the answer behind its thought; None where it was not asked for."""
        if not self._tells_certainty:
            return None
        answer = self.handle.logprobs[self.answer_start or 0 :]
        return mean_of(each.logprob for each in answer)

    def _parsed(self, reason: FinishReason) -> tuple[Any, tuple[str, ...]]:
        """Return the value of an answer that had to have a form, or why there is none."""
        form = self._question.form if self._reads_value else None
        if self._thoughts.is_inside and reason == "length":
            return None, (_CUT_IN_THOUGHT,)
        if self._calls and self._calls.is_inside:
            return None, ("The answer ended inside a call of a tool, which is not among its calls.",)
        if form is not None and form.kind == "tools":
            form = None if self._calls and self._calls.calls else form.otherwise
        if form is None:
            return None, ()
        if reason != "stop" or self._stream.stopped:
            why = "at a stop string" if self._stream.stopped else "before its form was complete"
            return None, (f"The answer ended {why}, so there is no parsed value.",)
        try:
            return form.parse(self._written if form.kind != "grammar" else self._boxes.marked(self._written)), ()
        except InvalidAnswerError as error:
            return None, (error.message,)

    def _feed(self, token: int) -> list[AnswerPiece]:
        piece = self._piece(token)
        if self._strips_space:
            piece, self._strips_space = piece.removeprefix(b" "), False
        pieces = [piece for part in self._thoughts.take(token, piece) for piece in self._taken(*part)]
        self._n_taken += 1
        return pieces

    def _taken(self, place: Place, token: int, piece: bytes) -> list[AnswerPiece]:
        """Return what is new by a token that is shown: a piece of the thought, or of the answer."""
        if place is Place.THOUGHT:
            thought = self._thought_stream.feed(piece)
            self._thought += thought
            return [AnswerPiece(thinking=thought)] if thought else []
        self._n_answered += 1
        text = self._stream.feed(self._boxes.shown(token, piece))
        if self._stream.stopped:
            self.handle.cancel("stop")
        return self._take(text)

    def _take(self, text: str) -> list[AnswerPiece]:
        self._written += text
        if not text:
            return []
        return self._shown(self._calls.feed(text) if self._calls else [AnswerPiece(text)])

    def _shown(self, pieces: list[AnswerPiece]) -> list[AnswerPiece]:
        self.text += "".join(piece.text for piece in pieces)
        return pieces


def mean_of(values: Iterable[float]) -> float | None:
    """Return the mean of numbers, those left out that are NaN; None if there are no others."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else None


def as_chunk(piece: AnswerPiece, partial: Callable[[], Any] | None) -> Chunk:
    """Return a piece of an answer as callers of `Session.stream` receive it."""
    return Chunk(piece.text, tool_call=piece.call, thinking=piece.thinking, _partial=partial)
