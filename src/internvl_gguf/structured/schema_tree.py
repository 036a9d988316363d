"""A JSON schema as a tree: its bounds, its subschemas, its references, and what of it never ends.

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
from internvl_gguf.utils.safe_text import safe_name

MAX_BYTES: Final = 256 * 1024
"""Most bytes of a schema as JSON, of a grammar, of a regular expression, and of all choices together."""
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
_PASSES: Final = 64

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


def check_references(root: dict[str, Any]) -> None:
    """Refuse references to other documents and to what is not there, options of llguidance, and what never ends.

    Raises:
        InvalidRequestError: the schema has one of these.
    """
    own_names = {node["$id"] for _, node in walk(root) if isinstance(node.get("$id"), str)}
    for path, node in walk(root):
        if "x-guidance" in node:
            # Its option `lenient` lets through what the schema refuses, and the others change how JSON is written.
            raise InvalidRequestError(
                f"The schema has the key x-guidance at {_place(path)}.", "Leave it out: an answer is bound to all keys."
            )
        reference = node.get("$ref")
        if not isinstance(reference, str):
            continue
        if reference.startswith("#"):
            if not isinstance(target(root, reference), dict | bool):
                raise InvalidRequestError(
                    f"The schema refers to {safe_name(reference)} at {_place(path)}, which it does not have.",
                    "Put the definition under $defs, or correct the reference.",
                )
        elif not own_names:
            raise InvalidRequestError(
                f"The schema refers to {safe_name(reference)} at {_place(path)}, and nothing is fetched.",
                "Put the definition into the schema, under $defs.",
            )
    _check_ends(root)


def _place(path: str) -> str:
    return safe_name(path, 80)


def _check_ends(root: dict[str, Any]) -> None:
    """Refuse schemas that only endless values fit: the least fixed point of "some finite value may fit"."""
    reached = _reached(root)
    ends = dict.fromkeys(reached, False)
    for _ in range(_PASSES):
        before = sum(ends.values())
        for key in reversed(reached):
            ends[key] = ends[key] or _can_end(root, reached[key][1], ends)
        if sum(ends.values()) == before:
            break
    else:
        return  # too long a chain to follow; llguidance has bounds of its own
    for key, (path, _) in reached.items():
        if not ends[key]:
            raise InvalidRequestError(
                f"The schema is recursive without end: {_place(path)} always needs another of itself.",
                "Let the recursion end: make the key optional, or allow null beside it.",
            )


def _reached(root: dict[str, Any]) -> dict[int, tuple[str, dict[str, Any]]]:
    """Return the schemas that values are read by, by identity: definitions only where they are referred to."""
    reached: dict[int, tuple[str, dict[str, Any]]] = {}
    waiting: list[tuple[str, Any]] = [("#", root)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict) or id(node) in reached:
            continue
        reached[id(node)] = (path, node)
        waiting += (
            (path + step, child) for step, child in children(node) if not step.startswith(("/$defs/", "/definitions/"))
        )
        if isinstance(reference := node.get("$ref"), str):
            waiting.append((reference, target(root, reference)))
    return reached


def _can_end(root: dict[str, Any], node: dict[str, Any], ends: dict[int, bool]) -> bool:
    """Return whether a finite value may fit a schema, as far as is known of the schemas it needs."""

    def known(each: Any) -> bool:
        return ends.get(id(each), True)

    if "$ref" in node and not known(target(root, node["$ref"])):
        return False
    if isinstance(every := node.get("allOf"), list) and not all(map(known, every)):
        return False
    for key in ("anyOf", "oneOf"):
        if isinstance(some := node.get(key), list) and some and not any(map(known, some)):
            return False
    types = node.get("type")
    if types == "object" or types == ["object"]:
        return all(known(each) for each in _required_values(node))
    if types == "array" or types == ["array"]:
        return all(known(each) for each in _required_items(node))
    return True


def _required_values(node: dict[str, Any]) -> Iterator[Any]:
    properties, required = node.get("properties"), node.get("required")
    if isinstance(required, list):
        for name in required:
            if isinstance(properties, dict) and isinstance(name, str) and name in properties:
                yield properties[name]
            elif not node.get("patternProperties"):
                yield node.get("additionalProperties")


def _required_items(node: dict[str, Any]) -> Iterator[Any]:
    least = node.get("minItems")
    least = least if isinstance(least, int) else 0
    first = node.get("prefixItems")
    rest = node.get("items")
    if isinstance(rest, list):
        first, rest = rest, node.get("additionalItems")
    first = first if isinstance(first, list) else []
    yield from first[:least]
    if least > len(first):
        yield rest


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects have the keys that they list and no others, where it leaves that open.

    Every value that fits it fits the schema given. A schema that combines (`allOf`, or keys beside `anyOf` or a
    reference) is returned as it is: an object of one part has keys of the others.
    """
    for _, node in walk(schema):
        keys = binding_keys(node)
        combined = keys & {"allOf", "anyOf", "oneOf", "$ref"}
        if "allOf" in keys or (combined and keys - combined) or len(combined) > 1:
            return schema
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for _, node in walk(copy):
        if _lists_its_keys(node):
            node["additionalProperties"] = False
    return copy


def _lists_its_keys(node: dict[str, Any]) -> bool:
    others = {"additionalProperties", "patternProperties", "unevaluatedProperties", "minProperties", "maxProperties"}
    properties, required = node.get("properties"), node.get("required", [])
    return (
        isinstance(properties, dict)
        and isinstance(required, list)
        and not others & node.keys()
        and all(isinstance(name, str) and name in properties for name in required)
    )


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
