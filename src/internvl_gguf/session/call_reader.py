"""The calls of tools in an answer under way, as pieces of it."""

from __future__ import annotations

from dataclasses import dataclass

from internvl_gguf.structured.tool_stream import ArgumentsPiece, CallBegun, CallEnded, TextPiece, ToolEvent, ToolStream
from internvl_gguf.types import ToolCall, ToolCallDelta


@dataclass(frozen=True)
class AnswerPiece:
    """A new piece of an answer: of its thought, of its text, or of a call."""

    text: str = ""
    thinking: str = ""
    call: ToolCallDelta | None = None


class CallReader:
    """Reads an answer that may call tools.

    Attributes:
        calls: the calls that are whole.
    """

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self._stream = ToolStream()

    @property
    def is_inside(self) -> bool:
        """Whether a call has begun and not ended."""
        return self._stream.is_inside_call

    def feed(self, text: str) -> list[AnswerPiece]:
        """Take more of the answer, and return what is new."""
        return [piece for event in self._stream.feed(text) for piece in self._pieces(event)]

    def finish(self) -> list[AnswerPiece]:
        """Take the end of the answer, and return what was held back. A call that was cut off is none."""
        return [piece for event in self._stream.finish() for piece in self._pieces(event)]

    def _pieces(self, event: ToolEvent) -> list[AnswerPiece]:
        match event:
            case TextPiece(text):
                return [AnswerPiece(text)]
            case CallBegun(index, call_id, name):
                return [AnswerPiece(call=ToolCallDelta(index, call_id, name))]
            case ArgumentsPiece(index, text):
                return [AnswerPiece(call=ToolCallDelta(index, arguments=text))]
            case CallEnded(_, call) if call is not None:
                self.calls.append(call)
        return []
