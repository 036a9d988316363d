"""A JSON schema as a tree: a copy of it within bounds, its subschemas, and what its references name.

Everything here walks without recursion: a schema may come from a stranger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.arguments import shown

MAX_BYTES: Final = 256 * 1024
"""Most bytes of a schema as JSON, and of all choices together."""
MAX_DEPTH: Final = 64
"""Most levels of objects and arrays within each other in a schema, which are about 32 of the values described."""
MAX_NODES: Final = 20_000
"""Most values in a schema: objects, arrays, texts, numbers."""
_LARGEST_NUMBER: Final = 10**300

_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE: Final = (
    *("items", "additionalProperties", "additionalItems", "unevaluatedItems", "unevaluatedProperties"),
    *("not", "if", "then", "else", "contains", "propertyNames", "contentSchema"),
)
_ANNOTATIONS: Final = frozenset(
    (
        *("$defs", "definitions", "title", "description", "default", "examples", "example", "deprecated", "$comment"),
        *("readOnly", "writeOnly", "$schema", "$id", "$anchor", "discriminator"),
    )
)
"""Keys that bind no value."""

_SMALLER: Final = "Give a smaller one, or ask in several questions."
_NO_SCHEMA: Final = (
    'Give a JSON schema as a dict or as JSON text, a pydantic model, a dataclass, or "name, age int, tags list".'
)


def plain_schema(given: object) -> dict[str, Any]:
    """Copy a schema into dicts, lists and scalars, within the bounds of this module.

    Raises:
        InvalidRequestError: it is no schema, holds what JSON does not have, or is beyond a bound.
    """
    if not isinstance(given, Mapping):
        raise InvalidRequestError(f"The schema is {shown(given)}.", _NO_SCHEMA)
    copy: dict[str, Any] = {}
    waiting: list[tuple[Any, Any, int]] = [(given, copy, 1)]
    nodes = 1
    while waiting:
        source, target, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidRequestError(f"The schema is nested more than {MAX_DEPTH} levels deep.", _SMALLER)
        pairs = source.items() if isinstance(source, Mapping) else enumerate(source)
        for key, value in pairs:
            nodes += 1
            if nodes > MAX_NODES:
                raise InvalidRequestError(f"The schema has more than {MAX_NODES:,} values.", _SMALLER)
            if isinstance(source, Mapping):
                _check_text(key)
            made: Any
            if isinstance(value, Mapping):
                made = {}
            elif isinstance(value, list | tuple):
                made = []
            else:
                made = _scalar(value)
            if isinstance(target, dict):
                target[key] = made
            else:
                target.append(made)
            if isinstance(made, dict | list):
                waiting.append((value, made, depth + 1))
    if len(json.dumps(copy, ensure_ascii=False).encode()) > MAX_BYTES:
        raise InvalidRequestError(f"The schema is larger than {MAX_BYTES // 1024} KiB.", _SMALLER)
    return copy


def _check_text(value: object) -> None:
    """Refuse a key or text that JSON does not have."""
    if not isinstance(value, str):
        raise InvalidRequestError(f"The schema has the key {shown(value)}.", "Keys of a JSON schema are text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(
            "The schema has a text with half a surrogate pair.", "Give it as text that UTF-8 can hold."
        ) from None


def _scalar(value: object) -> object:
    if isinstance(value, str):
        _check_text(value)
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < _LARGEST_NUMBER:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, int):
        raise InvalidRequestError("The schema has a number of more than 300 digits.", _NO_SCHEMA)
    raise InvalidRequestError(f"The schema has the value {shown(value)}, which JSON does not have.", _NO_SCHEMA)


def children(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the subschemas of a schema with their paths, such as ("/properties/name", {...}); malformed ones too."""
    for key in _MAPS:
        if isinstance(entries := schema.get(key), dict):
            for name, child in entries.items():
                yield f"/{key}/{_escaped(name)}", child
    for key in (*_LISTS, "items"):
        if isinstance(entries := schema.get(key), list):
            for index, child in enumerate(entries):
                yield f"/{key}/{index}", child
    for key in _SINGLE:
        if key in schema and not isinstance(schema[key], list):
            yield f"/{key}", schema[key]


def walk(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a schema and every schema inside it, each with its path ("#" is the whole); references are not followed."""
    waiting: list[tuple[str, dict[str, Any]]] = [("#", schema)]
    while waiting:
        path, node = waiting.pop()
        yield path, node
        inside = [(path + step, child) for step, child in children(node) if isinstance(child, dict)]
        waiting += reversed(inside)


def may_hold_list(schema: dict[str, Any]) -> bool:
    """Return whether an answer by a schema may have a list in it."""
    return any(_takes_list(node) for _, node in walk(schema))


def _takes_list(node: dict[str, Any]) -> bool:
    kinds = node.get("type")
    if isinstance(kinds, str | list):
        is_any_object = "object" in kinds and not node.keys() & {"properties", "additionalProperties"}
        return "array" in kinds or is_any_object
    return not binding_keys(node) & {"properties", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"}


def target(root: dict[str, Any], reference: object) -> Any:
    """Return what a reference within a schema names; None for one that names nothing in it, or that has an address."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    pointer = unquote(reference[1:])
    if pointer and not pointer.startswith("/"):
        return next((node for _, node in walk(root) if node.get("$anchor") == pointer), None)
    found: Any = root
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdigit() and len(step) < 7 and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def binding_keys(schema: dict[str, Any]) -> set[str]:
    """Return the keys of a schema that say which values are allowed."""
    return set(schema) - _ANNOTATIONS


def intersects(schema: dict[str, Any]) -> bool:
    """Return whether a value has to fit several subschemas of a schema at once."""
    keys = binding_keys(schema)
    combined = keys & {"allOf", "anyOf", "oneOf", "$ref"}
    return "allOf" in keys or bool(combined and keys - combined) or len(combined) > 1


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
