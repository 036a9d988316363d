"""Check arguments from callers of the Python interface; errors say what to give instead."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError

_SHOWN: Final = 80  # characters of a value in a message


def wrong(name: str, value: object, hint: str) -> InvalidRequestError:
    """Return the error of an argument of the wrong kind: "n_ctx is 'many'." and what to give."""
    return InvalidRequestError(f"{name} is {shown(value)}.", hint)


def shown(value: Any) -> str:
    """Format a value for a message: short values, and short lists of them, by their repr, others by their type."""
    if _is_plain(value) or (type(value) in (list, tuple) and all(map(_is_plain, value[:_SHOWN]))):
        try:
            text = repr(value)
        except ValueError:  # Python writes no number of more than 4300 digits
            return "a number of thousands of digits"
        if len(text) <= _SHOWN:
            return text
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIO' else 'a'} {kind}"


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | bytes | bool | numbers.Number)


def whole(name: str, value: object, hint: str = "Give a whole number.") -> int:
    """Return a whole number, numpy's included; True and False are refused.

    Raises:
        InvalidRequestError: the value is of another kind; so do all functions of this module.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise wrong(name, value, hint)


def number(name: str, value: object) -> float:
    """Return a number, numpy's and fractions included."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise wrong(name, value, "Give a number.")


def plain(value: float) -> float:
    """Return a number as people write it: 1 for 1.0."""
    return int(value) if float(value).is_integer() else value


def ascending(start_name: str, start: float | None, end_name: str, end: float | None) -> None:
    """Check that a range of seconds from 0 on ends after its start; None is no bound."""
    if end is not None and end <= (start or 0.0):
        raise wrong(end_name, plain(end), f"Give an end after the {start_name}, {start or 0:g}.")


def switch(name: str, value: object) -> bool:
    """Return a boolean, numpy's included."""
    if isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")):
        return bool(value)
    raise wrong(name, value, "Give True or False.")


def text(name: str, value: object, hint: str = "Give a str.") -> str:
    """Return a text."""
    if isinstance(value, str):
        return value
    raise wrong(name, value, hint)


def text_or_none(name: str, value: object) -> str | None:
    """Return a text or None."""
    return None if value is None else text(name, value, "Give a str, or None.")


def path(name: str, value: object, hint: str = "Give a str or a pathlib.Path.") -> str:
    """Return the path of a file or folder."""
    if isinstance(value, str | os.PathLike):
        found = os.fspath(value)
        if isinstance(found, str) and "\0" not in found:
            return found
    raise wrong(name, value, hint)


def functions(**named: object) -> None:
    """Check that each named value is callable or None."""
    for name, value in named.items():
        if value is not None and not callable(value):
            raise wrong(name, value, "Give a function, or leave it out.")


def items(name: str, value: object, hint: str) -> Iterable[Any]:
    """Return an iterable of items: a list or a generator, but neither text nor a mapping."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return value
    raise wrong(name, value, hint)
