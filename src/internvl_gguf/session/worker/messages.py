"""What is said between a session and the process of its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from internvl_gguf.types import Span, Tile, TileSpan

if TYPE_CHECKING:
    from internvl_gguf.config import EngineConfig, SamplingParams
    from internvl_gguf.engine import Report
    from internvl_gguf.gguf.validation import MmprojFacts, TextModelFacts
    from internvl_gguf.hardware.cpu_tuning import HostSettings
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.planning.planner import Configuration
    from internvl_gguf.types import FinishReason


def without_pixels(spans: Sequence[Span]) -> list[Span]:
    """Spans as they are sent: the pixels of their tiles are asked for when they are encoded."""
    return [TileSpan(Tile(span.tile.key, b""), span.length) if isinstance(span, TileSpan) else span for span in spans]


# To the process.


@dataclass(frozen=True)
class Load:
    """The first message: which model, and how it is run.

    Attributes:
        log_level: records of this package's log below it are not sent.
    """

    files: ModelFiles
    config: EngineConfig
    log_level: int


class SubmitAnswer(NamedTuple):
    """A prompt to be answered."""

    request: int
    spans: Sequence[Span]
    sampling: SamplingParams


class SubmitLogits(NamedTuple):
    """A prompt of which the logits of the next token are wanted."""

    request: int
    spans: Sequence[Span]


class SubmitTiles(NamedTuple):
    """Tiles of which the embeddings are wanted, by their keys."""

    request: int
    keys: Sequence[bytes]


class Cancel(NamedTuple):
    """Nobody wants a request any more."""

    request: int


class Call(NamedTuple):
    """A method of `serving.Calls`, or of `serving.QuickCalls`, which are answered while the engine works."""

    request: int
    method: str
    arguments: tuple[Any, ...]


class Pixels(NamedTuple):
    """The pixels of a tile that was asked for; None where nobody knows them any more."""

    key: bytes
    pixels: bytes | None


class Close(NamedTuple):
    """Free the model, write what is to be on disk, and end."""


# From the process.


@dataclass(frozen=True)
class Facts:
    """A model that is loaded; the attributes are those of `session.runtime.Runtime` and of its engine.

    Attributes:
        tokens_in_all: tokens of the vocabulary.
    """

    text: TextModelFacts
    vision: MmprojFacts
    control_tokens: Mapping[str, int]
    configuration: Configuration
    host: HostSettings
    encoder_identity: bytes
    n_ctx: int
    n_parallel: int
    tokens_in_all: int


class Loading(NamedTuple):
    """The fraction of the text model that is loaded."""

    done: float


class Loaded(NamedTuple):
    """The model is there."""

    facts: Facts


class NotLoaded(NamedTuple):
    """Why it cannot be."""

    error: Exception


class Noted(NamedTuple):
    """A line for people."""

    line: str


class Logged(NamedTuple):
    """A record of the log."""

    logger: str
    level: int
    line: str


class News(NamedTuple):
    """What came of a request since it was last told of.

    Attributes:
        tokens: new tokens of the answer.
        pieces: their UTF-8 bytes.
        times: time.perf_counter() of each, which both processes read from one clock.
        report: what it took so far; None where that is what it was.
        ending: why it is over, or the error that ended it; None while it goes on.
        result: logits, embeddings, or what a call gave, with the ending.
    """

    request: int
    tokens: Sequence[int] = ()
    pieces: Sequence[bytes] = ()
    times: Sequence[float] = ()
    report: Report | None = None
    ending: FinishReason | Exception | None = None
    result: Any = None


class TilesDone(NamedTuple):
    """How far the tiles of a request are encoded."""

    request: int
    done: int
    total: int


class WantPixels(NamedTuple):
    """Tiles that are going to be encoded."""

    keys: Sequence[bytes]


class Alive(NamedTuple):
    """Something was computed since the last sign of life."""
