"""The protocol of an engine, whether it runs in this process (`engine`) or in another (`session.worker`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.config import SamplingParams
    from internvl_gguf.engine.handle import Handle, LogitsHandle
    from internvl_gguf.engine.thought import ThoughtBounds
    from internvl_gguf.engine.tile_run import TileProgress
    from internvl_gguf.types import Span, Tile


class Vocabulary(Protocol):
    """The tokens of a text model; see `llama.model.TextModel` for what each call does and raises."""

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        ...

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the token ids of plain text."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token."""
        ...

    def is_end_of_generation(self, token: int) -> bool:
        """Return whether a token ends an answer."""
        ...


class ModelEngine(Protocol):
    """Runs requests on one model; see `engine.engine.Engine` for what each call does and raises."""

    @property
    def model(self) -> Vocabulary:
        """The tokens of the text model."""
        ...

    @property
    def n_ctx(self) -> int:
        """Number of positions one request can take, answer included."""
        ...

    @property
    def n_parallel(self) -> int:
        """Number of requests that run at once."""
        ...

    @property
    def n_candidates(self) -> int:
        """Number of answers to one question that are written at once."""
        ...

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
        """Ask for an answer."""
        ...

    def submit_logits(self, prompt: Sequence[Span], on_tiles: TileProgress | None = None) -> LogitsHandle:
        """Ask for the logits of the token after the prompt."""
        ...

    def embed(
        self,
        tiles: Sequence[Tile],
        on_tiles: TileProgress | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> list[NDArray[np.float32]]:
        """Return the embeddings of tiles, float32 [tokens_per_tile, n_embd] each."""
        ...

    def keep_embeddings(self) -> None:
        """Wait until the embeddings of all tiles encoded so far are where other models find them."""
        ...

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Work for all requests, or wait while another thread does, until `is_done` is true."""
        ...

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """Return spans and KV of the sequence that holds most of a prompt; None if no sequence holds any of it."""
        ...

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """Put exported KV into a free sequence."""
        ...

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every ledger agrees with llama.cpp's view of its sequence."""
        ...
