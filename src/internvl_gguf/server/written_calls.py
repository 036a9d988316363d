"""The calls of tools in an answer, their arguments word for word."""

from __future__ import annotations

from dataclasses import dataclass, field

from internvl_gguf.types import Reply, ToolCallDelta


@dataclass
class WrittenCall:
    """A call of a tool as an answer has it.

    Attributes:
        id: its name in the conversation.
        name: the tool's.
        arguments: JSON text as the model wrote it, as far as it has come.
    """

    id: str
    name: str
    arguments: str = ""


@dataclass
class WrittenCalls:
    """The calls of one answer, put together of their pieces."""

    begun: list[WrittenCall] = field(default_factory=list)

    def add(self, piece: ToolCallDelta) -> WrittenCall:
        """Take a piece, and return its call."""
        if piece.index == len(self.begun):
            self.begun.append(WrittenCall(piece.id, piece.name))
        call = self.begun[piece.index]
        call.arguments += piece.arguments
        return call

    def whole(self, reply: Reply) -> list[WrittenCall]:
        """Return the calls of a finished answer; one that was cut off is none."""
        return [self.begun[call.index] for call in reply.tool_calls]
