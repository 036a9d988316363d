"""What of an answer is compared, and when two answers are equal."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

from internvl_gguf.judging.final_answer import final_answer, names_answer
from internvl_gguf.judging.judge import JudgedQuestion
from internvl_gguf.judging.normalise import caseless, normalised, one_number
from internvl_gguf.judging.options import named_option, options_of
from internvl_gguf.judging.same_boxes import are_same_boxes
from internvl_gguf.types import Box, Reply, ToolCall, plain

KeyKind = Literal["value", "calls", "boxes", "option", "text", "long text"]


@dataclass(frozen=True)
class AnswerKey:
    """What is compared of an answer.

    Attributes:
        kind: what it is: a value of a form, calls of tools, boxes, an option of the question, a final answer, or the
            whole of a long text that names none.
        value: that in one spelling; of boxes, the boxes.
    """

    kind: KeyKind
    value: Hashable

    def is_same(self, other: AnswerKey) -> bool:
        """Return whether two answers are equal. Of boxes this is not transitive: they need only lie near each other."""
        if self.kind == "boxes" and other.kind == "boxes":
            return are_same_boxes(_boxes(self), _boxes(other))
        return self == other


def answer_key(question: JudgedQuestion, reply: Reply) -> AnswerKey | None:
    """Return what of an answer is compared; None if it has nothing that could be.

    With a form it is the value; of tools, names and arguments of the calls; of an answer with boxes the boxes, unless
    it names a final answer; else the final answer. A long text that names none is compared as a whole.
    """
    if reply.tool_calls:
        return AnswerKey("calls", tuple(sorted(map(_call, reply.tool_calls), key=repr)))
    form = question.format
    if form is not None and form.kind == "tools":
        form = form.otherwise
    if form is not None and form.kind in ("schema", "choices"):
        return _value_key(reply, is_exact=form.kind == "choices")
    if reply.boxes and not names_answer(reply.text):
        return AnswerKey("boxes", reply.boxes)
    if form is not None and form.kind == "boxes":
        return None
    if form is not None:  # a grammar or a regular expression: the whole text is the answer
        return _text_key(reply.text)
    text = final_answer(reply.text)
    if text is None and reply.text.strip():
        return AnswerKey("long text", caseless(reply.text))
    letter = named_option(text, options_of(question.prompt)) if text is not None else None
    return AnswerKey("option", letter) if letter is not None else _text_key(text)


def _value_key(reply: Reply, *, is_exact: bool) -> AnswerKey | None:
    if reply.parsed is None:  # none was read, unless the value itself is null
        return AnswerKey("value", ("null",)) if reply.text.strip() == "null" else None
    try:
        return AnswerKey("value", _frozen(plain(reply.parsed), is_exact=is_exact))
    except (TypeError, ValueError, RecursionError):  # an instance of a type that cannot be written as JSON
        return AnswerKey("value", caseless(reply.text))


def _text_key(text: str | None) -> AnswerKey | None:
    value = normalised(text or "")
    return AnswerKey("text", value) if value != "" else None


def _call(call: ToolCall) -> Hashable:
    return call.name, _frozen(call.arguments)


def _boxes(key: AnswerKey) -> tuple[Box, ...]:
    assert isinstance(key.value, tuple)
    return key.value


def _frozen(value: Any, *, is_exact: bool = False) -> Hashable:
    """Return a value of JSON so that equal ones are equal: the order of keys and the last digits do not count.

    Args:
        value: the value.
        is_exact: whether letter case and spaces of texts count.
    """
    if value is None or isinstance(value, bool):  # True is 1 to Python
        return ("null",) if value is None else ("boolean", value)
    if isinstance(value, int | float):
        return ("number", one_number(value) if math.isfinite(value) else str(value))
    if isinstance(value, dict):
        return ("object", frozenset((key, _frozen(each, is_exact=is_exact)) for key, each in value.items()))
    if isinstance(value, list | tuple):
        return ("array", tuple(_frozen(each, is_exact=is_exact) for each in value))
    return ("text", str(value) if is_exact else caseless(str(value)))
