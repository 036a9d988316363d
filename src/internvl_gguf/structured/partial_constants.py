"""The value of an answer that is still being written, its constants as its schema has them.

A text of which a schema has only a few is shown once no other of them can follow: half of "circle" is no shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from internvl_gguf.structured.partial_json import partial_value, unfinished_value
from internvl_gguf.structured.schema_tree import target, walk

_UNIONS: Final = ("allOf", "anyOf", "oneOf")


def partial_reader(schema: dict[str, Any]) -> Callable[[str], Any]:
    """Return what makes the value of the beginning of an answer, as `partial_value` does, whole constants in it.

    Args:
        schema: plain JSON schema of the answer.
    """
    if not any(_constants(node) for _, node in walk(schema)):
        return partial_value

    def read(text: str) -> Any:
        value, is_text_open = unfinished_value(text)
        return _settled(schema, value) if is_text_open else value

    return read


def _settled(schema: dict[str, Any], value: Any) -> Any:
    """Return a value whose last text is unfinished: that constant of the schema which alone can follow, or none."""
    holder: Any = None
    key: Any = None
    place, nodes = value, _alternatives(schema, [schema])
    while isinstance(place, dict | list) and place:
        holder, key = place, next(reversed(place)) if isinstance(place, dict) else len(place) - 1
        nodes = _alternatives(schema, [child for node in nodes for child in _below(node, key)])
        place = place[key]
    if not isinstance(place, str) or any(_is_open(node) for node in nodes):
        return value
    members = {each for node in nodes for each in _constants(node)}
    possible = [each for each in members if each.startswith(place)]
    if not members:
        return value
    if holder is None:
        return possible[0] if len(possible) == 1 else None
    if len(possible) == 1:
        holder[key] = possible[0]
    else:
        del holder[key]
    return value


def _constants(node: dict[str, Any]) -> list[str]:
    """Return the texts that a schema lists."""
    listed = [node["const"]] if "const" in node else node.get("enum")
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def _is_open(node: dict[str, Any]) -> bool:
    """Return whether a schema takes texts that it does not list."""
    kinds = node.get("type", "string")
    takes_text = "string" in kinds if isinstance(kinds, str | list) else False
    return takes_text and not node.keys() & {"const", "enum", "$ref", *_UNIONS}


def _alternatives(root: dict[str, Any], nodes: Iterable[Any]) -> list[dict[str, Any]]:
    """Return schemas with those that they refer to or combine."""
    found: dict[int, dict[str, Any]] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict) and id(node) not in found:
            found[id(node)] = node
            waiting.append(target(root, node.get("$ref")))
            waiting += (part for union in _UNIONS if isinstance(node.get(union), list) for part in node[union])
    return list(found.values())


def _below(node: dict[str, Any], key: Any) -> Iterator[Any]:
    """Yield the schemas of what a value holds under a key or at an index."""
    if isinstance(key, str):
        properties, patterns = node.get("properties"), node.get("patternProperties")
        if isinstance(properties, dict) and key in properties:
            yield properties[key]
            return
        if isinstance(patterns, dict):
            yield from patterns.values()
        yield node.get("additionalProperties")
        return
    first, rest = node.get("prefixItems"), node.get("items")
    if isinstance(rest, list):
        first, rest = rest, node.get("additionalItems")
    yield first[key] if isinstance(first, list) and key < len(first) else rest
