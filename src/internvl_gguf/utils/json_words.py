"""Messages about forms and tools for those who write JSON: lines of a batch, and clients of the server."""

from __future__ import annotations

import re
from typing import Final

_IN_PYTHON: Final = {
    "functions with type hints and a docstring, or dicts as OpenAI": "objects as OpenAI",
    "a dict of another shape": "an object of another shape",
    "a JSON schema, a pydantic model, a dataclass, another type, or ": "a JSON schema, or ",
    "a JSON schema as a dict or as JSON text, a pydantic model, a dataclass, or ": "a JSON schema, or ",
}
_VALUES: Final = re.compile(r"\b(is|are|has) (None|True|False|a dict)\b")
_WRITTEN: Final = {"None": "null", "True": "true", "False": "false", "a dict": "an object"}


def in_json(text: str) -> str:
    """Return a message or hint without what Python alone has: functions, types, `None`."""
    for ours, theirs in _IN_PYTHON.items():
        text = text.replace(ours, theirs)
    return _VALUES.sub(lambda found: f"{found[1]} {_WRITTEN[found[2]]}", text)
