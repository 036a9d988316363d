"""The form of a JSON schema as the prompt shows it to the model: one key a line, as TypeScript's types are written.

    {
      "items": [
        {
          "name": string, // what was bought
          "price": number (at least 0)
        }
      ],
      "total"?: number,
      "place": "left" | "right",
      "word": string | null
    }

References are followed. A definition that holds itself is named, and shown once below. What cannot be said so is the
JSON of its part of the schema.
"""

from __future__ import annotations

import json
from typing import Any, Final

from internvl_gguf.structured.schema_tree import binding_keys, children, target

_LONGEST: Final = 20_000  # characters: beyond them every definition is named, and shown once
_MOST_NESTED: Final = 100  # forms within each other, references followed
_STEP: Final = "  "
_SHORT_PATTERN: Final = 60
_FORMS: Final = {
    "date": "date, YYYY-MM-DD",
    "time": "time, HH:MM:SS with offset",
    "date-time": "date and time, YYYY-MM-DDTHH:MM:SS with offset",
    "duration": "duration, such as P1DT2H",
    "uri": "URL",
    "uuid": "UUID",
}
_BOUNDS: Final = {
    "string": ("minLength", "maxLength", " characters"),
    "array": ("minItems", "maxItems", " items"),
    "object": ("minProperties", "maxProperties", " keys"),
}
_BY_TYPE: Final = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "additionalItems"},
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "boolean": set(),
    "null": set(),
}
"""Keys that the outline can say of each type."""


def outline(schema: dict[str, Any]) -> str:
    """Return the form of a schema in lines, without a line end at the end."""
    recursive = _recursive(schema)
    try:
        return _Outline(schema, recursive).text()
    except _TooLongError:
        return _Outline(schema, None).text()


class _TooLongError(Exception):
    """An outline that is longer than a prompt should be, because definitions are repeated."""


def _recursive(root: dict[str, Any]) -> set[int]:
    """Return the identities of the targets of references that lie in a circle, or between two."""
    edges: dict[int, set[int]] = {}
    targets: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or id(node) in edges:
            continue
        inside = [child for step, child in children(node) if not step.startswith(("/$defs/", "/definitions/"))]
        if isinstance(node.get("$ref"), str):
            named = target(root, node["$ref"])
            targets.add(id(named))
            inside.append(named)
        edges[id(node)] = {id(each) for each in inside if isinstance(each, dict)}
        waiting += inside
    backwards: dict[int, set[int]] = {node: set() for node in edges}
    for node, following in edges.items():
        for each in following:
            backwards[each].add(node)
    return targets & _without_leaves(edges, backwards) & _without_leaves(backwards, edges)


def _without_leaves(edges: dict[int, set[int]], backwards: dict[int, set[int]]) -> set[int]:
    """Return the nodes of a graph that are left when those from which nothing follows go, again and again."""
    following = {node: len(each) for node, each in edges.items()}
    leaves = [node for node, number in following.items() if not number]
    while leaves:
        leaf = leaves.pop()
        del following[leaf]
        for node in backwards[leaf]:
            following[node] -= 1
            if not following[node]:
                leaves.append(node)
    return set(following)


