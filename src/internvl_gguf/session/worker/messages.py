"""The messages between a session and its worker process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from internvl_gguf.types import Span, Tile, TileSpan, TokenLogprobs

if TYPE_CHECKING:
    from internvl_gguf.config import EngineConfig, PictureOptions, SamplingParams
    from internvl_gguf.engine import RequestReport
    from internvl_gguf.engine.thought import ThoughtBounds
    from internvl_gguf.gguf.validation import MmprojFacts, TextModelFacts
    from internvl_gguf.hardware.cpu_tuning import HostSettings
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.planning.planner import Configuration
    from internvl_gguf.types import FinishReason


def without_pixels(spans: Sequence[Span]) -> list[Span]:
    """Return spans as they are sent: the worker requests the pixels of a tile when it encodes it."""
    return [TileSpan(Tile(span.tile.key, b""), span.length) if isinstance(span, TileSpan) else span for span in spans]


# To the process.


@dataclass(frozen=True)
class Load:
    """The first message: load this model.

    Attributes:
        log_level: lowest level of log records that are sent back.
    """

    files: ModelFiles
    config: EngineConfig
    pictures: PictureOptions
    log_level: int


class SubmitAnswer(NamedTuple):
    """Request an answer to a prompt."""

    request: int
    spans: Sequence[Span]
    sampling: SamplingParams
    evicts: bool
    top_logprobs: int | None
    logprobs_between: tuple[int, int] | None
    grammar: str | None
    thought: ThoughtBounds | None
    candidates_of: int | None
    tells_certainty: bool


class SubmitLogits(NamedTuple):
    """Request the logits of the token after a prompt."""

    request: int
    spans: Sequence[Span]


class SubmitTiles(NamedTuple):
    """Request the embeddings of tiles, by their keys."""

    request: int
    keys: Sequence[bytes]


class Cancel(NamedTuple):
    """Cancel a request."""

    request: int


class Call(NamedTuple):
    """Call a method of `serving.EngineCalls`, or of `serving.ImmediateCalls`, which run while the engine works."""

    request: int
    method: str
    arguments: tuple[Any, ...]


class TilePixels(NamedTuple):
    """The pixels of a requested tile; None if no request with this tile is under way any more."""

    key: bytes
    pixels: bytes | None


class Close(NamedTuple):
    """Free the model, finish pending writes, and end."""


# From the process.


@dataclass(frozen=True)
class ModelFacts:
    """Facts about the loaded model; the attributes are those of `InProcessRuntime` and of its engine.

    Attributes:
        n_vocab: number of tokens of the vocabulary.
    """

    text: TextModelFacts
    vision: MmprojFacts
    control_tokens: Mapping[str, int]
    configuration: Configuration
    host: HostSettings
    encoder_identity: bytes
    n_ctx: int
    n_parallel: int
    n_candidates: int
    n_vocab: int


class Loading(NamedTuple):
    """The fraction of the text model that is loaded."""

    done: float


class Loaded(NamedTuple):
    """The model is loaded."""

    facts: ModelFacts


class NotLoaded(NamedTuple):
    """The model cannot be loaded."""

    error: Exception


class NoticeLine(NamedTuple):
    """A notice for the user."""

    line: str


class LogLine(NamedTuple):
    """A log record."""

    logger: str
    level: int
    line: str


class RequestUpdate(NamedTuple):
    """Progress of a request since the last update.

    Attributes:
        tokens: new tokens of the answer.
        pieces: their UTF-8 bytes.
        times: time.perf_counter() of each; both processes read the same clock.
        logprobs: how likely each was, if that was asked for.
        report: counters and times so far; None if unchanged.
        ending: its finish reason, or the error that ended it; None while it goes on.
        result: logits, embeddings, or the return value of a call; sent with the ending.
    """

    request: int
    tokens: Sequence[int] = ()
    pieces: Sequence[bytes] = ()
    times: Sequence[float] = ()
    logprobs: Sequence[TokenLogprobs] = ()
    report: RequestReport | None = None
    ending: FinishReason | Exception | None = None
    result: Any = None


class TilesEncoded(NamedTuple):
    """Progress of encoding the tiles of a request."""

    request: int
    done: int
    total: int


class PixelsWanted(NamedTuple):
    """Request the pixels of tiles that will be encoded."""

    keys: Sequence[bytes]


class Heartbeat(NamedTuple):
    """Something was computed since the last heartbeat."""
