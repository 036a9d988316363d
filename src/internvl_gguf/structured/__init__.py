"""What an answer may be bound to, as values: schemas, choices, grammars, regular expressions, and tools.

    answer_format    AnswerFormat, and format_of: from what the caller gives to what the engine needs
    schema_source    JSON schemas, types and the short form, as a plain JSON schema and a reader of answers
    schema_tree      bounds of a schema, its subschemas and local references, definitions that never end
    outline          the form of a schema as the prompt shows it
    constraint       llguidance: grammars made, checked within bounds, and texts matched
    languages        choices, Lark, GBNF and regular expressions
    partial_json     the value of a JSON text that is still being written
    tools            tools as values: their schemas from functions or dicts, and calls of them
    tool_format      what an answer with calls is bound to, and the calls of a finished one
    tool_stream      calls in an answer while it is being written

No engine and no session is known here. llguidance, pydantic and docstring_parser are loaded when they are needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from internvl_gguf.structured.answer_format import AnswerFormat, format_of
    from internvl_gguf.structured.tools import Tool, tools_of

__all__ = ["AnswerFormat", "Tool", "format_of", "tools_of"]

_HOMES: Final = {
    "AnswerFormat": "answer_format",
    "Tool": "tools",
    "format_of": "answer_format",
    "tools_of": "tools",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"internvl_gguf.structured.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
