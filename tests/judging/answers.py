"""Candidates with given answers, for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from internvl_gguf.judging import Candidate, JudgedQuestion
from internvl_gguf.types import Box, FinishReason, Reply, Timings, ToolCall, Usage

FREE = JudgedQuestion("How many are there?")


def reply(
    text: str = "",
    *,
    reason: FinishReason = "stop",
    parsed: Any = None,
    boxes: tuple[Box, ...] = (),
    calls: tuple[ToolCall, ...] = (),
) -> Reply:
    usage, timings = Usage(1, 0, 1, 0, 0, 0), Timings(0, 0, 0, 0, 0, 0)
    return Reply(text, reason, usage, timings, boxes=boxes, parsed=parsed, tool_calls=calls)


def candidates(*answers: str | Reply, logprobs: Sequence[float | None] | None = None) -> list[Candidate]:
    """Return candidates with these answers, in order; they are equally confident unless something else is given."""
    replies = [reply(each) if isinstance(each, str) else each for each in answers]
    return [Candidate(index, each, logprob=logprobs[index] if logprobs else -0.1) for index, each in enumerate(replies)]


def box(label: str, *thousandths: int, image: int = 0) -> Box:
    left, top, right, bottom = thousandths
    return Box(label, image, (left, top, right, bottom), (left, top, right, bottom))
