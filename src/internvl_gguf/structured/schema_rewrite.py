"""Write a schema so that an answer can be bound to it, where llguidance lacks a key: what fits it stays the same.

A `oneOf` whose parts exclude each other is an `anyOf`, `not: {}` is nothing, keys that bind nothing go. `closed` alone
leaves fewer values: objects have the keys that they list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from typing import Any, Final

from internvl_gguf.structured.schema_tree import binding_keys, intersects, target, walk

_MOST_PARTS: Final = 200  # of a oneOf: each is held against each
_MOST_HOPS: Final = 50
_COUNTS: Final = (
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("minContains", "maxContains"),
)
_COMBINES: Final = {"allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "if", "then", "else", "not", "contains"} | {
    "dependentSchemas"
}
_BIND_NOTHING: Final[dict[str, Callable[[dict[str, Any]], bool]]] = {
    "uniqueItems": lambda node: node["uniqueItems"] is False,
    "propertyNames": lambda node: node["propertyNames"] in (True, {}, {"type": "string"}),
    "unevaluatedProperties": lambda node: node["unevaluatedProperties"] in (True, {}),
    "unevaluatedItems": lambda node: node["unevaluatedItems"] in (True, {}),
    "dependentRequired": lambda node: node["dependentRequired"] == {},
    "dependentSchemas": lambda node: node["dependentSchemas"] == {},
    "dependencies": lambda node: node["dependencies"] == {},
    "not": lambda node: node["not"] is False,
    "then": lambda node: "if" not in node,
    "else": lambda node: "if" not in node,
    "if": lambda node: not node.keys() & {"then", "else", "unevaluatedItems", "unevaluatedProperties"},
    "minContains": lambda node: "contains" not in node,
    "maxContains": lambda node: "contains" not in node,
}
"""Keys that bind nothing in some cases, and when. llguidance refuses them at sight."""


def rewritten(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an equal schema in the keys that llguidance has, as far as that is possible."""
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for _, node in walk(copy):
        for key in [key for key, binds_nothing in _BIND_NOTHING.items() if key in node and binds_nothing(node)]:
            del node[key]
        for key in _COUNTS:
            if isinstance(node.get(key), float) and node[key].is_integer():
                node[key] = int(node[key])
        _rewrite_old_bounds(node)
        _rewrite_unevaluated(node)
        _rewrite_property_names(node)
        _rewrite_nothing(node)
        _rewrite_one_of(copy, node)
    return copy


def _rewrite_old_bounds(node: dict[str, Any]) -> None:
    """Write `exclusiveMinimum: true` beside a minimum, which is draft 4, as the draft after it has it."""
    for exclusive, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(exclusive), bool) and node.pop(exclusive) and plain in node:
            node[exclusive] = node.pop(plain)


def _rewrite_unevaluated(node: dict[str, Any]) -> None:
    """Write `unevaluatedProperties` and `unevaluatedItems` as what they are where nothing else evaluates."""
    if node.keys() & _COMBINES:
        return
    if "unevaluatedProperties" in node:
        rest = node.pop("unevaluatedProperties")
        node.setdefault("additionalProperties", rest)
    if "unevaluatedItems" in node and not isinstance(node.get("items"), list):
        rest = node.pop("unevaluatedItems")
        node.setdefault("items", rest)


def _rewrite_property_names(node: dict[str, Any]) -> None:
    """Write `propertyNames` that are listed, or of one pattern, as properties: so is a dict whose key is a Literal."""
    names = node.get("propertyNames")
    if not isinstance(names, dict) or node.keys() & {"properties", "patternProperties", "unevaluatedProperties"}:
        return
    keys = binding_keys(names) - {"type"}
    value = node.get("additionalProperties", True)
    listed = names.get("enum", [names.get("const")])
    if keys in ({"enum"}, {"const"}) and isinstance(listed, list) and all(isinstance(name, str) for name in listed):
        node["properties"] = {name: _copy(value) for name in listed}
    elif keys == {"pattern"}:
        node["patternProperties"] = {names["pattern"]: value}
    else:
        return
    node["additionalProperties"] = False
    del node["propertyNames"]


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _rewrite_nothing(node: dict[str, Any]) -> None:
    """Write a subschema `{"not": {}}` as false, which it is."""
    for key in ("additionalProperties", "items", "additionalItems"):
        if node.get(key) in ({"not": {}}, {"not": True}):
            node[key] = False


