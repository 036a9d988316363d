"""The inputs of `format_attacks.py`: hostile schemas, choices, grammars, expressions and tools, made from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SEED = 20261130


@dataclass(frozen=True)
class Attack:
    """One input: a name, and the arguments of `format_of`, or `tools`."""

    name: str
    arguments: dict[str, Any]


def nested(depth: int, wrap: Callable[[Any], Any], inner: Any) -> Any:
    """Return a value in `depth` layers."""
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def big_schemas() -> Iterator[tuple[str, Any]]:
    """Yield schemas that are large in one way each."""
    for depth in (10, 30, 60, 1_000, 50_000):
        yield f"arrays {depth} deep", nested(depth, lambda s: {"type": "array", "items": s}, {"type": "string"})
        yield f"objects {depth} deep", nested(depth, lambda s: {"properties": {"a": s}, "required": ["a"]}, {})
        yield f"anyOf {depth} deep", nested(depth, lambda s: {"anyOf": [s, {"type": "null"}]}, {"type": "string"})
        yield f"allOf {depth} deep", nested(depth, lambda s: {"allOf": [s, {"minLength": 1}]}, {"type": "string"})
        yield f"not {depth} deep", nested(depth, lambda s: {"not": s}, {})
    for count in (10, 1_000, 10_000, 100_000):
        yield f"enum of {count}", {"enum": [f"value {i}" for i in range(count)]}
        yield f"enum of {count} numbers", {"enum": list(range(count))}
        yield (
            f"{count} properties",
            {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(count)}},
        )
        yield f"{count} required", {"type": "object", "required": [f"k{i}" for i in range(count)]}
        yield f"anyOf of {count}", {"anyOf": [{"type": "string", "minLength": i} for i in range(count)]}
        yield f"oneOf of {count}", {"oneOf": [{"const": i} for i in range(count)]}
        yield f"oneOf of {count} patterns", {"oneOf": [{"pattern": f"^a{i}"} for i in range(count)]}
        yield f"allOf of {count}", {"allOf": [{"type": "string", "pattern": f"a{i}"} for i in range(count)]}
        yield f"allOf of {count} anyOf", {"allOf": [{"anyOf": [{"const": i}, {"const": -i}]} for i in range(count)]}
        yield (
            f"prefixItems of {count}",
            {"type": "array", "prefixItems": [{"type": "integer"}] * count, "minItems": count},
        )
        yield f"{count} patternProperties", {"patternProperties": {f"^a{i}": {} for i in range(count)}}
        yield (
            f"{count} definitions in a row",
            {
                "$ref": "#/$defs/d0",
                "$defs": {**{f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(count)}, f"d{count}": {}},
            },
        )
        yield (
            f"{count} doubling definitions",
            {
                "$ref": "#/$defs/d0",
                "$defs": {
                    **{
                        f"d{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{i + 1}"}] * 2, "minItems": 2}
                        for i in range(count)
                    },
                    f"d{count}": {},
                },
            },
        )
        yield f"a key of {count} letters", {"properties": {"k" * count: {"type": "string"}}}
        yield f"a const of {count} letters", {"const": "k" * count}
        yield f"a description of {count} letters", {"type": "string", "description": "k" * count}
    for branches, properties in ((10, 10), (100, 30), (500, 30)):
        yield (
            f"{branches} branches of {properties} properties",
            {
                "anyOf": [
                    {"type": "object", "properties": {f"p{b}_{i}": {"type": "string"} for i in range(properties)}}
                    for b in range(branches)
                ]
            },
        )


def big_numbers() -> Iterator[tuple[str, Any]]:
    """Yield schemas with numbers that no one means."""
    for number in (0, -1, 1, 10**4, 10**6, 2**31, 2**53, 2**63, 2**64, 10**30, 10**299, 10**5000, 1e308, 1e-308, -0.0):
        for key in ("minLength", "maxLength"):
            yield f"{key} {shown(number)}", {"type": "string", key: number}
        for key in ("minItems", "maxItems"):
            yield f"{key} {shown(number)}", {"type": "array", "items": {"type": "integer"}, key: number}
        for key in ("minProperties", "maxProperties"):
            yield f"{key} {shown(number)}", {"type": "object", key: number}
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
            yield f"{key} {shown(number)}", {"type": "number", key: number}
            yield f"{key} {shown(number)} of integers", {"type": "integer", key: number, "minimum": -(10**20)}
    odd: Any
    for odd in (float("nan"), float("inf"), -float("inf"), None, "3", [], {}, True):
        yield f"minimum {odd!r}", {"type": "number", "minimum": odd}
        yield f"const {odd!r}", {"const": odd}
        yield f"multipleOf {odd!r}", {"type": "number", "multipleOf": odd}


def shown(number: float) -> str:
    """Return a number in a few letters, however long it is."""
    return str(number)[:12] if isinstance(number, float) or abs(number) < 10**300 else "beyond 10**300"


PATTERNS = (
    *(
        "(a|b)*a(a|b){30}",
        "(a|b)*a(a|b){300}",
        "(.*a){25}",
        "((a{1,100}){1,100}){1,100}",
        "a{100000}",
        "(a{1000}){1000}",
    ),
    *("(((((a*)*)*)*)*)*", "(?i)" + "ab" * 1000, r"\p{L}{500}", r"[\w\W]{0,10000}", "(a?){50000}", ".*" * 500),
    *(
        "(" * 60_000 + ")" * 60_000,
        "(" * 200 + "a" + ")*" * 200,
        "[" * 500,
        "a" * 200_000,
        "|" * 50_000,
        "(?:a|b|)*" * 300,
    ),
    *(
        "\\",
        "(?=a)",
        "(?<!a)b",
        r"(a)\1",
        "(?P<n>a)(?P=n)",
        "*",
        "a**",
        "a{2,1}",
        "a{99999999999}",
        "[z-a]",
        "\x00",
        "$^",
        "a$b",
    ),
    *(r"\ud800", r"\x{110000}", r"[^\s\S]", "(?x) a # b", "é\u202e", r"\Q", "(?#", r"\b\B", "^*", "(|a)+" * 40),
    *("(x+x+)+y", "([a-z]+)*[0-9]{50}", "(a|aa|aaa)*b", "(.{0,50}x){20}", r"(\w+\s?){200}", "((ab)*c?){1,64}"),
)


def references() -> Iterator[tuple[str, Any]]:
    """Yield schemas whose references go in circles, nowhere, or elsewhere."""
    for target in (
        "#",
        "#/",
        "#/$defs/a",
        "#/$defs/a/b",
        "#/properties/a",
        "#a",
        "#/%",
        "#/%00",
        "#/~",
        "##",
        "",
        "a",
        "./a",
    ):
        yield f"$ref {target}", {"$ref": target, "$defs": {"a": {"$ref": target}}}
        yield (
            f"$ref {target} in a property",
            {"properties": {"a": {"$ref": target}}, "required": ["a"], "type": "object"},
        )
    for address in (
        "http://localhost:1/x",
        "file:///etc/passwd",
        "//x",
        "urn:x",
        "ftp://x/y#/z",
        "http://[::1]/",
        "data:,{}",
    ):
        yield f"$ref {address}", {"$ref": address}
        yield f"$schema {address}", {"$schema": address, "type": "string"}
        yield f"$id {address}", {"$id": address, "$ref": "x"}
    for length in (2, 50, 1_000):
        names = {f"d{i}": {"$ref": f"#/$defs/d{(i + 1) % length}"} for i in range(length)}
        yield f"a circle of {length} references", {"$ref": "#/$defs/d0", "$defs": names}
        chain = {
            f"d{i}": {
                "type": "object",
                "properties": {"n": {"$ref": f"#/$defs/d{(i + 1) % length}"}},
                "required": ["n"],
            }
            for i in range(length)
        }
        yield f"a circle of {length} objects", {"$ref": "#/$defs/d0", "$defs": chain}
        yield f"a circle of {length} backwards", {"$ref": f"#/$defs/d{length - 1}", "$defs": chain}
    loop: dict[str, Any] = {"type": "array"}
    loop["items"] = loop
    yield "a dict that holds itself", loop
    wide: dict[str, Any] = {"type": "array"}
    wide["prefixItems"] = [wide] * 50
    yield "a dict that holds itself 50 times", wide
    shared: Any = {"type": "string"}
    for _ in range(40):
        shared = {"anyOf": [shared, shared]}
    yield "a dict shared 2**40 times", shared


def odd_schemas() -> Iterator[tuple[str, Any]]:
    """Yield schemas that are malformed, or hold texts that no answer can."""
    odd: tuple[Any, ...] = (
        None,
        True,
        False,
        0,
        -1,
        1.5,
        "",
        "x",
        [],
        [1],
        {},
        {"a": 1},
        "\ud800",
        "\x00",
        "\u202e",
        b"x",
        {1},
    )
    keys = (
        *(
            "type",
            "properties",
            "required",
            "items",
            "prefixItems",
            "additionalProperties",
            "patternProperties",
            "enum",
        ),
        *("const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "pattern", "format", "minLength", "maxItems", "minimum"),
        *(
            "description",
            "title",
            "$schema",
            "$id",
            "$anchor",
            "x-guidance",
            "propertyNames",
            "uniqueItems",
            "if",
            "not",
        ),
    )
    for key in keys:
        for value in odd:
            yield f"{key}: {value!r:.20}", {key: value}
    for name in (
        "",
        "\x00",
        "\ud800",
        "a" * 100_000,
        "\u202e",
        '"',
        "\\",
        "\n",
        "💥" * 1000,
        "x-guidance",
        "$ref",
        "__proto__",
    ):
        yield (
            f"a property {name[:8]!r}",
            {"properties": {name: {"type": "string"}}, "required": [name], "type": "object"},
        )
        yield f"a const {name[:8]!r}", {"const": name}


def texts() -> Iterator[tuple[str, Any]]:
    """Yield what stands in place of a schema, as text or as another thing."""
    for text in (
        "",
        " ",
        "{",
        "[",
        "{}",
        "[]",
        '{"a":' * 50_000,
        "[" * 50_000,
        "null",
        "true",
        "NaN",
        '"x"',
        "\x00",
        "\ud800",
    ):
        yield f"text {text[:10]!r}", text
    for text in (
        "a" * 300_000,
        "a,a",
        "a b c",
        ",,,",
        ":",
        "a list[",
        "a list[list[int]]",
        ",".join(f"f{i}" for i in range(30_000)),
    ):
        yield f"short form {text[:10]!r}", text
    for other in (
        3,
        1.5,
        b"x",
        (),
        set(),
        object(),
        int,
        str,
        list,
        dict,
        type,
        lambda: 1,
        Ellipsis,
        range(3),
        print,
        NotImplemented,
    ):
        yield f"object {other!r:.20}", other


def grammars() -> Iterator[tuple[str, str]]:
    """Yield grammars in Lark and GBNF."""
    for depth in (10, 1_000, 40_000):
        yield f"groups {depth} deep", f'start: {"(" * depth}"a"{")" * depth}'
        yield f"GBNF groups {depth} deep", f'root ::= {"(" * depth}"a"{")" * depth}'
        yield (
            f"{depth} rules in a row",
            "\n".join(f"r{i}: r{i + 1} r{i + 1}" for i in range(depth // 4)) + "\nstart: r0\n",
        )
        doubling = "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(depth // 4))
        yield f"{depth} tokens that double", f'start: R0\n{doubling}\nR{depth // 4}: "a"\n'
        yield f"GBNF, {depth} rules", "root ::= r0\n" + "\n".join(f'r{i} ::= "a" | r{i + 1}' for i in range(depth // 8))
        yield f"{depth} alternatives", f"start: {'|'.join(f'{chr(34)}{i}{chr(34)}' for i in range(depth))}"
        yield f"a repeat of {depth}", f'start: "a"{{{depth}}}'
        yield f"a repeat of rules {depth}", f'start: b{{0,{depth}}}\nb: "a" | "aa" | "aaa"'
    for text in (
        *(
            "",
            "start:",
            'start: "a',
            "start: start",
            'start: start "a"',
            "start: b\nb: c\nc: b",
            'start: "a"\nstart: "b"',
            "x ::=",
        ),
        *(
            "start: /(/",
            "start: /a{100000}/ /b{100000}/",
            "%ignore /a*/\nstart: /a/",
            "start: @x",
            "start: <|nothing|>",
            "start: <[1-9]>",
        ),
        *(
            'start: %json {"type": "nothing"}',
            "start: %json {",
            'start: %json {"$ref": "http://x/"}',
            "%import x.y\nstart: A",
        ),
        *(
            "start: A\nA: B\nB: A",
            'start[temperature=9]: "a"',
            "start: \x00",
            "start: \ud800",
            "root ::= root",
            'root ::= "a" root',
        ),
        *(
            "root ::= [",
            "root ::= [^",
            'root ::= "a"{',
            "root ::= x",
            "foo ::= bar",
            "root ::= " + "(" * 5000,
            'root ::= "\\xZZ"',
        ),
        *(
            'start: (a | b)*\na: "x"*\nb: "x"*',
            'start: a*\na: ("x" | )*',
            "start: /.*/ & /.*a/ & ~/.*b.*/",
            "start: ~/a/",
            '{"grammars": []}',
        ),
        *(
            'start: %json {"x-guidance": {"lenient": true}, "uniqueItems": true}',
            'start: "é" /\\p{Han}{100}/',
            "start: /[\\s\\S]{0,50000}x/",
        ),
        *(f"start: /{'(x|y)*' * 300}/", "start: /(a|b)*a(a|b){60}/", '%llguidance {"x":1}\nstart: "a"'),
    ):
        yield f"grammar {text[:24]!r}", text


def odd_choices() -> Iterator[tuple[str, Any]]:
    """Yield choices that are none, too many or too long."""
    given: list[Any] = [
        [],
        [""],
        ["a"] * 2,
        "ab",
        3,
        [None],
        [float("nan")],
        ["\ud800"],
        ["\x00"],
        ['"\\\n'],
        [b"a"],
        [[]],
    ]
    for each in given:
        yield f"choices {each!r}", each
    yield "a choice of 300,000 letters", ["x" * 300_000]
    yield "a choice of 5,000 digits", [10**5000]
    yield "9,999 choices", [f"c{i}" for i in range(9_999)]
    yield "10,001 choices", [str(i) for i in range(10_001)]
    yield "choices that begin each other", ["a" * i for i in range(1, 600)]


def damaged(count: int, random_: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield usable inputs with a few characters changed."""
    schema = json.dumps(
        {
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": {"$ref": "#/$defs/I"}, "minItems": 1, "maxItems": 9},
                "n": {"type": "number", "minimum": 0, "maximum": 9},
                "s": {"type": "string", "pattern": "^[a-z]{2,5}$", "format": "date"},
                "e": {"enum": ["a", 1, None]},
            },
            "required": ["items", "n"],
            "$defs": {
                "I": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"i": {"$ref": "#/$defs/I"}}}]}
            },
        }
    )
    usable = {
        "schema": schema,
        "grammar": 'start: a ("," a)* | <box>\na: /[a-z]{1,9}/ b?\nb: "x"{2,3} | %json {"type": "integer"}\n',
        "regex": r"([a-z]{2,5}|\d+(\.\d{1,3})?)*[^x]?",
    }
    gbnf = 'root ::= item ("," item)*\nitem ::= [a-z]+ | "x"{2,3} | [^0-9]?\n'
    for number in range(count):
        kind = random_.choice([*usable, "gbnf"])
        letters = list(usable.get(kind, gbnf))
        for _ in range(random_.randint(1, 5)):
            place = random_.randrange(len(letters))
            action = random_.random()
            if action < 0.4:
                letters[place] = random_.choice('{}[]()"\\:,|*+?<>09az#/$ \n\x00é')
            elif action < 0.7:
                del letters[place]
            else:
                letters[place:place] = letters[place : place + random_.randint(1, 40)] * random_.randint(1, 9)
        yield f"damaged {kind} {number}", {"grammar" if kind == "gbnf" else kind: "".join(letters)}


