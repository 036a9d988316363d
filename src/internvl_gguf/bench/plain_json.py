"""Convert dataclasses to JSON values and back, by their annotations: for files and lines between processes."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_line

_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_Read = TypeVar("_Read")


def as_plain(value: Any) -> Any:
    """Return a dataclass, or a value of a field, as dicts, lists, strings, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def from_plain(kind: type[_Read], value: Any) -> _Read:
    """Return the dataclass that `as_plain` converted; unknown fields are ignored.

    Raises:
        InvalidRequestError: a field is missing, or of another type.
    """
    read: _Read = _read(kind, value, "")
    return read


def damaged(what: str) -> InvalidRequestError:
    """The error of a document that cannot be read back, and why."""
    return InvalidRequestError(
        f"The results cannot be read: {what}.", "Give a file that `internvl bench -o json` wrote, or measure again."
    )


def check_format(document: Any, expected: int) -> None:
    """Refuse a document that this version did not write.

    Raises:
        InvalidRequestError: it names another format, or none.
    """
    if not isinstance(document, dict) or "format" not in document:
        raise damaged("there is no 'format'")
    if document["format"] != expected:
        raise InvalidRequestError(
            f"The results are in format {safe_line(str(document['format']))}, and this version reads {expected}.",
            "Read them with the version that wrote them, or measure again.",
        )


def _read(kind: Any, value: Any, place: str) -> Any:
    """A value of a type as it stands in an annotation; `place` names it in errors."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, value, place)
    if origin is types.UnionType:  # X | None, the only one there is
        return None if value is None else _read(arguments[0], value, place)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], each, f"{place}[{index}]") for index, each in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _read(arguments[1], each, f"{place}[{name!r}]") for name, each in value.items()}
    if kind is float and isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise damaged(f"{place.lstrip('.') or 'the document'} is {safe_line(repr(value))[:60]}")


def _read_fields(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise damaged(f"{place.lstrip('.') or 'the document'} is {safe_line(repr(value))[:60]}")
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            found[field.name] = _read(hints[field.name], value[field.name], f"{place}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise damaged(f"{f'{place}.{field.name}'.lstrip('.')} is missing")
    return kind(**found)
