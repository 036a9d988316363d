"""Forms and tools that the tests of the server ask for: bounded, so that an answer ends whatever the model says."""

from __future__ import annotations

import json
from typing import Any

COLOURS = ("red", "blue")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": list(COLOURS)}, "number": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["colour", "number"],
    "additionalProperties": False,
}
TOOLS: dict[str, dict[str, Any]] = {
    name: {
        "type": "object",
        "properties": {"colour": {"enum": list(COLOURS)}, "exact": {"type": "boolean"}},
        "required": ["colour", "exact"],
    }
    for name in ("count", "find")
}


def fits(text: str) -> bool:
    """Whether a text is JSON that fits `SCHEMA`."""
    value = json.loads(text)
    return set(value) == {"colour", "number"} and value["colour"] in COLOURS and value["number"] in range(100)


def fits_tool(value: dict[str, Any]) -> bool:
    """Whether arguments fit the tools."""
    return set(value) == {"colour", "exact"} and value["colour"] in COLOURS and isinstance(value["exact"], bool)


def chat_tools() -> list[dict[str, Any]]:
    """The tools as chat completions have them."""
    return [
        {"type": "function", "function": {"name": name, "description": f"Can {name}.", "parameters": each}}
        for name, each in TOOLS.items()
    ]


def response_tools() -> list[dict[str, Any]]:
    """The tools as Responses have them."""
    return [{"type": "function", **tool["function"]} for tool in chat_tools()]


def anthropic_tools() -> list[dict[str, Any]]:
    """The tools as Anthropic's interface has them."""
    return [{"name": name, "description": f"Can {name}.", "input_schema": each} for name, each in TOOLS.items()]
