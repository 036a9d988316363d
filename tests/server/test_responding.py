"""Streams: when they begin, what is sent in silence, and how an error ends them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from internvl_gguf.server import responding
from internvl_gguf.server.answer_events import Delta
from internvl_gguf.server.answer_pump import tile_counts
from internvl_gguf.server.answering import AnswerEvent, Progress
from internvl_gguf.server.api_errors import RefusedRequestError, openai_body
from internvl_gguf.server.responding import EventStream, Frame, Outcome
from internvl_gguf.types import Span, Tile, TileSpan, TokenSpan

Events = Callable[[], AsyncGenerator[AnswerEvent]]


def frames(event: AnswerEvent) -> list[Frame]:
    if isinstance(event, Progress):
        return [Frame({"progress": event.phase, "done": event.done})]
    assert isinstance(event, Delta)
    return [Frame({"text": event.text})]


def sent(events: Events, *, tells_progress: bool = False) -> tuple[list[Any], list[int]]:
    """What the application sends of a stream to a client that stays, and the outcome."""
    messages: list[Any] = []
    statuses: list[int] = []

    async def run() -> None:
        stays = asyncio.Event()

        async def receive() -> Any:
            await stays.wait()

        async def send(message: Any) -> None:
            messages.append(message)

        outcome = Outcome(statuses.append, lambda: None)
        stream = EventStream(events(), frames, openai_body, None, outcome, tells_progress=tells_progress)
        await stream({"type": "http"}, receive, send)

    asyncio.run(run())
    return messages, statuses


def body(messages: list[Any]) -> str:
    return b"".join(message.get("body", b"") for message in messages).decode()


def refused() -> RefusedRequestError:
    return RefusedRequestError("It is wrong.", "Mend it.", code="wrong")


def test_an_error_before_the_first_event_has_a_status() -> None:
    async def events() -> AsyncGenerator[AnswerEvent]:
        yield Progress("loading", 5, 100)
        yield Progress("encoding", 0, 3)
        raise refused()

    messages, statuses = sent(events)
    assert messages[0]["status"] == 400
    assert json.loads(body(messages))["error"]["code"] == "wrong"
    assert statuses == [400]


def test_an_error_later_is_an_event_and_the_last_one() -> None:
    async def events() -> AsyncGenerator[AnswerEvent]:
        yield Delta(0, "Hello")
        raise refused()

    messages, statuses = sent(events)
    assert messages[0]["status"] == 200
    *_, last = body(messages).strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "wrong"
    assert statuses == [400]


@pytest.mark.parametrize("tells_progress", [True, False])
def test_a_stream_begins_in_time_however_much_progress_there_is(
    monkeypatch: pytest.MonkeyPatch, tells_progress: bool
) -> None:
    """Each tile that was encoded began the wait anew: a client saw no byte before the first token."""
    monkeypatch.setattr(responding, "_BEGIN_SECONDS", 0.05)
    pictures = 0

    async def events() -> AsyncGenerator[AnswerEvent]:
        nonlocal pictures
        while not begun.is_set():
            pictures += 1
            yield Progress("loading", pictures, 1000)
            await asyncio.sleep(0.01)
        yield Delta(0, "Hello")

    class Begun:
        """Set by the first message of the response."""

        def __init__(self) -> None:
            self._is_set = False

        def is_set(self) -> bool:
            return self._is_set or pictures > 500

    begun = Begun()
    send_start = EventStream._begin

    async def begin(self: EventStream, send: Any) -> None:
        begun._is_set = True
        await send_start(self, send)

    monkeypatch.setattr(EventStream, "_begin", begin)
    messages, _ = sent(events, tells_progress=tells_progress)
    assert pictures < 500
    first = body(messages).split("\n\n")[0]
    assert first.startswith('data: {"progress": "loading"' if tells_progress else ": loading ")


def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responding, "_BEGIN_SECONDS", 0.01)
    monkeypatch.setattr(responding, "PING_SECONDS", 0.01)

    async def events() -> AsyncGenerator[AnswerEvent]:
        yield Progress("encoding", 1, 13)
        await asyncio.sleep(0.2)
        yield Delta(0, "Hello")

    text = body(sent(events)[0])
    assert text.count(": encoding 1/13\n\n") >= 2
    assert text.endswith('data: {"text": "Hello"}\n\n')


def test_characters_that_some_clients_take_for_line_ends_are_escaped() -> None:
    data = Frame({"text": "a\u2028b\u2029c\x85d\ne"}).encoded().decode()
    assert len(data.splitlines()) == 2
    assert json.loads(data.removeprefix("data: ")) == {"text": "a\u2028b\u2029c\x85d\ne"}


def spans(*lengths: int) -> list[Span]:
    """Text of so many tokens; for a negative number, so many tiles of ten."""
    found: list[Span] = []
    for length in lengths:
        if length > 0:
            found.append(TokenSpan((1,) * length))
        else:
            found += [TileSpan(Tile(bytes([number]), b""), 10) for number in range(-length)]
    return found


@pytest.mark.parametrize(
    ("cached", "read", "counts"),
    [
        (0, 5, (3, 5)),  # the first picture is encoded
        (0, 15, (3, 5)),  # and its first tile is read meanwhile
        (0, 42, (5, 5)),  # the second one
        (35, 42, (2, 2)),  # the first was known
        (0, 0, (0, 5)),
    ],
)
def test_tiles_are_counted_over_all_pictures(cached: int, read: int, counts: tuple[int, int]) -> None:
    assert tile_counts(spans(5, -3, 7, -2, 4), cached, read) == counts
