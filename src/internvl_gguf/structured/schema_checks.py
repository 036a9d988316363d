"""Checks of a schema before llguidance sees it: references that lead nowhere, what never ends, what explodes.

llguidance recurses along references and combines expressions without a bound of its own, so a schema of a few hundred
bytes could take hours or the process.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.structured.schema_tree import children, intersects, target, walk
from internvl_gguf.utils.safe_text import safe_name

MAX_KEYS: Final = 1_000
"""Most properties, and most required keys, of one object."""
MAX_KEY_PATTERNS: Final = 50
MAX_COMBINED: Final = 6
"""Most patterns and formats that one text has to fit at once: the states of all of them multiply."""
MAX_PATTERN: Final = 4_096  # characters
MAX_STEP: Final = 10_000
"""Largest `multipleOf`, without the zeros at its end: a number is read by an automaton of so many states."""

_PASSES: Final = 64
_CLASSES: Final = re.compile(r"\\.|\[\^\]?(?:\\.|[^\]\\])*\]|\[\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
"""Escapes and classes of an expression; those that exclude begin with `[^`."""
_UNWRITABLE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u00[01]|\x7f")
"""Characters that JSON has to escape: llguidance would leave them out of a text."""
_UNWRITABLE_PATTERN: Final = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\x7f]|\\x[01]|\\x7[fF]|\\u00[01]|\\u007[fF]|\\[cave0]|\\[pP]\{?C"
)
_MOST_COMBINED_NODES: Final = 50_000
_DEEPEST_COMBINED: Final = 12
_STEPS_OF: Final = "steps of "

_BOUNDS: Final = tuple(
    (least, most)
    for leasts, mosts in (
        (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")),
        *(((f"min{what}",), (f"max{what}",)) for what in ("Length", "Items", "Properties")),
    )
    for least in leasts
    for most in mosts
)
"""Keys between which a value has to lie."""

_SIMPLER: Final = "Make it simpler, or check that in what comes back."


def check_schema_tree(root: dict[str, Any]) -> None:
    """Refuse what llguidance must not see.

    Raises:
        InvalidRequestError: a reference to another document or to what is not there, an option of llguidance, a
            recursion without end, or more keys and combinations than the bounds of this module.
    """
    _check_references(root)
    for path, node in walk(root):
        for key, most in (("properties", MAX_KEYS), ("required", MAX_KEYS), ("patternProperties", MAX_KEY_PATTERNS)):
            if isinstance(node.get(key), dict | list) and len(node[key]) > most:
                raise InvalidRequestError(f"The schema has more than {most} {key} at {_place(path)}.", _SIMPLER)
        names = list(node["properties"]) if isinstance(node.get("properties"), dict) else []
        texts = [node.get("const"), node.get("enum"), node.get("required"), names]
        if _UNWRITABLE.search(json.dumps(texts, ensure_ascii=False)):
            raise _has_control(path)
        patterns = node.get("patternProperties")
        for pattern in (node.get("pattern"), *(patterns if isinstance(patterns, dict) else ())):
            _check_pattern(pattern, path)
        if _steps(node.get("multipleOf")) > MAX_STEP:
            raise InvalidRequestError(
                f"The schema has a multipleOf of more than {MAX_STEP:,} steps at {_place(path)}.", _SIMPLER
            )
    _check_ends(root)
    _check_combined(root)


def has_open_escape(pattern: str) -> bool:
    """Return whether an expression ends in a backslash that escapes nothing: llguidance would leave it out."""
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def empty_union(root: dict[str, Any]) -> str:
    """Return the first empty `enum`, `anyOf` or `oneOf` of a schema, and where it is; "" if there is none."""
    for path, node in walk(root):
        for key in ("enum", "anyOf", "oneOf"):
            if node.get(key) == []:
                return f"{key} is empty at {_place(path)}"
    return ""


def contradiction(root: dict[str, Any]) -> str:
    """Return the first two bounds of a schema with nothing between them, and where they are; "" if there are none.

    Bounds of one schema and of the parts of its `allOf` hold together. Where such a schema is one of several, or of a
    key that may be missing, something fits all the same.
    """
    for path, node in walk(root):
        every = node.get("allOf")
        parts = [node, *(part for part in every if isinstance(part, dict))] if isinstance(every, list) else [node]
        for least, most in _BOUNDS:
            lows, highs = ([part[key] for part in parts if _is_number(part.get(key))] for key in (least, most))
            if not lows or not highs:
                continue
            low, high = max(lows), min(highs)
            is_open = least.startswith("exclusive") or most.startswith("exclusive")
            if low > high or (is_open and low == high):
                relation = "equal to" if low == high else "greater than"
                return f"{least} ({low}) is {relation} {most} ({high}) at {_place(path)}"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_pattern(pattern: Any, path: str) -> None:
    """Refuse a class that excludes a quote or a backslash: llguidance lets them through as `\\"` and `\\\\`.

    Refuse as well what it would read otherwise than it is written: an escape at the end.
    """
    if not isinstance(pattern, str):
        return
    if len(pattern) > MAX_PATTERN:
        raise InvalidRequestError(
            f"The schema has a pattern of more than {MAX_PATTERN:,} characters at {_place(path)}.", _SIMPLER
        )
    if has_open_escape(pattern):
        raise InvalidRequestError(
            f"The pattern {safe_name(pattern)} at {_place(path)} ends in a backslash, which escapes nothing.",
            "Leave it out, or write two of them for a backslash.",
        )
    if _UNWRITABLE_PATTERN.search(_CLASSES.sub(_escape_alone, pattern)):
        raise _has_control(path)
    for found in _CLASSES.finditer(pattern):
        if found.group().startswith("[^") and not _allows_both(found.group()):
            raise InvalidRequestError(
                f"The pattern {safe_name(pattern)} at {_place(path)} excludes a quote or a backslash.",
                "Write the characters that are allowed in place of those that are not.",
            )


def _escape_alone(found: re.Match[str]) -> str:
    """Leave out classes: of those, characters that are not written can be left out."""
    return found.group() if found.group().startswith("\\") else "."


def _has_control(path: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The schema has a text with a control character at {_place(path)}.", "An answer has line ends and tabs only."
    )


def _allows_both(characters: str) -> bool:
    """Return whether a class allows a quote and a backslash; False where it is written as Rust alone does."""
    if any(sign in characters[2:] for sign in ("[", "&&", "--", "~~")):
        return False
    try:
        expression = re.compile(characters)
    except (re.error, OverflowError):
        return False
    return bool(expression.match('"') and expression.match("\\"))


def _steps(number: Any) -> int:
    """Return the digits of a number as a whole number, without the zeros at its end: 25 for 0.25."""
    try:
        digits = Decimal(str(number)).normalize().as_tuple().digits if isinstance(number, int | float) else ()
    except InvalidOperation:
        return MAX_STEP + 1
    return int("".join(map(str, digits)) or "0")


def _check_references(root: dict[str, Any]) -> None:
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
        if "$id" in node and path != "#":
            # Before draft 2019-09 such a name means nothing, and after it, it changes what the reference refers to.
            raise InvalidRequestError(f"The schema has $id beside $ref at {_place(path)}.", "Leave that $id out.")
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


def _place(path: str) -> str:
    return safe_name(path, 80)


def _check_ends(root: dict[str, Any]) -> None:
    """Refuse schemas that only endless values fit: the least fixed point of "some finite value may fit"."""
    reached = _reached(root)
    order = {key: index for index, key in enumerate(reached)}
    needed_by: dict[int, list[int]] = {}
    for key, (_, node) in reached.items():
        for _, child in _parts(root, node):
            needed_by.setdefault(id(child), []).append(key)
    ends = dict.fromkeys(reached, False)
    doubtful = set(reached)
    for _ in range(_PASSES):
        ended = []
        for key in sorted(doubtful, key=order.__getitem__, reverse=True):  # leaves first
            if not ends[key] and _can_end(root, reached[key][1], ends):
                ends[key] = True
                ended.append(key)
        doubtful = {parent for key in ended for parent in needed_by.get(key, ()) if not ends[parent]}
        if not doubtful:
            break
    else:
        return  # too long a chain to follow, and no harm: an answer ends at its max_tokens
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


def _check_combined(root: dict[str, Any]) -> None:
    """Refuse texts that have to fit many patterns at once, and numbers that are to be multiples of several.

    What a value has to fit is told by the path of keys to it: parts of an `allOf` that speak of one key meet there.
    """
    found: dict[tuple[str, ...], set[str]] = {}
    seen: set[tuple[int, tuple[str, ...] | None]] = set()
    waiting: list[tuple[dict[str, Any], tuple[str, ...] | None]] = [(root, None)]
    while waiting:
        node, path = waiting.pop()
        if path is None and intersects(node):
            path = (str(id(node)),)
        if (id(node), path) in seen or (path is not None and len(path) > _DEEPEST_COMBINED):
            continue
        seen.add((id(node), path))
        if len(seen) > _MOST_COMBINED_NODES:
            raise InvalidRequestError("The schema combines too many definitions.", _SIMPLER)
        if path is not None:
            _count_combined(node, found.setdefault(path, set()))
        waiting += [(child, _below(path, step)) for step, child in _parts(root, node) if isinstance(child, dict)]


def _parts(root: dict[str, Any], node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the subschemas that a value is read by, with what they refer to."""
    for step, child in children(node):
        if not step.startswith(("/$defs/", "/definitions/")):
            yield step, child
    if "$ref" in node:
        yield "/$ref", target(root, node["$ref"])


def _below(path: tuple[str, ...] | None, step: str) -> tuple[str, ...] | None:
    """Return the path of the values that a subschema is about."""
    if path is None or step.startswith(("/allOf/", "/anyOf/", "/oneOf/", "/$ref")):
        return path
    return (*path, step)


def _count_combined(node: dict[str, Any], constraints: set[str]) -> None:
    for key in ("pattern", "format"):
        if key in node:
            constraints.add(f"{key} {node[key]!r:.2000}")
    if _steps(node.get("multipleOf")):
        constraints.add(f"{_STEPS_OF}{_steps(node['multipleOf'])}")
    steps = [int(each.removeprefix(_STEPS_OF)) for each in constraints if each.startswith(_STEPS_OF)]
    if len(constraints) - len(steps) > MAX_COMBINED:
        what = f"has to fit more than {MAX_COMBINED} patterns"
    elif math.prod(steps) > MAX_STEP:
        what = "is to be a multiple of several numbers"
    else:
        return
    raise InvalidRequestError(f"The schema has a value that {what} at once.", "Write them as one.")
