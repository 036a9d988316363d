"""What callers may ask of an engine, whether it runs in this process (`engine`) or in another (`worker`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from internvl_gguf.config import SamplingParams
    from internvl_gguf.engine.handle import Handle, LogitsHandle
    from internvl_gguf.engine.tile_run import TileProgress
    from internvl_gguf.types import Span, Tile


class Vocabulary(Protocol):
    """The tokens of a text model; see `llama.model.TextModel` for what each call does and raises."""

    @property
    def n_vocab(self) -> int:
        """Tokens there are."""
        ...

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text."""
        ...

    def piece(self, token: int) -> bytes:
        """The UTF-8 bytes of a token."""
        ...

    def is_end_of_generation(self, token: int) -> bool:
        """Whether a token ends an answer."""
        ...


class ModelEngine(Protocol):
    """Runs requests on one model; see `engine.engine.Engine` for what each call does and raises."""

    @property
    def model(self) -> Vocabulary:
        """The tokens of the text model."""
        ...

    @property
    def n_ctx(self) -> int:
        """Positions one request can take, its answer included."""
        ...

    @property
    def n_parallel(self) -> int:
        """Requests that run at once."""
        ...

    def submit(self, prompt: Sequence[Span], sampling: SamplingParams, on_tiles: TileProgress | None = None) -> Handle:
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
        """Embeddings of tiles, float32 [tokens_per_tile, n_embd] each."""
        ...

    def work_until(self, is_done: Callable[[], bool]) -> None:
        """Have all requests worked for until `is_done`."""
        ...

    def export(self, prompt: Sequence[Span]) -> tuple[list[Span], NDArray[np.uint8]] | None:
        """The KV of the sequence that knows most of a prompt, with what it holds; None where nothing is known."""
        ...

    def restore(self, spans: Sequence[Span], kv: NDArray[np.uint8]) -> None:
        """Take up exported KV."""
        ...

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every ledger agrees with llama.cpp's view of its sequence."""
        ...
