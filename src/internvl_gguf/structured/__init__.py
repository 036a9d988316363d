"""Forms that an answer may be bound to, as values: schemas, choices, grammars, regular expressions, and tools.

    answer_format    AnswerFormat, and format_of: from what the caller gives to what the engine needs
    schema_source    JSON schemas, types and the short form, as a plain JSON schema and a reader of answers
    schema_tree      a JSON schema as a tree: a copy within bounds, its subschemas and references
    schema_checks    what is refused before llguidance sees it: what leads nowhere, never ends or explodes
    schema_rewrite   a schema in the keys that llguidance has; objects closed to keys that they do not list
    outline          the form of a schema as the prompt shows it
    constraint       llguidance: grammars made, checked within bounds, and texts matched
    languages        choices, Lark, GBNF and regular expressions
    grammar_trial    grammars that may keep llguidance busy for ever, tried in a process of their own
    partial_json     the value of a JSON text that is still being written
    partial_constants  the same by its schema: constants are there when they are whole
    tools            tools as values: their schemas from functions or dicts, and calls of them
    tool_format      what an answer with calls is bound to, and the calls of a finished one
    tool_stream      calls in an answer while it is being written

No engine and no session is known here. llguidance, pydantic and docstring_parser are loaded when they are needed.
"""

from __future__ import annotations

from internvl_gguf.structured.answer_format import AnswerFormat, format_of
from internvl_gguf.structured.tool_format import ToolChoice, tool_format
from internvl_gguf.structured.tool_stream import ToolStream, parse_calls
from internvl_gguf.structured.tools import Tool, tools_of

__all__ = [
    "AnswerFormat",
    "Tool",
    "ToolChoice",
    "ToolStream",
    "format_of",
    "parse_calls",
    "tool_format",
    "tools_of",
]
