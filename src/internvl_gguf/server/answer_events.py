"""What happens to a request that a model answers, as the threads of the model tell it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from internvl_gguf.types import Message, Reply, ToolCallDelta


@dataclass(frozen=True)
class TokenText:
    """A token of an answer with how likely it was.

    Attributes:
        piece: its UTF-8 bytes.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at its place, as bytes and logprobs.
    """

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True)
class Encoding:
    """Tiles whose embeddings are known, of all that follow what was known of the prompt."""

    done: int
    total: int


@dataclass(frozen=True)
class Reading:
    """Positions of the prompt that are read, of all."""

    done: int
    total: int


@dataclass(frozen=True)
class Answering:
    """Answers that have ended, of several of which the best are passed on."""

    done: int
    total: int


@dataclass(frozen=True)
class Delta:
    """A piece of an answer.

    Attributes:
        choice: number of the answer.
        text: its text, perhaps none.
        tokens: the tokens that it ends, if logprobs were asked for.
    """

    choice: int
    text: str
    tokens: tuple[TokenText, ...] = ()


@dataclass(frozen=True)
class ThoughtDelta:
    """A piece of the thought before an answer; it comes before all else of the answer."""

    choice: int
    text: str


@dataclass(frozen=True)
class CallDelta:
    """A piece of a call of a tool; it comes after all text of its answer."""

    choice: int
    call: ToolCallDelta


@dataclass(frozen=True)
class Finished:
    """The end of an answer.

    Attributes:
        choice: number of the answer.
        reply: the whole answer.
        message: the answer as a later prompt holds it.
        stop: the stop string that ended it; None for none.
    """

    choice: int
    reply: Reply
    message: Message
    stop: str | None


@dataclass(frozen=True)
class Failed:
    """An error that ended the request."""

    error: Exception


Event = Encoding | Reading | Answering | ThoughtDelta | Delta | CallDelta | Finished | Failed
Emit = Callable[[Event], None]
