"""The stream of one answer: turns its tokens into text, and at its end makes the reply and the messages to keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from internvl_gguf.engine import Handle, TileProgress
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.session.detokenizer import TextStream
from internvl_gguf.session.grounding import AnswerBoxes
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import PreparedQuestion
from internvl_gguf.types import Message, Reply, Timings, Usage


class AnswerStream:
    """The answer to one question, from its submission to the engine to its end.

    Args:
        runtime: the model.
        question: the prepared question; it is submitted at once.
        history: the messages before it.
        on_tiles: called with the progress of encoding its pictures.
        evicts, top_logprobs: as in `Engine.submit`.

    Attributes:
        handle: the engine's handle of the question; cancel it to end the answer.
        text: the answer so far.
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
    ) -> None:
        self._boxes = AnswerBoxes(runtime, [*history, question.message])
        self.handle: Handle = runtime.engine.submit(
            question.spans,
            question.sampling,
            on_tiles,
            evicts=evicts,
            top_logprobs=top_logprobs,
            logprobs_between=self._boxes.logprobs_between,
        )
        self.text = ""
        self._piece = runtime.engine.model.piece
        self._question = question
        self._pictures = [picture for message in [*history, question.message] for picture in message.pictures]
        self._stream = TextStream(question.sampling.stop)

    def pieces(self) -> Iterator[str]:
        """Yield the answer piece by piece; text that may be the beginning of a stop string is held back."""
        for token in self.handle.stream():
            piece = self._feed(token)
            if piece:
                yield piece

    def take_ready(self) -> bool:
        """Take the part of the answer that is there, without waiting; return whether the answer has ended.

        Raises:
            InternVLError: the error that ended it.
        """
        self.ready_text()
        return self.handle.is_over

    def ready_text(self) -> str:
        """Return the text that is there and was not taken yet, without waiting. Raises as `take_ready`."""
        return "".join(map(self._feed, self.handle.ready()))

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string ended it."""
        return self._stream.stopped

    def finish(self) -> str:
        """Return the text still held back; call it once, after the last piece."""
        rest = self._stream.finish()
        self.text += rest
        return rest

    def messages(self, *, is_whole: bool) -> list[Message]:
        """Return question and answer as the conversation keeps them.

        The sampled tokens are kept only if they spell exactly the text of the answer: after a stop string, or in an
        iterator closed early, there are tokens that the user was not shown.
        """
        is_exact = is_whole and not self._stream.stopped
        tokens = tuple(self.handle.tokens) if is_exact else None
        return [self._question.message, Message("assistant", self.text, tokens=tokens)]

    def reply(self) -> Reply:
        """Return the finished answer with its usage and timings."""
        question, report, times = self._question, self.handle.report, self.handle.times
        usage = Usage(
            prompt_tokens=total_length(question.spans),
            cached_tokens=report.cached_tokens,
            completion_tokens=len(times),
            images=len(self._pictures),
            tiles=sum(len(picture.tiles) for picture in self._pictures),
            tiles_encoded=report.tiles_encoded,
            drafted_tokens=report.drafted_tokens,
            accepted_tokens=report.accepted_tokens,
        )
        decode = times[-1] - times[0] if times else 0.0
        timings = Timings(
            preprocess=question.preprocess_seconds,
            encode=report.encode_seconds,
            prefill=report.prefill_seconds,
            time_to_first_token=times[0] - question.started if times else 0.0,
            decode=decode,
            decode_tokens_per_second=(len(times) - 1) / decode if decode else 0.0,
        )
        boxes = self._boxes.read(self.text, self.handle.logprobs)
        notices = (*question.notices, *boxes.notices)
        return Reply(self.text, self.handle.finish_reason or "stop", usage, timings, notices, boxes.boxes)

    def _feed(self, token: int) -> str:
        piece = self._stream.feed(self._boxes.shown(token, self._piece(token)))
        if self._stream.stopped:
            self.handle.cancel("stop")
        self.text += piece
        return piece
