"""The messages between a batch and its workers, on a `session.worker.channel.Channel`.

A worker ends when it gets `session.worker.messages.Close`, as soon as it has answered what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from internvl_gguf.bulk.answerer import Answering, LoadedFacts, PlacedLine
from internvl_gguf.errors import InternVLError
from internvl_gguf.types import Reply

if TYPE_CHECKING:
    from internvl_gguf.bulk.layout import Layout, Workers

# To a worker.


class Start(NamedTuple):
    """The first message: load a model, and answer lines.

    Attributes:
        answering: how they are answered.
        log_level: lowest level of log records that are sent back.
    """

    answering: Answering
    log_level: int


class LayOut(NamedTuple):
    """The first message in place of `Start`: find out how workers share this machine, and end.

    Attributes:
        answering: how lines are answered.
        workers: how many workers are wanted.
        log_level: lowest level of log records that are sent back.
    """

    answering: Answering
    workers: Workers
    log_level: int


class Lines(NamedTuple):
    """Lines to be answered."""

    lines: tuple[PlacedLine, ...]


class WantBack(NamedTuple):
    """Give these lines back, by their places, unless they have begun."""

    places: tuple[int, ...]


# From a worker.


class LaidOut(NamedTuple):
    """How workers share this machine."""

    layout: Layout


class Loading(NamedTuple):
    """The fraction of the model that is loaded."""

    done: float


class CriticLoading(NamedTuple):
    """The fraction of the critic that is loaded."""

    done: float


class Ready(NamedTuple):
    """The model is loaded."""

    facts: LoadedFacts


class Failed(NamedTuple):
    """The worker ends with this error."""

    error: InternVLError


class LineAnswered(NamedTuple):
    """The outcome of a line; the attributes are those of `Answered`."""

    place: int
    outcome: Reply | InternVLError
    is_bound: bool


class GivenBack(NamedTuple):
    """What became of lines that were wanted back.

    Attributes:
        given: places of those that will not be answered here.
        kept: places of those that have begun or have ended.
    """

    given: tuple[int, ...]
    kept: tuple[int, ...]
