"""Calls of tools in an answer while it is being written: pieces of text in, events out.

An answer is text, then calls, in the frame that Qwen2.5 learnt and `tool_format` binds it to, letter by letter:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>

So no JSON is parsed before it is whole: the frame is known, and the end of the arguments is where their first brace
closes. What comes is the same however the text was cut into pieces.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from internvl_gguf.errors import InvalidAnswerError
from internvl_gguf.types import ToolCall

CALL_BEGINS: Final = "<tool_call>"
CALL_ENDS: Final = "</tool_call>"
BEFORE_NAME: Final = '\n{"name": "'
BEFORE_ARGUMENTS: Final = '", "arguments": '
AFTER_ARGUMENTS: Final = f"}}\n{CALL_ENDS}"
BETWEEN_CALLS: Final = f"\n{CALL_BEGINS}"

_IN_ARGUMENTS: Final = re.compile(r'["{}\[\]]')
_IN_STRING: Final = re.compile(r'["\\]')


@dataclass(frozen=True)
class TextPiece:
    """A piece of the text before the calls."""

    text: str


@dataclass(frozen=True)
class CallBegun:
    """A call whose tool is known."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ArgumentsPiece:
    """A piece of the JSON text of a call's arguments, as the model writes it."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnded:
    """The end of a call that begun; `call` is None if the answer was cut off inside it."""

    index: int
    call: ToolCall | None


ToolEvent = TextPiece | CallBegun | ArgumentsPiece | CallEnded


def new_call_id() -> str:
    """Return a name for a call that no other has."""
    return f"call_{uuid.uuid4().hex[:24]}"


class ToolStream:
    """Reads one answer, piece by piece.

    Args:
        new_id: makes the name of a call.
    """

    def __init__(self, new_id: Callable[[], str] = new_call_id) -> None:
        self._new_id = new_id
        self._read: Callable[[list[ToolEvent]], bool] = self._text
        self._waiting = ""  # what cannot be told yet
        self._index = -1
        self._begun: CallBegun | None = None
        self._arguments: list[str] = []
        self._depth = 0
        self._is_in_string = False
        self._is_finished = False
        self._has_calls = False

    @property
    def is_inside_call(self) -> bool:
        """Whether a call has begun, if only its first token, and not ended."""
        return self._has_calls and self._read != self._after_call

    def feed(self, piece: str) -> list[ToolEvent]:
        """Return what happened in the next piece of the answer, control tokens written out.

        Raises:
            InvalidAnswerError: the answer leaves the frame, which one that was bound to it does not.
        """
        self._waiting += piece
        events: list[ToolEvent] = []
        while self._read(events):
            pass
        return events

    def finish(self) -> list[ToolEvent]:
        """Return what is left at the end of the answer: text that was held back, or the end of a cut-off call."""
        events: list[ToolEvent] = []
        if self._is_finished:
            return events
        self._is_finished = True
        if self._read == self._text and self._waiting:
            events.append(TextPiece(self._waiting))
        elif self._begun is not None:
            events.append(CallEnded(self._index, None))
        self._waiting = ""
        return events

    def _text(self, events: list[ToolEvent]) -> bool:
        """Pass on text, but for what may be the beginning of a call, with the line end before it."""
        before, begins, after = self._waiting.partition(CALL_BEGINS)
        if begins:
            self._waiting = after
            before = before.removesuffix("\n")
            self._read = self._before_name
            self._has_calls = True
        else:
            held = _held_back(before)
            self._waiting = before[len(before) - held :]
            before = before[: len(before) - held]
        if before:
            events.append(TextPiece(before))
        return bool(begins)

    def _before_name(self, events: list[ToolEvent]) -> bool:
        return self._frame(BEFORE_NAME, self._name)

    def _name(self, events: list[ToolEvent]) -> bool:
        name, quote, after = self._waiting.partition('"')
        if not quote:
            return False
        self._waiting = quote + after
        self._index += 1
        self._begun = CallBegun(self._index, self._new_id(), name)
        events.append(self._begun)
        self._read = self._before_arguments
        return True

    def _before_arguments(self, events: list[ToolEvent]) -> bool:
        self._arguments = []
        self._depth = 0
        return self._frame(BEFORE_ARGUMENTS, self._in_arguments)

    def _in_arguments(self, events: list[ToolEvent]) -> bool:
        """Pass on the arguments up to where their first brace closes."""
        place = 0
        is_over = False
        text = self._waiting
        if text and not self._depth and text[0] != "{":
            raise _left_frame(text)
        while found := (_IN_STRING if self._is_in_string else _IN_ARGUMENTS).search(text, place):
            place = found.end()
            if found.group() == "\\":
                if place == len(text):
                    place -= 1
                    break
                place += 1
            elif found.group() == '"':
                self._is_in_string = not self._is_in_string
            else:
                self._depth += 1 if found.group() in "{[" else -1
                if not self._depth:
                    is_over = True
                    break
        else:
            place = len(text)
        self._waiting = text[place:]
        if place:
            self._arguments.append(text[:place])
            events.append(ArgumentsPiece(self._index, text[:place]))
        if is_over:
            self._read = self._after_arguments
        return is_over

    def _after_arguments(self, events: list[ToolEvent]) -> bool:
        if not self._frame(AFTER_ARGUMENTS, self._after_call):
            return False
        begun = self._begun
        assert begun is not None
        try:
            arguments = json.loads("".join(self._arguments))
        except (ValueError, RecursionError):
            raise _left_frame("".join(self._arguments)) from None
        events.append(CallEnded(begun.index, ToolCall(begun.id, begun.name, arguments, begun.index)))
        self._begun = None
        return True

    def _after_call(self, events: list[ToolEvent]) -> bool:
        return self._frame(BETWEEN_CALLS, self._before_name)

    def _frame(self, expected: str, following: Callable[[list[ToolEvent]], bool]) -> bool:
        """Go on behind a part of the frame once it is whole."""
        length = min(len(expected), len(self._waiting))
        if self._waiting[:length] != expected[:length]:
            raise _left_frame(self._waiting)
        if length < len(expected):
            return False
        self._waiting = self._waiting[length:]
        self._read = following
        return True


def parse_calls(text: str, new_id: Callable[[], str] = new_call_id) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the text before the calls of a finished answer, and the calls.

    Raises:
        InvalidAnswerError: the answer ends inside a call, or leaves the frame.
    """
    stream = ToolStream(new_id)
    events = stream.feed(text)
    if stream.is_inside_call:
        raise InvalidAnswerError("The answer ends inside a call of a tool.", "Give it more max_tokens.")
    events += stream.finish()
    before = "".join(event.text for event in events if isinstance(event, TextPiece))
    return before, tuple(event.call for event in events if isinstance(event, CallEnded) and event.call)


def _held_back(text: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a call."""
    most = min(len(text), len(BETWEEN_CALLS) - 1)
    for length in range(most, 0, -1):
        end = text[-length:]
        if BETWEEN_CALLS.startswith(end) or CALL_BEGINS.startswith(end):
            return length
    return 0


def _left_frame(text: str) -> InvalidAnswerError:
    from internvl_gguf.utils.safe_text import quoted

    return InvalidAnswerError(
        f"The answer has a call that is written wrongly: {quoted(text)}.", "Ask again, with tools given as tools=."
    )
