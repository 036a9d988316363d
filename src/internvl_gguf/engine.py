"""Tokens and embeddings in, tokens out: prefix reuse, prefill, decoding, abort.

The engine knows no template, file or conversation. A request is the whole prompt as spans; what the KV cache already
holds of it is not computed again, and a tile whose embeddings are known is not encoded again. Requests own no
sequence: any of them may run on any, and one that lost its sequence to another takes up where it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from internvl_gguf.config import SamplingParams
from internvl_gguf.embedding_cache import EmbeddingCache
from internvl_gguf.errors import SessionStateError
from internvl_gguf.kv_ledger import SequenceLedger, drop_prefix, total_length
from internvl_gguf.llama.context import Context, DecodeAbortedError
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.sampler import Sampler, sampler_for
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.types import FinishReason, Span, Tile, TileSpan, TokenSpan

if TYPE_CHECKING:
    from numpy.typing import NDArray

TileProgress = Callable[[int, int], None]
"""Called with (tiles encoded, tiles to encode) before the first tile and after each batch of them."""


@dataclass
class PrefillReport:
    """What a prefill did.

    Attributes:
        sequence: the sequence that now holds the prompt.
        cached_tokens: positions whose KV was already there.
        tiles_encoded: tiles the vision encoder had to see.
        encode_seconds: time in the vision encoder.
        prefill_seconds: time in the text model.
    """

    sequence: int
    cached_tokens: int
    tiles_encoded: int = 0
    encode_seconds: float = 0.0
    prefill_seconds: float = 0.0


class Engine:
    """Runs requests on one text model and its vision encoder.

    Args:
        model, vision, context: open native objects; the caller closes them after the engine's last use. Without a
            vision encoder the engine takes text only.
        cache: embeddings by tile.

    Calls from several threads take turns: one native call at a time.
    """

    def __init__(self, model: TextModel, vision: VisionEncoder | None, context: Context, cache: EmbeddingCache) -> None:
        self.model = model
        self.vision = vision
        self.context = context
        self.cache = cache
        self.on_tiles: TileProgress | None = None
        self.lock = threading.RLock()
        self._ledgers = [SequenceLedger() for _ in range(context.n_sequences)]
        self._used = [0] * context.n_sequences
        self._holders: list[Generation | None] = [None] * context.n_sequences
        self._clock = 0

    @property
    def n_ctx(self) -> int:
        """Positions one request can take, its answer included."""
        return self.context.n_ctx

    def generate(self, prompt: Sequence[Span], sampling: SamplingParams) -> Generation:
        """An answer to a prompt; nothing happens before its first token is asked for."""
        return Generation(self, prompt, sampling)

    def next_token_logits(self, prompt: Sequence[Span]) -> NDArray[np.float32]:
        """Logits of the token after the prompt, float32 [n_vocab].

        Raises:
            SessionStateError: `abort` stopped it.
        """
        with self._abortable():
            self.prefill(prompt, holder=None)
            return self.context.logits().copy()

    def embed(self, tiles: Sequence[Tile]) -> list[NDArray[np.float32]]:
        """Embeddings of tiles, float32 [tokens_per_tile, n_embd] each, encoding only what is not known.

        Raises:
            SessionStateError: `abort` stopped it.
        """
        with self._abortable():
            return self._embeddings(tiles, PrefillReport(0, 0))

    @contextmanager
    def _abortable(self) -> Iterator[None]:
        """A request that gives one result or none."""
        with self.lock:
            self.context.abort_requested = False
            try:
                yield
            except DecodeAbortedError:
                raise SessionStateError("The request was stopped by abort().", "Ask again.") from None

    def abort(self) -> None:
        """Stop the request that is running; it ends with `finish_reason` "aborted". From any thread."""
        self.context.abort()

    def prefill(self, prompt: Sequence[Span], holder: Generation | None) -> PrefillReport:
        """Bring a prompt into the KV cache, with logits for its last token.

        Raises:
            ValueError: the prompt does not fit, is empty or ends in a picture; callers check before.
            DecodeAbortedError, KeyboardInterrupt: stopped half-way; what was decoded stays known.
        """
        length = total_length(prompt)
        if not 0 < length <= self.n_ctx or not isinstance(prompt[-1], TokenSpan):
            raise ValueError(f"a prompt of {length} positions for a context of {self.n_ctx}")
        sequence, cached = self._choose_sequence(prompt, length)
        self._holders[sequence] = holder
        report = PrefillReport(sequence, cached)
        rest = drop_prefix(prompt, cached)
        try:
            for is_tiles, run in groupby(rest, key=lambda span: isinstance(span, TileSpan)):
                if is_tiles:
                    self._decode_tiles([span for span in run if isinstance(span, TileSpan)], report)
                else:
                    tokens = [token for span in run if isinstance(span, TokenSpan) for token in span.ids]
                    self._decode_text(tokens, length, report)
        finally:
            self._settle(sequence)
        self.context.logits()  # damaged weights otherwise answer with one token for ever
        return report

    def decode_token(self, sequence: int, token: int) -> None:
        """Decode one more token of a request that still holds its sequence."""
        ledger = self._ledgers[sequence]
        try:
            self.context.decode_token(token, ledger.length, sequence)
            ledger.append_token(token)
        finally:
            self._settle(sequence)

    def holds(self, sequence: int, holder: Generation) -> bool:
        """Whether a request still has the sequence it was given."""
        return self._holders[sequence] is holder

    def release(self, sequence: int, holder: Generation) -> None:
        """A request is over; its KV stays until the sequence is wanted."""
        if self._holders[sequence] is holder:
            self._holders[sequence] = None

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every ledger agrees with llama.cpp's view of its sequence."""
        with self.lock:
            for sequence, ledger in enumerate(self._ledgers):
                ledger.check_integrity(self.context.last_position(sequence))

    def forget(self) -> None:
        """Empty the KV cache."""
        with self.lock:
            for sequence in range(len(self._ledgers)):
                self._cut(sequence, 0)

    def _settle(self, sequence: int) -> None:
        """After an interruption llama.cpp may hold more than the ledger: cut it back."""
        length = self._ledgers[sequence].length
        if self.context.last_position(sequence) >= length:
            self.context.cut(sequence, length)

    def _cut(self, sequence: int, length: int) -> int:
        kept = self._ledgers[sequence].truncate(length)
        self.context.cut(sequence, kept)
        return kept

    def _choose_sequence(self, prompt: Sequence[Span], length: int) -> tuple[int, int]:
        """The sequence that knows most of the prompt, cut to what is shared, and how much that is.

        Where that would throw away what another conversation may need (a fork, an answer under way), the shared part
        is copied to the sequence that was left alone longest instead; copying computes nothing.
        """
        self._clock += 1
        shared = [min(ledger.common_prefix(prompt), length - 1) for ledger in self._ledgers]
        best = max(range(len(shared)), key=lambda sequence: (shared[sequence], -self._used[sequence]))
        keep = shared[best]
        if keep < self._ledgers[best].length or self._holders[best] is not None:
            others = [sequence for sequence in range(len(shared)) if sequence != best]
            spare = min(others, key=lambda other: (self._holders[other] is not None, self._used[other]), default=best)
            if spare != best and self._holders[spare] is None and self._used[spare] <= self._used[best]:
                self._ledgers[spare].copy_prefix(self._ledgers[best], keep)
                self.context.copy_prefix(best, spare, self._ledgers[spare].length)
                best = spare
        self._used[best] = self._clock
        return best, self._cut(best, keep)

    def _decode_text(self, tokens: list[int], prompt_length: int, report: PrefillReport) -> None:
        ledger = self._ledgers[report.sequence]
        for start in range(0, len(tokens), self.context.n_batch):
            batch = tokens[start : start + self.context.n_batch]
            is_last = ledger.length + len(batch) == prompt_length
            started = time.perf_counter()
            self.context.decode_tokens(batch, ledger.length, report.sequence, logits=is_last)
            report.prefill_seconds += time.perf_counter() - started
            ledger.append(TokenSpan(tuple(batch)))

    def _decode_tiles(self, spans: list[TileSpan], report: PrefillReport) -> None:
        """Decode tiles in batches of whole tiles, so that the ledger never ends inside one."""
        embeddings = self._embeddings([span.tile for span in spans], report)
        ledger = self._ledgers[report.sequence]
        tiles_at_once = max(1, self.context.n_batch // spans[0].length)
        for start in range(0, len(spans), tiles_at_once):
            rows = np.concatenate(embeddings[start : start + tiles_at_once])
            started = time.perf_counter()
            self.context.decode_embeddings(rows, ledger.length, report.sequence, logits=False)
            report.prefill_seconds += time.perf_counter() - started
            for span in spans[start : start + tiles_at_once]:
                ledger.append(span)

    def _embeddings(self, tiles: Sequence[Tile], report: PrefillReport) -> list[NDArray[np.float32]]:
        if self.vision is None:
            raise ValueError("tiles for an engine without a vision encoder")
        known = {tile.key: self.cache.get(tile.key) for tile in tiles}
        missing = list({tile.key: tile for tile in tiles if known[tile.key] is None}.values())
        at_once = self.vision.tiles_per_batch
        for start in range(0, len(missing), at_once):
            self._tell_tiles(start, len(missing))
            if self.context.abort_requested:
                raise DecodeAbortedError
            batch = missing[start : start + at_once]
            started = time.perf_counter()
            encoded = self.vision.encode([tile.pixels for tile in batch])
            report.encode_seconds += time.perf_counter() - started
            report.tiles_encoded += len(batch)
            for tile, embeddings in zip(batch, encoded, strict=True):
                known[tile.key] = embeddings
                self.cache.put(tile.key, embeddings)
        if missing:
            self._tell_tiles(len(missing), len(missing))
        return [found for tile in tiles if (found := known[tile.key]) is not None]

    def _tell_tiles(self, done: int, total: int) -> None:
        if self.on_tiles:
            self.on_tiles(done, total)


class Generation:
    """One answer under way: iterate for its tokens, then read `finish_reason`.

    Attributes:
        tokens: the tokens so far, without the one that ended the answer.
        report: what the prefill did; None before the first token.
        finish_reason: why the answer ended; None while it goes on.
    """

    def __init__(self, engine: Engine, prompt: Sequence[Span], sampling: SamplingParams) -> None:
        self._engine = engine
        self._prompt = list(prompt)
        self._limit = min(sampling.max_tokens, engine.n_ctx - total_length(prompt) + 1)
        self._sampling = sampling
        self._sampler: Sampler | None = None
        self.tokens: list[int] = []
        self.report: PrefillReport | None = None
        self.finish_reason: FinishReason | None = None

    def __iter__(self) -> Iterator[int]:
        try:
            while self.finish_reason is None:
                token = self._step()
                if token is not None:
                    yield token
        finally:
            self.close()

    def stop(self, reason: FinishReason = "stop") -> None:
        """End the answer here, as a stop string does."""
        self.finish_reason = self.finish_reason or reason

    def close(self) -> None:
        """Free the sampler; an answer that had not ended counts as aborted."""
        self.stop("aborted")
        with self._engine.lock:
            if self.report:
                self._engine.release(self.report.sequence, self)
            if self._sampler:
                self._sampler.close()
                self._sampler = None

    def _step(self) -> int | None:
        engine = self._engine
        with engine.lock:
            try:
                self._advance()
            except DecodeAbortedError:
                self.stop("aborted")
                return None
            if engine.context.abort_requested:
                self.stop("aborted")
                return None
            if self._sampler is None:
                self._sampler = sampler_for(self._sampling, engine.model.n_vocab)
            token = self._sampler.sample(engine.context)
            if engine.model.is_end_of_generation(token):
                self.stop("stop")
                return None
        self.tokens.append(token)
        if len(self.tokens) >= self._limit:
            self.stop("length")
        return token

    def _advance(self) -> None:
        """Have the logits of the next token: prefill first, then decode token by token."""
        engine = self._engine
        if self.report is None:
            engine.context.abort_requested = False
            self.report = engine.prefill(self._prompt, self)
        elif engine.holds(self.report.sequence, self):
            engine.decode_token(self.report.sequence, self.tokens[-1])
        else:  # another request took the sequence; its KV may still be known in part
            self.report.sequence = engine.prefill([*self._prompt, TokenSpan(tuple(self.tokens))], self).sequence