class _Outline:
    """One outline being written.

    Args:
        root: the schema.
        named: identities of the definitions that are named; None for all of them.
    """

    def __init__(self, root: dict[str, Any], named: set[int] | None) -> None:
        self._root = root
        self._named = named
        self._names: dict[int, str] = {}
        self._to_show: list[tuple[str, dict[str, Any]]] = []
        self._written = 0
        self._level = 0

    def text(self) -> str:
        parts = [self._form(self._root, 0)]
        for name, definition in self._to_show:  # grows while it is read
            parts.append(f"where {name} is:\n{self._form(definition, 0)}")
        return "\n".join(parts)

    def _form(self, schema: Any, depth: int) -> str:
        """Return the form of a subschema; its lines after the first are indented by `depth` steps."""
        self._level += 1
        if self._named is not None and self._level > _MOST_NESTED:
            raise _TooLongError
        form = self._form_of(schema, depth)
        self._level -= 1
        self._written += len(form)
        if self._named is not None and (self._written > _LONGEST * 10 or len(form) > _LONGEST):
            raise _TooLongError
        return form

    def _form_of(self, schema: Any, depth: int) -> str:
        if not isinstance(schema, dict):
            return "any" if schema is True or schema is None else "nothing"
        schema = _merged(schema)
        keys = binding_keys(schema)
        if keys == {"$ref"}:
            return self._reference(schema, depth)
        if "const" in keys:
            return _literal(schema["const"])
        if "enum" in keys and isinstance(schema["enum"], list):
            return " | ".join(map(_literal, schema["enum"])) or "nothing"
        for union in ("anyOf", "oneOf"):
            if keys <= {union, "type"} and isinstance(schema.get(union), list) and schema[union]:
                return self._union([self._form(each, depth) for each in schema[union]])
        types = schema.get("type")
        if isinstance(types, list) and types:
            return self._union([self._form(_of_type(schema, each), depth) for each in types])
        if types is None:
            types = _implied_type(keys)
        if not keys:
            return "any"
        if not isinstance(types, str) or types not in _BY_TYPE or keys - {"type"} - _BY_TYPE[types]:
            return json.dumps(schema, ensure_ascii=False)
        return self._of_type(schema, types, depth)

    def _of_type(self, schema: dict[str, Any], kind: str, depth: int) -> str:
        if kind == "object":
            form = self._object(schema, depth)
        elif kind == "array":
            form = self._array(schema, depth)
        else:
            form = kind
        bounds = _in_words(schema, kind)
        return f"{form} ({bounds})" if bounds else form

    @staticmethod
    def _union(forms: list[str]) -> str:
        return " | ".join(dict.fromkeys(forms))

    def _reference(self, schema: dict[str, Any], depth: int) -> str:
        definition = target(self._root, schema["$ref"])
        if not isinstance(definition, dict):
            return "any"
        if self._named is not None and id(definition) not in self._named:
            return self._form(definition, depth)
        if id(definition) not in self._names:
            name = self._new_name(schema["$ref"])
            self._names[id(definition)] = name
            self._to_show.append((name, definition))
        return self._names[id(definition)]

    def _new_name(self, reference: str) -> str:
        """Return the last part of a reference, with a number where another definition is called so."""
        last = reference.rsplit("/", 1)[-1].lstrip("#") or "Form"
        taken = set(self._names.values())
        number = 2
        name = last
        while name in taken:
            name = f"{last}{number}"
            number += 1
        return name

    def _object(self, schema: dict[str, Any], depth: int) -> str:
        properties = schema.get("properties")
        others = schema.get("additionalProperties")
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        entries: list[tuple[str, Any]] = []
        if isinstance(properties, dict):
            entries = [
                (_literal(name) + ("" if name in required else "?"), each)
                for name, each in properties.items()
                if each is not False
            ]
        if isinstance(others, dict) and binding_keys(others):
            entries.append(("string", others))
        if not entries:
            return "{}" if others is False else "object"
        inner = _STEP * (depth + 1)
        lines = []
        for index, (name, each) in enumerate(entries):
            comma = "," if index < len(entries) - 1 else ""
            first, *rest = f"{name}: {self._form(each, depth + 1)}{comma}".split("\n")
            words = self._description(each)
            lines.append("\n".join([f"{inner}{first}{f' // {words}' if words else ''}", *rest]))
        return "\n".join(["{", *lines, f"{_STEP * depth}}}"])

    def _description(self, schema: Any) -> str:
        """Return what a key is described as, in one line: its own words, else those of the definition it refers to."""
        if isinstance(schema, dict) and "description" not in schema and "$ref" in schema:
            schema = target(self._root, schema["$ref"])
        words = schema.get("description") if isinstance(schema, dict) else None
        return " ".join(words.split()) if isinstance(words, str) else ""

    def _array(self, schema: dict[str, Any], depth: int) -> str:
        first, rest = schema.get("prefixItems"), schema.get("items")
        if isinstance(rest, list):
            first, rest = rest, schema.get("additionalItems")
        several = isinstance(first, list) and first
        inside = [self._form(each, depth + 1) for each in first] if isinstance(first, list) else []
        if isinstance(rest, dict) or not several:
            inside.append(self._form(rest, depth + 1) + ("..." if several else ""))
        if not any("\n" in each for each in inside):
            return f"[{', '.join(inside)}]"
        inner = _STEP * (depth + 1)
        return "[\n" + ",\n".join(inner + each for each in inside) + f"\n{_STEP * depth}]"


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the parts of its `allOf` in it, where no key stands in two of them."""
    parts = schema.get("allOf")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return schema
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        for key in binding_keys(part):
            if key in merged and merged[key] != part[key]:
                return schema
            merged[key] = part[key]
    return merged


def _implied_type(keys: set[str]) -> str | None:
    """Return the type that the keys of a schema without one speak of."""
    if keys & {"properties", "additionalProperties", "required"}:
        return "object"
    return "array" if keys & {"items", "prefixItems"} else None


def _of_type(schema: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Return what a schema of several types says of one of them."""
    return {"type": kind, **{key: schema[key] for key in _BY_TYPE.get(str(kind), set()) if key in schema}}


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _in_words(schema: dict[str, Any], kind: str) -> str:
    """Return the bounds and the format of a value in a few words."""
    words = []
    if kind == "string":
        form = schema.get("format")
        words += [_FORMS.get(form, form)] if isinstance(form, str) else []
        pattern = schema.get("pattern")
        words += [f"matches {pattern}"] if isinstance(pattern, str) and len(pattern) <= _SHORT_PATTERN else []
    if kind in _BOUNDS:
        low, high, unit = _BOUNDS[kind]
        low_value = schema.get(low) or None
        if not (kind == "array" and _is_tuple(schema)):
            words.append(_range(low_value, schema.get(high), unit))
    if kind in ("number", "integer"):
        words.append(_range(schema.get("minimum"), schema.get("maximum"), ""))
        words += [f"more than {schema['exclusiveMinimum']}"] if "exclusiveMinimum" in schema else []
        words += [f"less than {schema['exclusiveMaximum']}"] if "exclusiveMaximum" in schema else []
        words += [f"a multiple of {schema['multipleOf']}"] if "multipleOf" in schema else []
    return ", ".join(filter(None, words))


def _is_tuple(schema: dict[str, Any]) -> bool:
    """Return whether an array's items are all shown one by one."""
    first = schema.get("prefixItems")
    return isinstance(first, list) and schema.get("minItems") == schema.get("maxItems") == len(first)


def _range(low: Any, high: Any, unit: str) -> str:
    if low is None and high is None:
        return ""
    if low is None:
        return f"at most {high}{unit}"
    if high is None:
        return f"at least {low}{unit}"
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"
