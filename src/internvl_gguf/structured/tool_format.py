"""The form of an answer that may call tools: text, calls, or text and then calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Literal

from internvl_gguf.errors import InvalidAnswerError, InvalidRequestError
from internvl_gguf.structured.answer_format import AnswerFormat
from internvl_gguf.structured.constraint import WRITING, check_language
from internvl_gguf.structured.partial_constants import partial_reader
from internvl_gguf.structured.partial_json import partial_value
from internvl_gguf.structured.tool_stream import (
    AFTER_ARGUMENTS,
    BEFORE_ARGUMENTS,
    BEFORE_NAME,
    CALL_BEGINS,
    CALL_ENDS,
    ArgumentsPiece,
    CallBegun,
    CallEnded,
    TextPiece,
    ToolStream,
    parse_calls,
)
from internvl_gguf.structured.tools import Tool
from internvl_gguf.types import ToolCall
from internvl_gguf.utils.arguments import shown

ToolChoice = Literal["auto", "none", "required"] | str
"""Whether the answer may have calls, may have none, has one at least, or is a call of the tool of this name."""

GROUNDING: Final = ("<ref>", "</ref>", "<box>", "</box>")
"""Control tokens that the text of an answer may have: InternVL points at things with them."""
_MAX_BYTES: Final = 1024 * 1024


def tool_format(
    tools: Sequence[Tool],
    choice: ToolChoice = "auto",
    parallel: bool = True,
    *,
    otherwise: AnswerFormat | None = None,
    tokens: Collection[str] = (*GROUNDING, CALL_BEGINS, CALL_ENDS),
) -> AnswerFormat | None:
    """Return what an answer with tools is bound to; None if there are no tools.

    Its `parse` returns the text before the calls, and the calls.

    Args:
        tools: the tools, each with a name of its own.
        choice: "auto", "none", "required", or the name of the only tool to call.
        parallel: whether the answer may have several calls.
        otherwise: what an answer without calls is bound to, a schema; None for any text.
        tokens: those of `GROUNDING` and of the tags of a call that are single tokens of the model's vocabulary; a model
            without the others writes tags of a call in letters.

    Raises:
        InvalidRequestError: no tool has the name, the tools are too many to bind an answer to, or `otherwise` is no
            schema.
    """
    if otherwise is not None and otherwise.kind != "schema":
        raise InvalidRequestError(
            f"An answer with tools cannot be bound to {otherwise.kind}, too.", "Give a schema, or leave the tools out."
        )
    if choice not in ("auto", "none", "required"):
        tools = [tool for tool in tools if tool.name == choice]
        if not tools:
            raise InvalidRequestError(
                f"tool_choice is {shown(choice)}, which no tool is called.",
                "Give auto, none, required, or a tool's name.",
            )
    elif not tools:
        if choice == "required":
            raise InvalidRequestError(
                "tool_choice is required, and there are no tools.", "Give tools, or leave it out."
            )
        return None
    grammar = _grammar(tools, choice, parallel, otherwise, tokens)
    if len(grammar.encode()) > _MAX_BYTES:
        raise InvalidRequestError("The tools together are larger than 1 MiB.", "Give fewer, or shorter schemas.")
    check_language(grammar, "What the tools' calls are bound to", "Give fewer or simpler tools.", has_lines=False)

    def read(text: str) -> tuple[str, tuple[ToolCall, ...]]:
        return parse_calls(text)

    readers = {tool.name: partial_reader(tool.arguments_schema) for tool in tools}
    note = otherwise.note if otherwise else ""
    return AnswerFormat("tools", grammar, note, read, lambda text: partial_calls(text, readers), otherwise)


def partial_calls(
    text: str, readers: Mapping[str, Callable[[str], Any]] | None = None
) -> tuple[str, tuple[ToolCall, ...]] | None:
    """Return the text and the calls of an answer as far as it has come; None while there is nothing.

    A call that is being written has those of its arguments that are there, and no id.

    Args:
        text: the answer so far.
        readers: by the names of tools, what makes the arguments of the beginning of their text; `partial_value` for
            others.
    """
    readers = readers or {}
    stream = ToolStream(new_id=lambda: "")
    try:
        events = stream.feed(text) + stream.finish()
    except InvalidAnswerError:
        return None
    before = "".join(event.text for event in events if isinstance(event, TextPiece))
    calls: dict[int, ToolCall] = {}
    raw: dict[int, str] = {}
    for event in events:
        if isinstance(event, CallBegun):
            calls[event.index] = ToolCall(event.id, event.name, {}, event.index)
        elif isinstance(event, ArgumentsPiece):
            raw[event.index] = raw.get(event.index, "") + event.text
        elif isinstance(event, CallEnded):
            begun = calls[event.index]
            arguments = readers.get(begun.name, partial_value)(raw.get(event.index, "")) or {}
            calls[event.index] = event.call or ToolCall(begun.id, begun.name, arguments, begun.index)
    return (before, tuple(calls.values())) if before or calls else None


def _grammar(
    tools: Sequence[Tool],
    choice: ToolChoice,
    parallel: bool,
    otherwise: AnswerFormat | None,
    tokens: Collection[str],
) -> str:
    """Return the grammar in llguidance's Lark.

    Control tokens stand bare there. Text is never `<tool_call>` in letters either: what reads the answer sees letters.
    """
    begins, ends = (tag if tag in tokens else _literal(tag) for tag in (CALL_BEGINS, CALL_ENDS))
    more = ' ("\\n" call)*' if parallel else ""
    lines = [f"start: call{more}"]
    if otherwise is not None and choice in ("none", "auto"):
        lines = ["start: otherwise" + (f" | call{more}" if choice == "auto" else "")]
        bound = json.loads(otherwise.grammar)["grammars"][0]["json_schema"]
        lines.append(f"otherwise: %json {json.dumps(bound)}")
    elif choice in ("none", "auto"):
        lines = _text_lines(more, tokens, has_calls=choice == "auto")
    if choice != "none":
        end = AFTER_ARGUMENTS.removesuffix(CALL_ENDS)
        lines.append(f"call: {begins} opened")
        lines.append(f"opened: {_literal(BEFORE_NAME)} named {_literal(end)} {ends}")
        lines.append(f"named: {' | '.join(f'tool_{index}' for index in range(len(tools)))}")
        for index, tool in enumerate(tools):
            lines.append(f"tool_{index}: {_literal(tool.name + BEFORE_ARGUMENTS)} arguments_{index}")
            lines.append(f"arguments_{index}: %json {_arguments(tool)}")
    return "\n".join(lines) + "\n"


def _text_lines(more: str, tokens: Collection[str], *, has_calls: bool) -> list[str]:
    """Return the rules of text that calls may follow, with the control tokens that text may have.

    Two of TEXT never stand side by side: `<tool_call` would end one of them, and `>` begin the next. A tag in letters
    cannot follow TEXT, which would have taken its letters, so it ends a text of its own, as soon as it is there.
    """
    grounding = " | ".join(tag for tag in GROUNDING if tag in tokens)
    before = f"(TEXT ({grounding}))* " if grounding else ""
    last, rules = "TEXT", [f"TEXT: /(?s:.*)/ & ~/(?s:.*){CALL_BEGINS}(?s:.*)/"]
    if has_calls and CALL_BEGINS in tokens:
        last = f"TEXT (call{more})?"
    elif has_calls:
        last = f"(TEXT | text_and_tag opened{more})"
        rules.append(f"text_and_tag[lazy]: /(?s:.*){CALL_BEGINS}/")
    return [f"start: {before}{last}", *rules]


def _arguments(tool: Tool) -> str:
    options: dict[str, Any] = {**WRITING, "lenient": False, "coerce_one_of": tool.is_checked}
    return json.dumps({**tool.arguments_schema, "x-guidance": options})


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
