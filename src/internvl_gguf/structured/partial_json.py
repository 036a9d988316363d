"""Read a JSON text that is still being written: what is there of its value."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_CLOSES: Final = {"{": "}", "[": "]"}
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR: Final = re.compile(r"[^\s,:\[\]{}\"]+")
_UNFINISHED_STRING: Final = re.compile(
    r'"(?:[^"\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*'
)
"""As much of a string as can be read: neither half an escape nor half a surrogate pair at its end."""


def partial_value(text: str) -> Any:
    """Return the value of the beginning of a JSON text; None while there is nothing of it.

    Objects and arrays are as far as they have come, and so is a text at the end. A key without a value is left out, and
    so are a number and a word at the end (`12` may become `125`). Of a text that no JSON begins with, None.
    """
    return unfinished_value(text)[0]


def unfinished_value(text: str) -> tuple[Any, bool]:
    """Return what `partial_value` does, and whether its last text is still being written."""
    try:
        end, tail = _cut(text)
        return (json.loads(text[:end] + tail), tail.startswith('"')) if end else (None, False)
    except (ValueError, RecursionError):
        return None, False


def _cut(text: str) -> tuple[int, str]:
    """Return up to where a JSON text can be used, and what closes it there."""
    open_now: list[str] = []
    is_key_next = False
    cut, place = 0, 0

    def closing() -> str:
        return "".join(_CLOSES[each] for each in reversed(open_now))

    while place < len(text):
        character = text[place]
        if character in "{[":
            open_now.append(character)
            is_key_next = character == "{"
            place += 1
            cut = place
        elif character in "}]":
            if not open_now:
                raise ValueError("closes what is not open")
            open_now.pop()
            is_key_next = False
            place += 1
            cut = place
        elif character == '"':
            whole = _STRING.match(text, place)
            if whole is None:
                readable = _UNFINISHED_STRING.match(text, place)
                return (cut, closing()) if is_key_next or not readable else (readable.end(), f'"{closing()}')
            place = whole.end()
            cut = cut if is_key_next else place
        elif character == ",":
            is_key_next = bool(open_now) and open_now[-1] == "{"
            place += 1
        elif character == ":":
            is_key_next = False
            place += 1
        elif scalar := _SCALAR.match(text, place):
            place = scalar.end()
            cut = place if place < len(text) else cut
        else:
            place += 1
    return cut, closing()
