"""The step: what is computed next, for all requests at once.

A step brings every request that can go on some way forward, with at most one native call for each kind of work, since
llama.cpp takes no tokens and embeddings in one batch:

1. Waiting requests take free sequences, in the order they came. The next one waits a little longer while a request
   that runs is still reading what both begin with: then that is copied instead of computed twice.
2. One batch of tiles is encoded, for the request that came first.
3. The embeddings of some tiles are decoded, whole tiles of one request.
4. The newest token of every answer under way is decoded in one call, together with the next tokens of prompts still
   being read; each row is sampled by its own request.

An answer alone may be decoded with guesses of what follows (`drafting`); several fill a batch by themselves.

While answers are under way, prompts are read in pieces of n_ubatch positions instead of n_batch, so that a long one
delays no token by more than one batch of tiles and two computations.

What was computed is known from the ledgers alone. So a step may end anywhere: `recover` cuts the cache back to the
ledgers, and each request goes on from what its sequence holds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from internvl_gguf.engine.drafting import DecodeCost
from internvl_gguf.engine.free_cores import CoreWatch
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.engine.request import AnswerRequest, Request
from internvl_gguf.engine.sequences import Sequences
from internvl_gguf.engine.tile_run import TileRun
from internvl_gguf.errors import LibraryError
from internvl_gguf.llama.context import Context, DecodeAbortedError, TokenRun
from internvl_gguf.llama.interrupts import deferred_interrupts
from internvl_gguf.types import FinishReason, Tile, TileSpan, TokenSpan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.llama.model import TextModel


class _Piece(NamedTuple):
    """Tokens that one request goes on with in this step, and after how many of them its logits are wanted."""

    request: Request
    tokens: list[int]
    outputs: int


class Scheduler:
    """Runs requests step by step. One thread at a time works with it, except for `add`.

    Args:
        model, context: the text model and its context.
        find_tiles: looks up the embeddings of tiles.
        cores: tells how many cores are free; without it each step computes with all threads of the context.
    """

    def __init__(
        self,
        model: TextModel,
        context: Context,
        find_tiles: Callable[[Sequence[Tile]], TileRun],
        cores: CoreWatch | None = None,
    ) -> None:
        self.sequences = Sequences(context)
        self._model = model
        self._context = context
        self._find_tiles = find_tiles
        self._cores = cores
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._is_cut_short = False
        self._cost = DecodeCost()

    def add(self, request: Request) -> None:
        """A request joins the end of the queue; from any thread."""
        self._waiting.append(request)

    def step(self) -> None:
        """Bring all requests one step forward.

        Raises:
            KeyboardInterrupt: Ctrl-C; no request is ended by it.
        """
        if self._is_cut_short:
            self.recover()
        if self._cores:
            self._context.limit_threads(self._cores.free())
        self._is_cut_short = True
        self._context.abort_requested = False
        try:
            if not self._decode_lone_answer():
                with deferred_interrupts(self._context.abort):
                    self._step_all()
        except BaseException:
            self.recover()
            raise
        self._is_cut_short = False

    def recover(self) -> None:
        """After a step that ended early: cache and requests back to what the ledgers say."""
        self.sequences.settle()
        for request in list(self._running):
            if request.ending is not None:
                self._end(request, request.ending)
                continue
            length, wanted = self.sequences.ledgers[request.sequence].length, request.wanted_from
            # Or logits were not used while they were there.
            if length > wanted or length + request.pending != total_length(request.spans):
                request.resume_after(self.sequences.cut(request.sequence, min(length, wanted)))
        self._is_cut_short = False

    def forget(self) -> None:
        """Empty the KV cache; what runs begins again."""
        for sequence in range(len(self.sequences.ledgers)):
            self.sequences.cut(sequence, 0)
        self.recover()

    def end_cancelled(self) -> None:
        """Let go of the requests that nobody wants any more."""
        for request in [*self._running, *self._waiting]:
            if request.is_cancelled:
                self._end(request, "aborted")

    def end_all(self, error: Exception) -> None:
        """No request goes on."""
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
        while self._waiting and self.sequences.has_room:
            request = self._waiting[0]
            if self._will_be_known(request):
                return
            sequence, known = self.sequences.take(request.prompt, request.wanted_from)
            request.sequence = sequence
            request.report.cached_tokens = known
            request.resume_after(known)
            self._running.append(self._waiting.popleft())

    def _will_be_known(self, request: Request) -> bool:
        """Whether a request that runs is still reading what this one begins with, too."""
        reading = [other for other in self._running if other.unread]
        if not reading:
            return False
        shared = max(other.common_prefix(request.prompt) for other in reading)
        return min(shared, request.wanted_from) > self.sequences.known_prefix(request.prompt)

    def _encode_tiles(self) -> None:
        """Encode one batch of tiles, for the first request that waits for one."""
        for request in list(self._running):
            if not request.next_tiles(1):
                continue
            try:
                if request.tile_run is None:
                    request.tile_run = self._find_tiles([span.tile for span in request.next_tiles()])
                if not request.tile_run.is_complete:
                    request.tile_run.encode_batch(request.report, request.on_tiles)
                    return
            except Exception as error:  # its progress callback's included: it is the error of this request alone
                self._end(request, error)

    def _read_tiles(self) -> None:
        """Decode the embeddings of as many tiles as fit, for the first request that has them."""
        room = self._room()
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
            self.sequences.settle()
            self._end(request, error)
            return
        request.report.prefill_seconds += time.perf_counter() - started
        for span in spans:
            ledger.append(span)
        request.read(len(rows))

    def _room(self) -> int:
        """Positions of prompts that one call may read beside the answers under way."""
        answers = sum(not request.unread for request in self._running)
        if not answers:
            return self._context.n_batch
        return min(max(self._context.n_ubatch - answers, 1), self._context.n_batch - answers)

    def _decode_tokens(self) -> None:
        """Decode the newest token of every answer, and the next ones of prompts that go on with text."""
        room, rows = self._room(), self._context.n_outputs
        pieces = [_Piece(request, request.next_tokens(1), 1) for request in self._running if not request.unread]
        rows -= len(pieces)
        for request in self._running:
            if request.unread and room:
                tokens, outputs = request.next_piece(room, rows)
                if tokens:
                    pieces.append(_Piece(request, tokens, outputs))
                    room -= len(tokens)
                    rows -= outputs
        if pieces:
            self._decode_pieces(pieces)

    def _decode_pieces(self, pieces: Sequence[_Piece]) -> None:
        ledgers = self.sequences.ledgers
        runs = [
            TokenRun(piece.tokens, ledgers[piece.request.sequence].length, piece.request.sequence, piece.outputs)
            for piece in pieces
        ]
        started = time.perf_counter()
        try:
            rows = self._context.decode_many(runs)
        except LibraryError as error:
            self.sequences.settle()
            if len(pieces) == 1:
                self._end(pieces[0].request, error)
                return
            for piece in pieces:  # one by one, to see whose error it is
                self._decode_pieces([piece])
            return
        seconds_each = (time.perf_counter() - started) / sum(len(piece.tokens) for piece in pieces)
        for request, tokens, _ in pieces:
            if request.unread:
                ledgers[request.sequence].append(TokenSpan(tuple(tokens)))
                request.report.prefill_seconds += seconds_each * len(tokens)
                request.read(len(tokens))
            else:
                ledgers[request.sequence].append_token(tokens[0])
        for piece, last in zip(pieces, rows, strict=True):
            for row in range(last + 1 - piece.outputs, last + 1):
                if piece.request.ending is None:
                    self._take(piece.request, row)

    def _decode_lone_answer(self) -> bool:
        """The inner step of a single answer, with as little around it as can be.

        Returns:
            Whether that was all there is to do.
        """
        if len(self._running) != 1 or self._waiting:
            return False
        request = self._running[0]
        if request.unread or request.is_cancelled:
            return False
        (token,) = request.next_tokens(1)
        ledger = self.sequences.ledgers[request.sequence]
        drafted = self._context.n_draft and self._guess(request, ledger.length)
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
            self.sequences.settle()
            self._end(request, error)
            return True
        if self._context.n_draft:
            self._cost.observe(1, time.perf_counter() - started)
        ledger.append_token(token)
        self._take(request, -1)
        return True

    def _guess(self, request: Request, length: int) -> list[int]:
        """What may come after the newest token, where verifying it promises to be quicker than waiting."""
        if not isinstance(request, AnswerRequest) or request.lookup is None:
            return []
        most = min(self._context.n_draft, request.room - 1, self._context.n_ctx - length - 1)
        return request.lookup.guess(most, self._cost)

    def _verify(self, request: Request, tokens: list[int]) -> None:
        """Decode the newest token with guesses of the next ones; keep those that are chosen."""
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
            self._take(request, row)
        request.report.accepted_tokens += kept - 1
        self.sequences.settle()

    def _take(self, request: Request, row: int) -> None:
        try:
            request.take(self._context, row, self._model)
        except Exception as error:
            self._end(request, error)
            return
        if request.ending is not None:
            self._end(request, request.ending)

    def _end(self, request: Request, ending: FinishReason | Exception) -> None:
        """A request is over. It leaves those that run last: interrupted before that, `recover` ends it again."""
        request.end(ending)
        if request in self._running:
            self.sequences.leave(request.sequence)
            self._running.remove(request)
        else:
            self._waiting.remove(request)