def _rewrite_one_of(root: dict[str, Any], node: dict[str, Any]) -> None:
    """Write a `oneOf` as an `anyOf` where no value fits two of its parts."""
    parts = node.get("oneOf")
    if not isinstance(parts, list) or "anyOf" in node or not 0 < len(parts) <= _MOST_PARTS:
        return
    found = [_followed(root, part) for part in parts]
    if all(_exclude(root, *pair) for pair in combinations(found, 2)):
        node["anyOf"] = node.pop("oneOf")


def _followed(root: dict[str, Any], part: Any) -> dict[str, Any]:
    """Return what a part of a union refers to; {} where that cannot be told."""
    for _ in range(_MOST_HOPS):
        if not isinstance(part, dict):
            return {}
        if binding_keys(part) != {"$ref"}:
            return part
        part = target(root, part["$ref"])
    return {}


def _exclude(root: dict[str, Any], one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether it is plain that no value fits two schemas: by types, by constants, or by a constant of a key."""
    types, other_types = _types(one), _types(other)
    if types is not None and other_types is not None and not types & other_types:
        return True
    literals, other_literals = _literals(one), _literals(other)
    if literals is not None and other_literals is not None:
        return not literals & other_literals
    if types != {"object"} or other_types != {"object"}:
        return False
    for name in _required(one) & _required(other):
        mine, others = (_literals(_followed(root, _property(each, name))) for each in (one, other))
        if mine is not None and others is not None and not mine & others:
            return True
    return False


def _types(schema: dict[str, Any]) -> set[str] | None:
    """Return the types of the values that may fit a schema, integers as numbers; None for any."""
    kinds = schema.get("type")
    if isinstance(kinds, str):
        kinds = [kinds]
    if isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds):
        return {"number" if kind == "integer" else kind for kind in kinds}
    values = _values(schema)
    return None if values is None else {_type_of(value) for value in values}


def _type_of(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _values(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _literals(schema: dict[str, Any]) -> set[str] | None:
    """Return the values of a schema with `const` or `enum` in one spelling each; None for others."""
    values = _values(schema)
    return None if values is None else {json.dumps(_whole(value), sort_keys=True) for value in values}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _required(schema: dict[str, Any]) -> set[str]:
    names = schema.get("required")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _property(schema: dict[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    return properties.get(name) if isinstance(properties, dict) else None


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects have the keys that they list and no others, where it leaves that open.

    Every value that fits it fits the schema given. A schema that combines (`allOf`, or keys beside `anyOf` or a
    reference) is returned as it is: an object of one part has keys of the others.
    """
    if any(intersects(node) for _, node in walk(schema)):
        return schema
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for _, node in walk(copy):
        if _lists_its_keys(node):
            node["additionalProperties"] = False
        if isinstance(node.get("properties"), dict) and not _OTHER_VALUES & node.keys():
            node["type"] = "object"  # JSON Schema means any other value as well, and no writer of such a schema does
    return copy


_OTHER_VALUES: Final = {"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf"}


def _lists_its_keys(node: dict[str, Any]) -> bool:
    others = {"additionalProperties", "patternProperties", "unevaluatedProperties", "minProperties", "maxProperties"}
    properties, required = node.get("properties"), node.get("required", [])
    return (
        isinstance(properties, dict)
        and isinstance(required, list)
        and not others & node.keys()
        and all(isinstance(name, str) and name in properties for name in required)
    )
