"""How tools stand in the prompt: Qwen2.5's form, which InternVL3's text part knows from Qwen.

Source: the chat template of Qwen2.5-Instruct (Hermes's format). The system message lists the tools, an answer calls
them in <tool_call>, and the next turn of the user brings what they returned in <tool_response>. The templates in
InternVL's files mostly leave this out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.session.prompt_template import IMAGE_PLACE
from internvl_gguf.structured.tool_stream import AFTER_ARGUMENTS, BEFORE_ARGUMENTS, BEFORE_NAME, CALL_BEGINS
from internvl_gguf.types import Message

if TYPE_CHECKING:
    from internvl_gguf.structured import Tool

_BEFORE_TOOLS: Final = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_AFTER_TOOLS: Final = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Return a conversation as it stands in the prompt: tools in the system message, their results from the user.

    Args:
        messages: the conversation; those of the role "tool" hold what a tool returned.
        tools: the tools that the next answer may call.
    """
    shown = list(_with_results(messages))
    if not tools:
        return shown
    system = shown.pop(0).text if shown and shown[0].role == "system" else ""
    return [Message("system", "\n\n".join(filter(None, (system, tools_text(tools))))), *shown]


def tools_text(tools: Sequence[Tool]) -> str:
    """Return the part of the system message that lists tools; "" for none."""
    if not tools:
        return ""
    listed = "\n".join(json.dumps(tool.to_dict(), ensure_ascii=False) for tool in tools)
    return f"{_BEFORE_TOOLS}{listed}{_AFTER_TOOLS}"


def with_calls(text: str, calls: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the text of an answer with calls of tools as the model writes them.

    Args:
        text: what the answer says before them.
        calls: name and arguments of each.
    """
    before = f"{CALL_BEGINS}{BEFORE_NAME}"
    values = ((name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls)
    written = (f"{before}{name}{BEFORE_ARGUMENTS}{value}{AFTER_ARGUMENTS}" for name, value in values)
    return "\n".join(filter(None, (text, *written)))


def _with_results(messages: Sequence[Message]) -> Iterator[Message]:
    numbered = 0
    for role, group in groupby(messages, lambda message: message.role):
        if role != "tool":
            for message in group:
                numbered += len(message.pictures)
                yield message
            continue
        results = list(group)
        texts = []
        for result in results:
            texts.append(f"<tool_response>\n{_with_places(result, numbered)}\n</tool_response>")
            numbered += len(result.pictures)
        pictures = tuple(picture for result in results for picture in result.pictures)
        yield replace(results[0], role="user", text="\n".join(texts), pictures=pictures)


def _with_places(result: Message, numbered: int) -> str:
    """Return the text of a result with a place for each picture, numbered on from those before it if there are many."""
    count = len(result.pictures)
    if IMAGE_PLACE in result.text or not count:
        return result.text
    if count == 1:
        return f"{IMAGE_PLACE}\n{result.text}"
    places = (f"Image-{numbered + index}: {IMAGE_PLACE}\n" for index in range(1, count + 1))
    return "".join(places) + result.text
