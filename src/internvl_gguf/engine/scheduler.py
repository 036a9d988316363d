"""The scheduler: chooses and runs one step of computation for all requests at once.

A step moves every request forward that can go on, with at most one native call for each kind of work, since llama.cpp
takes tokens and embeddings only in separate batches:

1. Waiting requests take free sequences, in the order they came. A request waits a little longer while a running
   request is still reading the prefix that both share: the prefix is then copied instead of computed twice.
2. One batch of tiles is encoded, for the request that came first.
3. The embeddings of some tiles are decoded, whole tiles of one request.
4. The newest token of every answer under way is decoded in one call, together with the next tokens of prompts still
   being read; each row is sampled by its own request.

A single answer may be decoded with guesses of the next tokens (`drafting`); several answers fill a batch by themselves.

While answers are being decoded, prompts are read in pieces of n_ubatch positions instead of n_batch, so that a long
prompt delays no token by more than one batch of tiles and two computations.

The ledgers alone record what was computed. So a step may end anywhere: `recover` cuts the cache back to the ledgers,
and each request goes on from what its sequence holds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from internvl_gguf.engine.candidates import Candidates
from internvl_gguf.engine.drafting import DecodeCost
from internvl_gguf.engine.free_cores import CoreWatch
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.engine.request import AnswerRequest, Request
from internvl_gguf.engine.sequences import Sequences
from internvl_gguf.engine.tile_run import TileRun
from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.context import Context, DecodeAbortedError, TokenRun
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.types import FinishReason, TileSpan, TokenSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.llama.model import TextModel

_LONGEST_WAIT: Final = 0.05
"""Seconds that a step waits for a grammar to be compiled where nothing else is to be done; Ctrl-C waits with it."""


class _TokenPiece(NamedTuple):
    """The next tokens of one request in this step, and after how many of the last ones it needs logits."""

    request: Request
    tokens: list[int]
    outputs: int


class Scheduler:
    """Runs requests step by step. One thread at a time works with it, except for `add`.

    Args:
        model, context: the text model and its context.
        make_tile_run: starts a run of tiles, looking up their embeddings.
        cores: counts the free cores; without it each step computes with all threads of the context.
    """

    def __init__(
        self,
        model: TextModel,
        context: Context,
        make_tile_run: Callable[..., TileRun],
        cores: CoreWatch | None = None,
    ) -> None:
        self.sequences = Sequences(context)
        self._model = model
        self._context = context
        self._make_tile_run = make_tile_run
        self._cores = cores
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._candidates = Candidates(self.sequences, context.n_batch, context.n_draft)
        self._needs_recovery = False
        self._cost = DecodeCost()

    def add(self, request: Request) -> None:
        """Append a request to the queue; callable from any thread."""
        self._waiting.append(request)

    def step(self) -> None:
        """Run one step for all requests.

        Raises:
            KeyboardInterrupt: Ctrl-C; it ends no request.
        """
        if self._needs_recovery:
            self.recover()
        if self._cores:
            self._context.limit_threads(self._cores.free())
        self._needs_recovery = True
        self._context.abort_requested = False
        try:
            self._make_room()
            if not self._decode_lone_answer():
                with deferred_interrupts(self._context.abort):
                    self._step_all()
        except BaseException:
            self.recover()
            raise
        self._needs_recovery = False

    def recover(self) -> None:
        """Restore a consistent state after a step that ended early: cut cache and requests back to the ledgers."""
        self.sequences.cut_to_ledgers()
        for request in list(self._running):
            if request.ending is not None:
                self._end(request, request.ending)
                continue
            length, wanted = self.sequences.ledgers[request.sequence].length, request.logits_from
            # The first case: logits were computed but not used before the step ended.
            if length > wanted or length + request.pending != total_length(request.spans):
                request.resume_after(self.sequences.cut(request.sequence, min(length, wanted)))
        self._needs_recovery = False

    def forget(self) -> None:
        """Empty the KV cache; running requests read their prompts again."""
        for request in self._candidates.branched(self._running):
            self._candidates.pause(request)
            self._wait_again(request)
        for sequence in range(len(self.sequences.ledgers)):
            self.sequences.cut(sequence, 0)
        self.recover()

    def end_cancelled(self) -> None:
        """End all cancelled requests."""
        for request in [*self._running, *self._waiting]:
            if request.is_cancelled:
                self._end(request, "aborted")

    def end_all(self, error: Exception) -> None:
        """End all requests with an error."""
        for request in [*self._running, *self._waiting]:
            self._end(request, error)

    def _step_all(self) -> None:
        self.end_cancelled()
        self._admit()
        try:
            self._encode_tiles()
            self._read_tiles()
            self._decode_tokens()
        except DecodeAbortedError:
            self.recover()
            self.end_cancelled()

    def _admit(self) -> None:
        waiting = list(self._waiting)
        self._candidates.register(waiting)
        is_held_up = False  # requests take sequences in their order, but for candidates, whose question has one
        for request in waiting:
            has_begun = self._candidates.have_begun(request)
            if not request.is_ready or (is_held_up and not has_begun):
                continue
            place = None
            if not self._is_being_read(request):
                if not self._start(request):
                    continue
                place = self._candidates.place(request)
            if place:
                self._run_on(request, *place)
            else:
                is_held_up |= not has_begun
        if self._waiting and not self._running:
            self._waiting[0].wait_ready(_LONGEST_WAIT)

    def _run_on(self, request: Request, sequence: int, known: int) -> None:
        """Let a waiting request run on a sequence that holds the first `known` positions of it."""
        request.sequence = sequence
        if not request.report.prompt_read:  # a paused candidate has counted them before
            request.report.cached_tokens = known
        request.resume_after(known)
        self._running.append(request)
        self._waiting.remove(request)

    def _make_room(self) -> None:
        """Let candidates wait for which the next step has no room."""
        for request in self._candidates.make_room(self._running):
            self._wait_again(request)

    def _wait_again(self, request: Request) -> None:
        self._running.remove(request)
        self._waiting.appendleft(request)

    def _start(self, request: Request) -> bool:
        """Prepare a request for being admitted; return whether it goes on."""
        try:
            request.start()
        except Exception as error:
            self._end(request, error)
            return False
        if request.ending is not None:
            self._end(request, request.ending)
        return request.ending is None

    def _is_being_read(self, request: Request) -> bool:
        """Return whether a running request is still reading a prefix of this one that no sequence holds yet."""
        reading = [other for other in self._running if other.unread]
        if not reading:
            return False
        shared = max(other.common_prefix(request.prompt) for other in reading)
        return min(shared, request.logits_from) > self.sequences.known_prefix(request.prompt)

    def _encode_tiles(self) -> None:
        """Encode one batch of tiles, for the first request that waits for one."""
        for request in list(self._running):
            if not request.next_tiles(1):
                continue
            try:
                if request.tile_run is None:
                    tiles = [span.tile for span in request.next_tiles()]
                    request.tile_run = self._make_tile_run(tiles, evicts=request.evicts)
                if not request.tile_run.is_complete:
                    request.tile_run.encode_batch(request.report, request.on_tiles)
                    return
            except Exception as error:  # that of a progress callback, too: it is the error of this request alone
                self._end(request, error)

    def _read_tiles(self) -> None:
        """Decode the embeddings of as many tiles as fit, for the first request whose next tiles are encoded."""
        room = self._prompt_room()
        for request in self._running:
            first = request.next_tiles(1)
            if not first or request.tile_run is None:
                continue
            spans = request.next_tiles(max(1, room // first[0].length))
            tiles = [span.tile for span in spans]
            if request.tile_run.knows(tiles):
                self._decode_tiles(request, spans, request.tile_run.rows(tiles))
                return

    def _decode_tiles(self, request: Request, spans: list[TileSpan], rows: NDArray[np.float32]) -> None:
        ledger = self.sequences.ledgers[request.sequence]
        started = time.perf_counter()
        try:
            self._context.decode_embeddings(rows, ledger.length, request.sequence, logits=False)
        except LibraryError as error:
            self.sequences.cut_to_ledgers()
            self._end(request, error)
            return
        request.report.prefill_seconds += time.perf_counter() - started
        for span in spans:
            ledger.append(span)
        request.mark_read(len(rows))

    def _prompt_room(self) -> int:
        """Return how many prompt positions one call may read beside the answers being decoded."""
        answers = sum(not request.unread for request in self._running)
        if not answers:
            return self._context.n_batch
        return min(max(self._context.n_ubatch - answers, 1), self._context.n_batch - answers)

    def _decode_tokens(self) -> None:
        """Decode the newest token of every answer, and the next tokens of prompts whose next part is text."""
        room, rows = self._prompt_room(), self._context.n_outputs
        pieces = [_TokenPiece(request, request.next_tokens(1), 1) for request in self._running if not request.unread]
        rows -= len(pieces)
        for request in self._running:
            if request.unread and room:
                tokens, outputs = request.next_piece(room, rows)
                if tokens:
                    pieces.append(_TokenPiece(request, tokens, outputs))
                    room -= len(tokens)
                    rows -= outputs
        if pieces:
            self._decode_pieces(pieces)

    def _decode_pieces(self, pieces: Sequence[_TokenPiece]) -> None:
        ledgers = self.sequences.ledgers
        runs = [
            TokenRun(piece.tokens, ledgers[piece.request.sequence].length, piece.request.sequence, piece.outputs)
            for piece in pieces
        ]
        started = time.perf_counter()
        try:
            rows = self._context.decode_many(runs)
        except LibraryError as error:
            self.sequences.cut_to_ledgers()
            if len(pieces) == 1:
                self._end(pieces[0].request, error)
                return
            for piece in pieces:  # one by one, to find the request that fails
                self._decode_pieces([piece])
            return
        seconds_each = (time.perf_counter() - started) / sum(len(piece.tokens) for piece in pieces)
        for request, tokens, _ in pieces:
            if request.unread:
                ledgers[request.sequence].append(TokenSpan(tuple(tokens)))
                if request.report.prompt_read < request.length:
                    request.report.prefill_seconds += seconds_each * len(tokens)
                request.mark_read(len(tokens))
            else:
                ledgers[request.sequence].append_token(tokens[0])
        for piece, last in zip(pieces, rows, strict=True):
            for row in range(last + 1 - piece.outputs, last + 1):
                if piece.request.ending is None:
                    self._use_logits(piece.request, row)

    def _decode_lone_answer(self) -> bool:
        """Decode the next token of an answer that runs alone: the inner loop, kept short.

        Returns:
            Whether that was the whole step; False if there is other work, too.
        """
        if len(self._running) != 1 or self._waiting:
            return False
        request = self._running[0]
        if request.unread or request.is_cancelled:
            return False
        (token,) = request.next_tokens(1)
        ledger = self.sequences.ledgers[request.sequence]
        drafted = self._context.n_draft and self._draft(request, ledger.length)
        started = time.perf_counter()
        try:
            if drafted:
                self._verify(request, [token, *drafted])
                return True
            self._context.decode_token(token, ledger.length, request.sequence)
        except DecodeAbortedError:
            self.recover()
            return True
        except LibraryError as error:
            self.sequences.cut_to_ledgers()
            self._end(request, error)
            return True
        if self._context.n_draft:
            self._cost.observe(1, time.perf_counter() - started)
        ledger.append_token(token)
        self._use_logits(request, -1)
        return True

    def _draft(self, request: Request, length: int) -> list[int]:
        """Return guesses of the next tokens if verifying them is likely to be faster than decoding one by one."""
        if not isinstance(request, AnswerRequest):
            return []
        most = min(self._context.n_draft, request.room - 1, self._context.n_ctx - length - 1)
        return request.guess(most, self._cost)

    def _verify(self, request: Request, tokens: list[int]) -> None:
        """Decode the newest token together with guesses of the next ones; keep the guesses that the sampler chooses."""
        sequence = request.sequence
        ledger = self.sequences.ledgers[sequence]
        started = time.perf_counter()
        (last,) = self._context.decode_many([TokenRun(tokens, ledger.length, sequence, len(tokens))])
        self._cost.observe(len(tokens), time.perf_counter() - started)
        request.report.drafted_tokens += len(tokens) - 1
        kept = 0
        for row, token in enumerate(tokens, last + 1 - len(tokens)):
            if request.ending is not None or request.next_tokens(1) != [token]:
                break
            ledger.append_token(token)
            kept += 1
            if request.unread:  # a token that had to follow, of which more may be unread
                request.mark_read(1)
            if not request.unread:
                self._use_logits(request, row)
        request.report.accepted_tokens += kept - 1
        self.sequences.cut_to_ledgers()

    def _use_logits(self, request: Request, row: int) -> None:
        try:
            request.use_logits(self._context, row, self._model)
        except Exception as error:
            self._end(request, error)
            return
        if request.ending is not None:
            self._end(request, request.ending)

    def _end(self, request: Request, ending: FinishReason | Exception) -> None:
        """End a request. It is removed from the running ones last: if interrupted before, `recover` ends it again."""
        request.end(ending)
        self._candidates.release(request)
        if request in self._running:
            self._running.remove(request)
        else:
            self._waiting.remove(request)
