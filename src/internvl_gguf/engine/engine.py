"""What callers see of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from internvl_gguf.config import SamplingParams
from internvl_gguf.engine.embedding_cache import EmbeddingCache
from internvl_gguf.engine.free_cores import CoreWatch
from internvl_gguf.engine.handle import Handle, LogitsHandle, ScoreHandle, stopped
from internvl_gguf.engine.request import AnswerRequest, LogitsRequest, Request, ScoreRequest
from internvl_gguf.engine.scheduler import Scheduler
from internvl_gguf.engine.tile_run import Report, TileProgress, TileRun
from internvl_gguf.engine.turns import NoTurns, Turns
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.model import TextModel
from internvl_gguf.llama.native import closed
from internvl_gguf.llama.vision import VisionEncoder
from internvl_gguf.types import Span, Tile
from internvl_gguf.utils.owned import Owned, forsake_in_children

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Engine(Owned):
    """Runs requests on one text model and its vision encoder, as many at once as the context has sequences.

    Args:
        model, vision, context: open native objects; the caller closes them after the engine. Without a vision encoder
            the engine takes text only.
        cache: embeddings by tile.
        cores: tells how many cores other programs leave; without it all threads compute whatever others do.

    Any thread may use it. Nothing is computed before somebody waits for something; then everything that was submitted
    is.
    """

    def __init__(
        self,
        model: TextModel,
        vision: VisionEncoder | None,
        context: Context,
        cache: EmbeddingCache,
        cores: CoreWatch | None = None,
    ) -> None:
        self.model = model
        self.vision = vision
        self.context = context
        self.cache = cache
        self._turns = Turns()
        # No part refers to the engine: it goes, and all with it, as soon as nobody holds it.
        self._find_tiles = partial(TileRun, vision=vision, cache=cache)
        self._scheduler = Scheduler(model, context, self._find_tiles, cores)
        self._is_closed = False
        forsake_in_children(self)

    @property
    def n_ctx(self) -> int:
        """Positions one request can take, its answer included."""
        return self.context.n_ctx

    @property
    def n_parallel(self) -> int:
        """Requests that run at once; more wait for one of them to end."""
        return self.context.n_sequences

    def submit(self, prompt: Sequence[Span], sampling: SamplingParams, on_tiles: TileProgress | None = None) -> Handle:
        """Ask for an answer.

        Args:
            prompt: all of the prompt.
            sampling: how its tokens are chosen.
            on_tiles: told how far the prompt's tiles are encoded, in whichever thread works at that moment.

        Raises:
            ValueError: the prompt does not fit, is empty or ends in a picture; callers check before.
            SessionStateError: the engine is closed.
        """
        request = AnswerRequest(prompt, self.n_ctx, on_tiles, sampling, drafts=self.context.n_draft > 0)
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

        As many rows come from one computation as the context has: its n_draft + 1 where nothing else runs.

        Args:
            prompt: all of it; to score the tokens of an answer, with the answer but for its last token.
            n_scored: how many of its last positions, all of them text.
            on_row: called with 0, 1, ... and the logits after each position, float32 [n_vocab], in whichever thread
                works at that moment. They are the library's memory, valid during the call. What it raises ends the
                request.
            on_tiles: as in `submit`.

        Raises:
            ValueError: as `submit`, or fewer positions of text than are to be scored.
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
        """Embeddings of tiles, float32 [tokens_per_tile, n_embd] each, encoding only what is not known.

        Requests go on between the batches.

        Args:
            on_tiles: as in `submit`.
            is_cancelled: asked before each batch.

        Raises:
            SessionStateError: it was cancelled, or the engine is closed.
        """
        run: TileRun | None = None
        report = Report()

        def encode() -> None:
            nonlocal run
            self._check_open()
            run = run or self._find_tiles(tiles)
            run.encode_batch(report, on_tiles)

        while run is None or not run.is_complete:
            if is_cancelled():
                raise stopped()
            self._turns.work_once(encode)
        return run.embeddings(tiles)

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Work for all requests, or wait while another thread does, until `is_done`, which is asked after each step."""
        self._turns.work_until(is_done, self._scheduler.step)

    def cancel(self, request: Request) -> None:
        """Nobody wants a request any more; from any thread.

        It is let go at once, or by the thread that works at this moment, after the native call it is in: that is told
        to end early, and what it had done for others is done again.
        """
        request.is_cancelled = True
        if request.ending is None and not self._turns.try_work(self._scheduler.end_cancelled) and request.is_admitted:
            self.context.abort()

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """The KV of the sequence that knows most of a prompt, with what it holds; None where nothing of it is known.

        Raises:
            LibraryError: llama.cpp refused.
        """
        found: list[tuple[list[Span], NDArray[np.uint8]] | None] = []
        self._turns.work_once(lambda: found.append(self._scheduler.sequences.export(prompt)))
        return found[0]

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """Take up exported KV: a prompt that begins with these spans computes only what follows them.

        Raises:
            LibraryError: llama.cpp refused; nothing is lost.
            SessionStateError: requests run on all sequences.
        """
        self._turns.work_once(lambda: self._scheduler.sequences.restore(spans, kv))

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every ledger agrees with llama.cpp's view of its sequence."""
        self._turns.work_once(self._scheduler.sequences.check_integrity)

    def forget(self) -> None:
        """Empty the KV cache; requests that run read their prompts again."""
        self._turns.work_once(self._scheduler.forget)

    def close(self) -> None:
        """End all requests. What the engine runs on can be freed then. Closing twice is harmless."""
        self._turns.work_once(self._end_all)

    def close_if_idle(self) -> bool:
        """As `close`, unless a thread works at this moment; whether it is closed."""
        return self._turns.try_work(self._end_all)

    def forsake(self) -> None:
        """As `Owned.forsake`."""
        self._turns = NoTurns()

    def _end_all(self) -> None:
        self._is_closed = True
        self._scheduler.end_all(closed())

    def _add(self, request: Request) -> None:
        self._check_open()
        self._scheduler.add(request)

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed()
