"""What the scheduler knows of one prompt: how far it is read, and what is done with the logits after it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from internvl_gguf.engine.drafting import PromptLookup
from internvl_gguf.engine.kv_ledger import SequenceLedger, drop_prefix, total_length
from internvl_gguf.engine.tile_run import Report, TileProgress, TileRun
from internvl_gguf.llama.sampler import Sampler, sampler_for
from internvl_gguf.types import FinishReason, Span, TileSpan, TokenSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.config import SamplingParams
    from internvl_gguf.llama.context import Context
    from internvl_gguf.llama.model import TextModel


class Request(ABC):
    """A prompt on its way through the engine. The scheduler's; callers hold a `Handle`.

    Args:
        prompt: all of it.
        n_ctx: positions it may take.
        on_tiles: told how far its tiles are encoded.

    Attributes:
        report: what it took so far.
        sequence: where it runs or ran; -1 before.
        unread: spans that its sequence does not hold yet; empty once the prompt is read and each new token is decoded
            as it comes.
        tile_run: the tiles at the beginning of `unread`, once somebody looked for their embeddings.
        is_cancelled: nobody wants it any more.
        ending: why it is over, or the error that ended it; None while it goes on.
        n_scored: positions at the end of the prompt whose logits are wanted.

    Raises:
        ValueError: the prompt does not fit, is empty or ends in a picture; callers check before.
    """

    def __init__(self, prompt: Sequence[Span], n_ctx: int, on_tiles: TileProgress | None) -> None:
        self.length = total_length(prompt)
        self.n_scored = 1
        if not 0 < self.length <= n_ctx or not isinstance(prompt[-1], TokenSpan):
            raise ValueError(f"a prompt of {self.length} positions for a context of {n_ctx}")
        self.prompt = tuple(prompt)
        self.on_tiles = on_tiles
        self.report = Report()
        self.sequence = -1
        self.unread: list[Span] = []
        self.tile_run: TileRun | None = None
        self.is_cancelled = False
        self.ending: FinishReason | Exception | None = None
        self._outline = SequenceLedger()
        for span in prompt:
            self._outline.append(span)

    @property
    def is_admitted(self) -> bool:
        """Whether it was given a sequence."""
        return self.sequence >= 0

    @property
    def spans(self) -> list[Span]:
        """The prompt and the answer so far."""
        return list(self.prompt)

    @property
    def pending(self) -> int:
        """Positions its sequence does not hold yet: once the prompt is read, the newest token."""
        return total_length(self.unread) or 1

    @property
    def wanted_from(self) -> int:
        """The first position whose logits are still to be used: what its sequence never holds between two steps."""
        return total_length(self.spans) - 1

    def common_prefix(self, prompt: Sequence[Span]) -> int:
        """Positions at the start that this prompt and another share."""
        return self._outline.common_prefix(prompt)

    def resume_after(self, known: int) -> None:
        """Its sequence holds the first `known` positions: the rest is to be read."""
        self.unread = drop_prefix(self.spans, known)
        self.tile_run = None

    def read(self, count: int) -> None:
        """The first `count` positions of what was unread are in its sequence now."""
        self.unread = drop_prefix(self.unread, count)
        if not self.unread or isinstance(self.unread[0], TokenSpan):
            self.tile_run = None

    def next_tokens(self, limit: int) -> list[int]:
        """The tokens it goes on with, at most `limit`; none where a tile comes next."""
        tokens: list[int] = []
        for span in self.unread:
            if isinstance(span, TileSpan) or len(tokens) >= limit:
                break
            tokens += span.ids
        return tokens[:limit]

    def next_piece(self, room: int, rows: int) -> tuple[list[int], int]:
        """The tokens it goes on with, at most `room`, and after how many of them, at most `rows`, logits are wanted."""
        tokens = self.next_tokens(room)
        start = total_length(self.spans) - self.pending
        silent = min(max(self.wanted_from - start, 0), len(tokens))
        outputs = min(len(tokens) - silent, rows)
        return tokens[: silent + outputs], outputs

    def next_tiles(self, limit: int | None = None) -> list[TileSpan]:
        """The tiles it goes on with, at most `limit`; none where text comes next."""
        tiles: list[TileSpan] = []
        for span in self.unread[:limit]:
            if isinstance(span, TokenSpan):
                break
            tiles.append(span)
        return tiles

    def end(self, ending: FinishReason | Exception) -> None:
        """It is over; free what it holds."""
        self.ending = self.ending or ending
        self.unread, self.tile_run = [], None

    @abstractmethod
    def take(self, context: Context, row: int, model: TextModel) -> None:
        """Use the logits after the next position that they are wanted of, in a row of the last decode.

        Raises:
            LibraryError: they are not numbers.
        """


class AnswerRequest(Request):
    """A prompt that is to be answered.

    Args:
        sampling: how the tokens of the answer are chosen.
        drafts: whether its next tokens are to be guessed.

    Attributes:
        lookup: what guesses them, once there is a first token; None without.
        tokens: the answer so far, without the token that ended it.
        times: time.perf_counter() when each was there.
        handed_out: how many of them its reader has.
    """

    def __init__(
        self,
        prompt: Sequence[Span],
        n_ctx: int,
        on_tiles: TileProgress | None,
        sampling: SamplingParams,
        *,
        drafts: bool = False,
    ) -> None:
        super().__init__(prompt, n_ctx, on_tiles)
        self._sampling = sampling
        self._limit = min(sampling.max_tokens, n_ctx - self.length + 1)
        self._sampler: Sampler | None = None
        self._drafts = drafts
        self.lookup: PromptLookup | None = None
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.handed_out = 0

    @property
    def spans(self) -> list[Span]:
        """As `Request.spans`."""
        return [*self.prompt, TokenSpan(tuple(self.tokens))] if self.tokens else list(self.prompt)

    def next_tokens(self, limit: int) -> list[int]:
        """As `Request.next_tokens`; the newest token of the answer where the prompt is read."""
        return super().next_tokens(limit) if self.unread else self.tokens[-1:]

    @property
    def room(self) -> int:
        """Tokens its answer may still take."""
        return self._limit - len(self.tokens)

    def has_news(self) -> bool:
        """Whether its reader would not have to wait."""
        return self.handed_out < len(self.tokens) or self.ending is not None or self.is_cancelled

    def take(self, context: Context, row: int, model: TextModel) -> None:
        """As `Request.take`: choose the next token."""
        if self._sampler is None:
            context.logits(row)  # damaged weights otherwise answer with one token for ever
            self._sampler = sampler_for(self._sampling, model.n_vocab)
            self.lookup = PromptLookup(self.prompt) if self._drafts else None
        token = self._sampler.sample(context, row)
        if model.is_end_of_generation(token):
            self.ending = "stop"
            return
        self.times.append(time.perf_counter())
        self.tokens.append(token)
        if self.lookup:
            self.lookup.add(token)
        if len(self.tokens) >= self._limit:
            self.ending = "length"

    def end(self, ending: FinishReason | Exception) -> None:
        """As `Request.end`."""
        super().end(ending)
        if self._sampler:
            self._sampler.close()
            self._sampler = None


class LogitsRequest(Request):
    """A prompt of which the logits of the next token are wanted.

    Attributes:
        logits: float32 [n_vocab], once they are there.
    """

    logits: NDArray[np.float32] | None = None

    def take(self, context: Context, row: int, model: TextModel) -> None:
        """As `Request.take`: keep the logits."""
        self.logits = context.logits(row).copy()
        self.ending = "stop"


class ScoreRequest(Request):
    """A prompt of which the logits after each of its last positions are wanted.

    Args:
        n_scored: how many; all of them text.
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
    def wanted_from(self) -> int:
        """As `Request.wanted_from`."""
        return self.length - self.n_scored + self._used

    def take(self, context: Context, row: int, model: TextModel) -> None:
        """As `Request.take`: hand the logits on."""
        self._on_row(self._used, context.logits(row))
        self._used += 1
        if self._used == self.n_scored:
            self.ending = "stop"
