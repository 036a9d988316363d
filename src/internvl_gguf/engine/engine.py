"""The engine as callers see it: submit requests, embed tiles, export and restore KV, close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING

from internvl_gguf.config import SamplingParams
from internvl_gguf.engine.constraint import ConstraintCompiler
from internvl_gguf.engine.embedding_cache import EmbeddingCache
from internvl_gguf.engine.free_cores import CoreWatch
from internvl_gguf.engine.handle import Handle, LogitsHandle, ScoreHandle, cancelled_error
from internvl_gguf.engine.request import AnswerRequest, LogitsRequest, Request, ScoreRequest
from internvl_gguf.engine.scheduler import Scheduler
from internvl_gguf.engine.step_lock import InheritedStepLock, StepLock
from internvl_gguf.engine.thought import ThoughtBounds
from internvl_gguf.engine.tile_run import RequestReport, TileProgress, TileRun
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.native import closed
from internvl_gguf.types import Span, Tile
from internvl_gguf.utils.owned import Owned, disown_after_fork
from internvl_gguf.vision.contract import TileEncoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Engine(Owned):
    """Runs requests on one text model and its vision encoder, as many at once as the context has sequences.

    Args:
        model, vision, context: open native objects; the caller closes them after the engine. Without a vision encoder
            the engine takes text only.
        cache: embeddings by tile.
        cores: counts the cores that other programs leave free; without it all threads compute whatever others do.

    Any thread may use it. Nothing is computed before a caller waits for a result; then all submitted requests are
    worked for.
    """

    def __init__(
        self,
        model: TextModel,
        vision: TileEncoder | None,
        context: Context,
        cache: EmbeddingCache,
        cores: CoreWatch | None = None,
    ) -> None:
        self.model = model
        self.vision = vision
        self.context = context
        self.cache = cache
        self._step_lock = StepLock()
        # No part refers to the engine: it is freed, with all its parts, as soon as its last reference is dropped.
        self._make_tile_run = partial(TileRun, vision=vision, cache=cache)
        self._scheduler = Scheduler(model, context, self._make_tile_run, cores)
        self._constraints = ConstraintCompiler(model)
        self._is_closed = False
        disown_after_fork(self)

    @property
    def n_ctx(self) -> int:
        """Number of positions one request can take, answer included."""
        return self.context.n_ctx

    @property
    def n_parallel(self) -> int:
        """Number of requests that run at once; more wait for one of them to end."""
        return self.context.n_parallel

    @property
    def n_candidates(self) -> int:
        """Number of answers to one question that are written at once."""
        return self.context.n_sequences - self.context.n_parallel + 1

    def submit(
        self,
        prompt: Sequence[Span],
        sampling: SamplingParams,
        on_tiles: TileProgress | None = None,
        *,
        evicts: bool = True,
        top_logprobs: int | None = None,
        logprobs_between: tuple[int, int] | None = None,
        grammar: str | None = None,
        thought: ThoughtBounds | None = None,
        candidates_of: int | None = None,
        tells_certainty: bool = False,
    ) -> Handle:
        """Ask for an answer.

        Args:
            prompt: the whole prompt.
            sampling: how the tokens of the answer are chosen.
            on_tiles: called with the progress of encoding the prompt's tiles, in whichever thread works at that moment.
            evicts: whether the embeddings of its tiles may displace others on disk; False for a question of a batch.
            top_logprobs: how many of the likeliest tokens are told at the place of each token of the answer
                (`Handle.logprobs`); 0 tells only how likely each token was, None nothing.
            logprobs_between: two tokens between which it is told how likely each token was, with NaN as the logprob of
                all others. With `top_logprobs` it has no effect: they tell it of all.
            grammar: what the answer has to match, in Lark's or JSON's form of llguidance. One that is no grammar ends
                the answer in an InvalidRequestError before anything is computed.
            thought: how the thought ends that the prompt has opened; the grammar begins behind it.
            candidates_of: a number of the question that this is one of several answers to (`engine.candidates`): its
                prompt is read once, `n_candidates` of its answers are written at once, and all together take the room
                of one. Requests of one number have one prompt; None for a question of one answer.
            tells_certainty: whether `Handle.logprobs` tells of each token how likely it was and how sure the model was
                (`TokenLogprobs.certainty`).

        Raises:
            ValueError: the prompt does not fit, is empty or ends in a picture; callers check before.
            SessionStateError: the engine is closed.
        """
        self._check_open()
        request = AnswerRequest(
            prompt,
            self.n_ctx,
            on_tiles,
            sampling,
            drafts=self.context.n_draft > 0,
            evicts=evicts,
            top_logprobs=top_logprobs,
            logprobs_between=logprobs_between,
            constraint=None if grammar is None else self._constraints.compile(grammar),
            thought=thought,
            tells_certainty=tells_certainty,
        )
        request.candidates_of = candidates_of
        self._add(request)
        return Handle(request, self.work_until, lambda: self.cancel(request))

    def submit_logits(self, prompt: Sequence[Span], on_tiles: TileProgress | None = None) -> LogitsHandle:
        """Ask for the logits of the token after the prompt. Arguments and errors are those of `submit`."""
        request = LogitsRequest(prompt, self.n_ctx, on_tiles)
        self._add(request)
        return LogitsHandle(request, self.work_until, lambda: self.cancel(request))

    def submit_scores(
        self,
        prompt: Sequence[Span],
        n_scored: int,
        on_row: Callable[[int, NDArray[np.float32]], None],
        on_tiles: TileProgress | None = None,
    ) -> ScoreHandle:
        """Ask for the logits after each of the last positions of a prompt.

        One computation gives as many rows as the context has outputs: n_draft + 1 if nothing else runs.

        Args:
            prompt: the whole prompt; to score the tokens of an answer, followed by the answer without its last token.
            n_scored: number of last positions to score, all of them text.
            on_row: called with 0, 1, ... and the logits after each position, float32 [n_vocab], in whichever thread
                works at that moment. They are the library's memory, valid during the call. An exception in it ends the
                request.
            on_tiles: as in `submit`.

        Raises:
            ValueError: as in `submit`, or the prompt ends in fewer positions of text than are to be scored.
            SessionStateError: the engine is closed.
        """
        request = ScoreRequest(prompt, self.n_ctx, on_tiles, n_scored, on_row)
        self._add(request)
        return ScoreHandle(request, self.work_until, lambda: self.cancel(request))

    def embed(
        self,
        tiles: Sequence[Tile],
        on_tiles: TileProgress | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[NDArray[np.float32]]:
        """Return the embeddings of tiles, float32 [tokens_per_tile, n_embd] each; only unknown ones are encoded.

        Requests go on between the batches.

        Args:
            on_tiles: as in `submit`.
            is_cancelled: called before each batch.

        Raises:
            SessionStateError: it was cancelled, or the engine is closed.
        """
        run: TileRun | None = None
        report = RequestReport()

        def encode() -> None:
            nonlocal run
            self._check_open()
            run = run or self._make_tile_run(tiles)
            run.encode_batch(report, on_tiles)

        while run is None or not run.is_complete:
            if is_cancelled():
                raise cancelled_error()
            self._step_lock.work_once(encode)
        return run.embeddings(tiles)

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Work for all requests, or wait while another thread does, until `is_done`, asked after each step, is true."""
        self._step_lock.work_until(is_done, self._scheduler.step)

    def cancel(self, request: Request) -> None:
        """Cancel a request; callable from any thread.

        If no thread works at this moment, the request ends at once. Otherwise the native call under way is aborted, the
        thread that works ends the request, and the work that the call did for other requests is done again.
        """
        request.is_cancelled = True
        if request.ending is not None or self._step_lock.try_work(self._scheduler.end_cancelled):
            return
        if request.is_admitted:
            self.context.abort()

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """Return spans and KV of the sequence that holds most of a prompt; None if no sequence holds any of it.

        Raises:
            LibraryError: llama.cpp refused.
        """
        found: list[tuple[list[Span], NDArray[np.uint8]] | None] = []
        self._step_lock.work_once(lambda: found.append(self._scheduler.sequences.export(prompt)))
        return found[0]

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """Restore exported KV: a prompt that begins with these spans computes only what follows them.

        Raises:
            LibraryError: llama.cpp refused; nothing is lost.
            SessionStateError: requests run on all sequences.
        """
        self._step_lock.work_once(lambda: self._scheduler.sequences.restore(spans, kv))

    def keep_embeddings(self) -> None:
        """Wait until the embeddings of all tiles encoded so far are where other models find them: on disk."""
        pending: list[Future[None]] = []
        self._step_lock.work_once(lambda: pending.extend(self.cache.unwritten))
        wait(pending)

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every ledger agrees with llama.cpp's view of its sequence."""
        self._step_lock.work_once(self._scheduler.sequences.check_integrity)

    def forget(self) -> None:
        """Empty the KV cache; running requests read their prompts again."""
        self._step_lock.work_once(self._scheduler.forget)

    def close(self) -> None:
        """End all requests; model, encoder and context can be freed then. Closing twice is harmless."""
        self._step_lock.work_once(self._end_all)

    def close_if_idle(self) -> bool:
        """Close the engine unless a thread works at this moment; return whether it is closed."""
        return self._step_lock.try_work(self._end_all)

    def disown(self) -> None:
        """See `Owned.disown`."""
        self._step_lock = InheritedStepLock()

    def _end_all(self) -> None:
        self._is_closed = True
        self._scheduler.end_all(closed())
        self._constraints.close()

    def _add(self, request: Request) -> None:
        self._check_open()
        self._scheduler.add(request)

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed()
