"""One question under way: tokens become text, and at the end a reply and what the conversation keeps of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from internvl_gguf.engine import Handle, TileProgress
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.session.detokenizer import TextStream
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.prepare import Request
from internvl_gguf.types import Message, Reply, Timings, Usage


class Answering:
    """A question that was submitted to the engine.

    Args:
        runtime: the model.
        request: the question.
        history: the messages before it.
        on_tiles: told how far its pictures are encoded.

    Attributes:
        handle: the engine's side of it; cancel it to end the answer.
        text: the answer so far.
    """

    def __init__(
        self, runtime: ModelRuntime, request: Request, history: Sequence[Message], on_tiles: TileProgress | None
    ) -> None:
        self.handle: Handle = runtime.engine.submit(request.spans, request.sampling, on_tiles)
        self.text = ""
        self._piece = runtime.engine.model.piece
        self._request = request
        self._pictures = [picture for message in [*history, request.message] for picture in message.pictures]
        self._stream = TextStream(request.sampling.stop)

    def pieces(self) -> Iterator[str]:
        """The answer piece by piece, without what may yet turn out to be the beginning of a stop string."""
        for token in self.handle.stream():
            piece = self._feed(token)
            if piece:
                yield piece

    def take_ready(self) -> bool:
        """Take what is there of the answer, without waiting; whether it is over.

        Raises:
            InternVLError: what ended it before its time.
        """
        for token in self.handle.ready():
            self._feed(token)
        return self.handle.is_over

    def finish(self) -> str:
        """The answer is over: the text still held back."""
        rest = self._stream.finish()
        self.text += rest
        return rest

    def messages(self, *, is_whole: bool) -> list[Message]:
        """The question and its answer as the conversation keeps them.

        The sampled tokens are kept only where they are the whole answer and nothing but it: a stop string or an
        iterator closed early leaves tokens nobody was shown.
        """
        is_exact = is_whole and not self._stream.stopped
        tokens = tuple(self.handle.tokens) if is_exact else None
        return [self._request.message, Message("assistant", self.text, tokens=tokens)]

    def reply(self) -> Reply:
        """The finished answer with what it took."""
        request, report, times = self._request, self.handle.report, self.handle.times
        usage = Usage(
            prompt_tokens=total_length(request.spans),
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
            preprocess=request.preprocess_seconds,
            encode=report.encode_seconds,
            prefill=report.prefill_seconds,
            time_to_first_token=times[0] - request.started if times else 0.0,
            decode=decode,
            decode_tokens_per_second=(len(times) - 1) / decode if decode else 0.0,
        )
        return Reply(self.text, self.handle.finish_reason or "stop", usage, timings, request.notices)

    def _feed(self, token: int) -> str:
        piece = self._stream.feed(self._piece(token))
        if self._stream.stopped:
            self.handle.cancel("stop")
        self.text += piece
        return piece
