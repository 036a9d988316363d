"""The scheduler's state of one request: how far its prompt is read, and what its logits are used for."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import replace
from typing import TYPE_CHECKING

from internvl_gguf.engine.constraint import Constraint
from internvl_gguf.engine.drafting import DecodeCost, PromptLookup
from internvl_gguf.engine.kv_ledger import SequenceLedger, drop_prefix, total_length
from internvl_gguf.engine.stretch_logprobs import StretchLogprobs
from internvl_gguf.engine.thought import OpenThought, ThoughtBounds
from internvl_gguf.engine.tile_run import RequestReport, TileProgress, TileRun
from internvl_gguf.engine.token_certainty import CertaintyLogprobs, certainty_of
from internvl_gguf.llama.sampler import Sampler, sampler_for
from internvl_gguf.types import FinishReason, Span, TileSpan, TokenLogprobs, TokenSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.config import SamplingParams
    from internvl_gguf.llama.context import Context
    from internvl_gguf.llama.model import TextModel


class Request(ABC):
    """A prompt on its way through the engine. Only the scheduler uses it; callers hold a `Handle`.

    Args:
        prompt: the whole prompt.
        n_ctx: most positions the request may take.
        on_tiles: called with the progress of encoding its tiles.

    Attributes:
        report: counters and times so far.
        sequence: number of the KV sequence it runs or ran on; -1 before.
        unread: spans that its sequence does not hold yet; empty once the prompt is read and each new token is decoded
            as it comes.
        tile_run: the tiles at the beginning of `unread`, once their embeddings were looked up.
        is_cancelled: whether the caller has cancelled it.
        ending: its finish reason, or the error that ended it; None while it goes on.
        n_scored: number of positions at the end of the prompt whose logits are needed.
        evicts: whether the embeddings of its tiles may displace others on disk (`EmbeddingCache.put`).
        candidates_of: number of the question that it is one of several answers to; None for the only one.

    Raises:
        ValueError: the prompt does not fit, is empty or ends in a picture; callers check before.
    """

    def __init__(self, prompt: Sequence[Span], n_ctx: int, on_tiles: TileProgress | None) -> None:
        self.length = total_length(prompt)
        self.n_scored = 1
        self.evicts = True
        self.candidates_of: int | None = None
        if not 0 < self.length <= n_ctx or not isinstance(prompt[-1], TokenSpan):
            raise ValueError(f"a prompt of {self.length} positions for a context of {n_ctx}")
        self.prompt = tuple(prompt)
        self.on_tiles = on_tiles
        self.report = RequestReport()
        self.sequence = -1
        self.unread: list[Span] = []
        self.tile_run: TileRun | None = None
        self.is_cancelled = False
        self.ending: FinishReason | Exception | None = None
        self._outline = SequenceLedger()
        for span in prompt:
            self._outline.append(span)

    @property
    def is_ready(self) -> bool:
        """Whether it can be admitted: its grammar, if any, is compiled."""
        return True

    def wait_ready(self, seconds: float) -> None:
        """Wait until it is ready, at most so long."""
        return  # most have no grammar

    def start(self) -> None:
        """Prepare for being admitted; it may end here already.

        Raises:
            InvalidRequestError: its grammar cannot be compiled.
        """
        return

    @property
    def is_admitted(self) -> bool:
        """Whether a sequence was assigned to it."""
        return self.sequence >= 0

    @property
    def spans(self) -> list[Span]:
        """The prompt and the answer so far."""
        return list(self.prompt)

    @property
    def pending(self) -> int:
        """Number of positions that its sequence does not hold yet: 1, the newest token, once the prompt is read."""
        return total_length(self.unread) or 1

    @property
    def logits_from(self) -> int:
        """First position whose logits are still needed; between two steps its sequence is always shorter than this."""
        return total_length(self.spans) - 1

    def common_prefix(self, prompt: Sequence[Span]) -> int:
        """Return the length of the prefix that this prompt and another share, in positions."""
        return self._outline.common_prefix(prompt)

    def resume_after(self, known: int) -> None:
        """Start reading after the first `known` positions, which its sequence holds."""
        self.unread = drop_prefix(self.spans, known)
        self.tile_run = None
        self._note_progress()

    def mark_read(self, count: int) -> None:
        """Remove the first `count` positions from `unread`: its sequence holds them now."""
        self.unread = drop_prefix(self.unread, count)
        if not self.unread or isinstance(self.unread[0], TokenSpan):
            self.tile_run = None
        self._note_progress()

    def next_tokens(self, limit: int) -> list[int]:
        """Return the next tokens to decode, at most `limit`; none if a tile comes next."""
        tokens: list[int] = []
        for span in self.unread:
            if isinstance(span, TileSpan) or len(tokens) >= limit:
                break
            tokens += span.ids
        return tokens[:limit]

    def next_piece(self, room: int, rows: int) -> tuple[list[int], int]:
        """Return the next tokens to decode, at most `room`, and after how many of the last ones logits are needed.

        Args:
            room: most tokens.
            rows: most rows of logits.
        """
        tokens = self.next_tokens(room)
        start = total_length(self.spans) - self.pending
        without_logits = min(max(self.logits_from - start, 0), len(tokens))
        outputs = min(len(tokens) - without_logits, rows)
        return tokens[: without_logits + outputs], outputs

    def next_tiles(self, limit: int | None = None) -> list[TileSpan]:
        """Return the next tiles, at most `limit`; none if text comes next."""
        tiles: list[TileSpan] = []
        for span in self.unread[:limit]:
            if isinstance(span, TokenSpan):
                break
            tiles.append(span)
        return tiles

    def end(self, ending: FinishReason | Exception) -> None:
        """Mark the request finished and release what it holds."""
        self.ending = self.ending or ending
        self.unread, self.tile_run = [], None

    def _note_progress(self) -> None:
        self.report.prompt_read = min(self.length, total_length(self.spans) - total_length(self.unread))

    @abstractmethod
    def use_logits(self, context: Context, row: int, model: TextModel) -> None:
        """Use the logits of the next position that needs them, from one row of the last decode.

        Raises:
            LibraryError: they are not numbers.
        """


class AnswerRequest(Request):
    """A request for an answer.

    Args:
        sampling: how the tokens of the answer are chosen.
        drafts: whether its next tokens are guessed (prompt lookup).
        evicts: see `Request`.
        top_logprobs: how many of the likeliest tokens are told at the place of each token; None tells no logprobs.
            With them a token that has to follow is computed as the others are: it has no logits otherwise.
        logprobs_between: see `Engine.submit`.
        constraint: the grammar of the answer, being compiled; None for any text.
        thought: how the thought ends that the prompt has opened, behind which the grammar begins; None without one.
        tells_certainty: see `Engine.submit`.

    Attributes:
        lookup: makes the guesses, from the first token on; None without `drafts`.
        tokens: the answer so far, without the token that ended it.
        times: time.perf_counter() at which each token was sampled.
        logprobs: how likely each token was, if that was asked for.
        n_delivered: number of tokens that its reader has received.
    """

    def __init__(
        self,
        prompt: Sequence[Span],
        n_ctx: int,
        on_tiles: TileProgress | None,
        sampling: SamplingParams,
        *,
        drafts: bool = False,
        evicts: bool = True,
        top_logprobs: int | None = None,
        logprobs_between: tuple[int, int] | None = None,
        constraint: futures.Future[Constraint] | None = None,
        thought: ThoughtBounds | None = None,
        tells_certainty: bool = False,
    ) -> None:
        super().__init__(prompt, n_ctx, on_tiles)
        self.evicts = evicts
        self._compiling = constraint
        self._constraint: Constraint | None = None
        self._thought = OpenThought(thought, is_bound=constraint is not None) if thought else None
        self._to_follow: deque[int] = deque()
        self._sampling = sampling
        self._limit = min(sampling.effective_max_tokens, n_ctx - self.length + 1)
        self._sampler: Sampler | None = None
        self._drafts = drafts
        self._top_logprobs = top_logprobs
        self._tells_certainty = tells_certainty
        self._odds: StretchLogprobs | CertaintyLogprobs | None = None
        if tells_certainty and top_logprobs is None:
            self._odds = CertaintyLogprobs()
        elif logprobs_between and top_logprobs is None:
            self._odds = StretchLogprobs(*logprobs_between)
        self.lookup: PromptLookup | None = None
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.logprobs: list[TokenLogprobs] = []
        self.n_delivered = 0

    @property
    def spans(self) -> list[Span]:
        """See `Request.spans`."""
        return [*self.prompt, TokenSpan(tuple(self.tokens))] if self.tokens else list(self.prompt)

    def next_tokens(self, limit: int) -> list[int]:
        """See `Request.next_tokens`; once all is read, return the newest token of the answer."""
        return super().next_tokens(limit) if self.unread else self.tokens[-1:]

    @property
    def room(self) -> int:
        """Number of tokens that its answer may still take."""
        return self._limit - len(self.tokens)

    def is_readable(self) -> bool:
        """Return whether its reader would not have to wait."""
        return self.n_delivered < len(self.tokens) or self.ending is not None or self.is_cancelled

    @property
    def is_ready(self) -> bool:
        """See `Request.is_ready`."""
        return self._compiling is None or self._compiling.done()

    def wait_ready(self, seconds: float) -> None:
        """See `Request.wait_ready`."""
        if self._compiling is not None:
            futures.wait([self._compiling], seconds)

    def start(self) -> None:
        """See `Request.start`. Tokens with which every answer of its grammar begins are read with the prompt."""
        if self._drafts and self.lookup is None:
            self.lookup = PromptLookup(self.prompt)
        if self._compiling is not None and self._constraint is None:  # may be called again after an interruption
            self._constraint = self._compiling.result()
            self._take_forced()

    def guess(self, most: int, cost: DecodeCost) -> list[int]:
        """Return guesses of the next tokens, at most `most`, if verifying them is likely to be faster."""
        guesses = self.lookup.guess(most, cost) if self.lookup else []
        is_bound = self._constraint is not None and not self._is_thinking
        return self._constraint.acceptable(guesses) if self._constraint and is_bound and guesses else guesses

    def use_logits(self, context: Context, row: int, model: TextModel) -> None:
        """Sample the next token of the answer. See `Request.use_logits`."""
        if self._sampler is None:
            context.logits(row)  # raises for damaged weights, which would otherwise answer with one token for ever
            self._sampler = sampler_for(self._sampling, model.n_vocab)
            for token in self.tokens:
                self._sampler.accept(token)
        token = self._choose(self._sampler, context, row)
        if model.is_end_of_generation(token):
            if not (self._thought and self._is_thinking and self._constraint):
                self.ending = "stop"
                return
            token = self._thought.close()
            self._sampler.accept(token)
        if self._top_logprobs is not None:
            told = token_logprobs(context.logits(row), token, self._top_logprobs)
            sure = certainty_of(context.logits(row), token).certainty if self._tells_certainty else told.certainty
            self.logprobs.append(replace(told, certainty=sure))
        if self._odds:
            self.logprobs.append(self._odds.of(token, context, row))
        self._append(token)
        if self._constraint or self._thought:
            self._take_forced()

    @property
    def _is_thinking(self) -> bool:
        return self._thought is not None and self._thought.answer_start is None

    def _choose(self, sampler: Sampler, context: Context, row: int) -> int:
        if self._to_follow:
            token = self._to_follow.popleft()
            sampler.accept(token)
            return token
        if self._constraint is None or self._is_thinking:
            return sampler.sample(context, row)
        self._follow_grammar()  # where an interruption came between a token and its grammar
        return sampler.sample(context, row, self._constraint.allowed())

    def _append(self, token: int) -> None:
        self.times.append(time.perf_counter())
        self.tokens.append(token)
        if self.lookup:
            self.lookup.add(token)
        if len(self.tokens) >= self._limit:
            self.ending = "length"

    def _take_forced(self) -> None:
        """Take the tokens that have to follow, to be read with the newest one; end the answer where none can."""
        forced = [] if self._to_follow else self._must_follow()[: self.room]
        self.report.forced_tokens += len(forced)
        if self._top_logprobs is not None:
            self._to_follow += forced
            forced = []
        for token in forced:
            if self._odds:
                self.logprobs.append(self._odds.of(token, None))
            self._append(token)
            if self._sampler:
                self._sampler.accept(token)
        self._follow_grammar()
        if self._constraint and not self._is_thinking and self._constraint.is_complete:
            self.ending = "stop"
        elif forced and self.is_admitted:
            self.unread = [TokenSpan(tuple(self.tokens[-1 - len(forced) :]))]

    def _must_follow(self) -> list[int]:
        forced: list[int] = []
        if self._thought and self._is_thinking:
            forced = self._thought.must_follow(self.tokens)
            if self._is_thinking:
                return []
        if self._constraint is None:
            return forced
        self._follow_grammar()
        return forced + self._constraint.forced()

    def _follow_grammar(self) -> None:
        """Let the grammar take the tokens of the answer that it has not taken yet; a thought is none of it."""
        if self._constraint and not self._is_thinking:
            start = self._thought.answer_start if self._thought else None
            self._constraint.follow(self.tokens[start or 0 :])

    def end(self, ending: FinishReason | Exception) -> None:
        """See `Request.end`."""
        super().end(ending)
        if self._sampler:
            self._sampler.close()
            self._sampler = None


def token_logprobs(logits: NDArray[np.float32], token: int, n_top: int) -> TokenLogprobs:
    """Return how likely a token was.

    Args:
        logits: float32 [n_vocab].
        token: the token.
        n_top: how many of the likeliest tokens are told beside it.
    """
    import numpy as np

    wide = logits.astype(np.float64)
    wide -= wide.max()
    wide -= np.log(np.exp(wide).sum())
    n_top = min(n_top, len(wide))
    likeliest = np.argpartition(wide, len(wide) - n_top)[len(wide) - n_top :] if n_top else np.empty(0, np.int64)
    ordered = likeliest[np.argsort(-wide[likeliest], kind="stable")]
    return TokenLogprobs(token, float(wide[token]), tuple((int(each), float(wide[each])) for each in ordered))


class LogitsRequest(Request):
    """A request for the logits of the token after the prompt.

    Attributes:
        logits: float32 [n_vocab]; None before they are computed.
    """

    logits: NDArray[np.float32] | None = None

    def use_logits(self, context: Context, row: int, model: TextModel) -> None:
        """Keep a copy of the logits. See `Request.use_logits`."""
        self.logits = context.logits(row).copy()
        self.ending = "stop"


class ScoreRequest(Request):
    """A request for the logits after each of the last positions of a prompt.

    Args:
        n_scored: number of these positions; all of them text.
        on_row: called with 0, 1, ... and the logits after each, float32 [n_vocab], valid during the call.

    Raises:
        ValueError: the prompt does not end in so many tokens of text.
    """

    def __init__(
        self,
        prompt: Sequence[Span],
        n_ctx: int,
        on_tiles: TileProgress | None,
        n_scored: int,
        on_row: Callable[[int, NDArray[np.float32]], None],
    ) -> None:
        super().__init__(prompt, n_ctx, on_tiles)
        text = 0
        for span in reversed(self.prompt):
            if isinstance(span, TileSpan):
                break
            text += span.length
        if not 0 < n_scored <= text:
            raise ValueError(f"{n_scored} positions to score of {text} that are text")
        self.n_scored = n_scored
        self._on_row = on_row
        self._used = 0

    @property
    def logits_from(self) -> int:
        """See `Request.logits_from`."""
        return self.length - self.n_scored + self._used

    def use_logits(self, context: Context, row: int, model: TextModel) -> None:
        """Pass the logits to `on_row`. See `Request.use_logits`."""
        self._on_row(self._used, context.logits(row))
        self._used += 1
        if self._used == self.n_scored:
            self.ending = "stop"