def attacks(count: int) -> list[Attack]:
    """Return so many attacks, spread over all kinds, the same each time."""
    random_ = random.Random(SEED)
    schemas = [
        *big_schemas(), *big_numbers(), *references(), *odd_schemas(), *texts(),
        *((f"pattern {pattern[:20]!r}", {"type": "string", "pattern": pattern}) for pattern in PATTERNS),
        *((f"key pattern {pattern[:20]!r}", {"patternProperties": {pattern: {}}}) for pattern in PATTERNS),
    ]  # fmt: skip
    found = [Attack(name, {"schema": schema}) for name, schema in schemas]
    found += [
        Attack(f"tool with {name}", {"tools": [_tool(schema)]}) for name, schema in schemas[:: len(schemas) // 60]
    ]
    found += [Attack(f"regex {pattern[:20]!r}", {"regex": pattern}) for pattern in PATTERNS]
    found += [
        Attack(f"grammar with /{pattern[:20]!r}/", {"grammar": f'start: /{pattern}/ "x"'}) for pattern in PATTERNS
    ]
    found += [Attack(name, {"grammar": text}) for name, text in grammars()]
    found += [Attack(name, {"choices": given}) for name, given in odd_choices()]
    random_.shuffle(found)
    whole = found + [Attack(name, given) for name, given in damaged(max(count - len(found), count // 5), random_)]
    if len(whole) > count:
        whole = random_.sample(whole, count)
    return whole


def _tool(schema: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": schema}}
    return {"type": "function", "function": {"name": "f", "description": "", "parameters": parameters}}
