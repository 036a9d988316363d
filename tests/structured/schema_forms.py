"""The most usual forms of JSON schemas, with texts that an answer may be and texts that it may not be."""

# ruff: noqa: E501  # a table: a form a line

from __future__ import annotations

from typing import Any, NamedTuple

Schema = dict[str, Any]


class Form(NamedTuple):
    """A schema, texts that fit it, and texts that do not."""

    schema: Schema
    fits: list[str]
    fits_not: list[str]


def _object(properties: Schema, *required: str, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), **more}


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}

SCALARS = [
    Form(TEXT, ['""', '"a"', '"é 日本 💥"', r'"a\"b\\c\nd"'], ["a", "1", "null", "'a'", '"a', '"a\nb"', '"a" ']),
    Form(WHOLE, ["0", "-1", "123456789012345678901234567890"], ["1.5", "01", "1e3", "+1", "--1", '"1"', "true", ""]),
    Form(NUMBER, ["0", "-1", "1.5", "-0.25", "1e10", "1.5E-3"], [".5", "1.", "NaN", "Infinity", "0x1", "1,5", '"1"']),
    Form(FLAG, ["true", "false"], ["True", "1", "null", '"true"', "tru"]),
    Form(NULL, ["null"], ["None", "0", '""', "nul"]),
    Form({"type": ["string", "null"]}, ['"a"', "null"], ["1", "true"]),
    Form({"type": ["integer", "string"]}, ["1", '"a"'], ["1.5", "null"]),
    Form({"type": ["integer", "number"]}, ["1", "1.5"], ["null"]),
    Form({"type": ["boolean", "null", "number"]}, ["true", "null", "2.5"], ['"a"', "[]"]),
    Form({}, ["1", '"a"', "null", "[]", "{}", '{"a": [1, {"b": null}]}', "[true, 1.5]"], ["", "a", "[1,2]", '{"a":1}']),
    Form({"description": "anything"}, ["1", "{}"], ["x"]),
    Form({"const": "a"}, ['"a"'], ['"b"', "a", '"a "']),
    Form({"const": 3}, ["3"], ["4", '"3"', "33"]),
    Form({"const": 1.5}, ["1.5"], ["1", "1.55"]),
    Form({"const": None}, ["null"], ["0"]),
    Form({"const": True}, ["true"], ["false", "1"]),
    Form({"const": [1, "a"]}, ['[1, "a"]'], ['[1,"a"]', "[1]", "[]"]),
    Form({"const": {"a": 1, "b": [2]}}, ['{"a": 1, "b": [2]}'], ['{"a": 1}', "{}"]),
    Form({"enum": ["red", "green"]}, ['"red"', '"green"'], ['"blue"', "red", '"redgreen"']),
    Form({"enum": [1, 2, 10]}, ["1", "2", "10"], ["3", "0", "11"]),
    Form({"enum": ["a", 1, None, True]}, ['"a"', "1", "null", "true"], ["false", '"b"']),
    Form({"enum": ["a", "ab", "abc"]}, ['"a"', '"ab"', '"abc"'], ['"abcd"', '"b"']),
    Form({"enum": ["", " "]}, ['""', '" "'], ['"  "']),
    Form({"enum": ["it's \"so\"", "a\\b", "ü"]}, [r'"it' + "'" + r's \"so\""', r'"a\\b"', '"ü"'], ['"u"']),
    Form({"type": "string", "enum": ["a", "b"]}, ['"a"'], ['"c"']),
    Form({"enum": [{"x": 1}, [1]]}, ['{"x": 1}', "[1]"], ["{}", "[]"]),
]  # fmt: skip

TEXTS = [
    Form({"type": "string", "minLength": 2}, ['"ab"', '"abc"', '"éé"'], ['"a"', '""']),
    Form({"type": "string", "maxLength": 2}, ['""', '"ab"', '"💥💥"'], ['"abc"']),
    Form({"type": "string", "minLength": 1, "maxLength": 3}, ['"a"', '"abc"'], ['""', '"abcd"']),
    Form({"type": "string", "minLength": 2, "maxLength": 2}, ['"ab"'], ['"a"', '"abc"']),
    Form({"type": "string", "maxLength": 0}, ['""'], ['"a"']),
    Form({"type": "string", "pattern": "^[a-z]+$"}, ['"abc"'], ['"ABC"', '""', '"a1"']),
    Form({"type": "string", "pattern": "^a"}, ['"a"', '"abc"'], ['"ba"', '""']),
    Form({"type": "string", "pattern": "z$"}, ['"z"', '"abz"'], ['"za"']),
    Form({"type": "string", "pattern": "b"}, ['"abc"', '"b"'], ['"ac"', '""']),
    Form({"type": "string", "pattern": r"^\d{3}-\d{4}$"}, ['"555-1234"'], ['"5551234"', '"55-1234"', '"555-12345"']),
    Form({"type": "string", "pattern": r"^(foo|bar)\.txt$"}, ['"foo.txt"', '"bar.txt"'], ['"baz.txt"', '"footxt"']),
    Form({"type": "string", "pattern": r"^\S+@\S+$"}, ['"a@b"'], ['"a b@c"', '"ab"']),
    Form({"type": "string", "pattern": r"^[A-Z]{2}\d{2}( ?\w{4}){2}$"}, ['"DE12 abcd1234"'], ['"de12 abcd1234"']),
    Form({"type": "string", "pattern": "^[^ab]*$"}, ['"xyz"', r'"\"\\"'], ['"xay"']),
    Form({"type": "string", "pattern": "^a{2,3}$", "maxLength": 5}, ['"aa"', '"aaa"'], ['"a"', '"aaaa"']),
    Form({"type": "string", "pattern": "^[a-z]*$", "minLength": 2}, ['"ab"'], ['"a"']),
    Form({"type": "string", "pattern": "^(?i:yes|no)$"}, ['"YES"', '"no"'], ['"maybe"']),
    Form({"type": "string", "format": "date"}, ['"2024-02-29"', '"1999-12-31"'], ['"2024-13-01"', '"2024-1-1"', '"x"']),
    Form({"type": "string", "format": "time"}, ['"12:30:00Z"', '"23:59:59+02:00"'], ['"24:00:00Z"', '"12:30"']),
    Form({"type": "string", "format": "date-time"}, ['"2024-01-01T12:30:00Z"'], ['"2024-01-01"', '"2024-01-01 12:30:00Z"']),
    Form({"type": "string", "format": "duration"}, ['"P1DT2H"', '"PT5M"', '"P2W"'], ['"1 day"', '"P"']),
    Form({"type": "string", "format": "email"}, ['"a.b@example.org"'], ['"a b@c"', '"a"', '"@c"']),
    Form({"type": "string", "format": "hostname"}, ['"example.org"'], ['"-a"', '"a_b"']),
    Form({"type": "string", "format": "ipv4"}, ['"127.0.0.1"', '"255.255.255.255"'], ['"256.0.0.1"', '"1.2.3"']),
    Form({"type": "string", "format": "ipv6"}, ['"::1"', '"2001:db8::8:800:200c:417a"'], ['"1.2.3.4"', '":::"']),
    Form({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"', '"x"']),
    Form({"type": "string", "format": "uri"}, ['"https://example.org/a?b=c#d"'], ['"example"', '"a b"']),
    Form({"type": "string", "format": "date", "description": "day"}, ['"2024-01-31"'], ['"2024-01-32"']),
    Form({"type": "string", "format": "password"}, ['"x"'], ["x"]),
    Form({"type": "string", "pattern": r"^[^\x00-\x1f]+$"}, ['"a b"'], [r'"a\nb"', '""']),
    Form({"const": r"\u0001"}, [r'"\\u0001"'], [r'"\u0001"']),
    Form({"type": "string", "contentEncoding": "base64"}, ['"YQ=="'], ["1"]),
]  # fmt: skip

NUMBERS = [
    Form({"type": "integer", "minimum": 0}, ["0", "5", "100"], ["-1"]),
    Form({"type": "integer", "maximum": 10}, ["10", "0", "-99"], ["11", "100"]),
    Form({"type": "integer", "minimum": 1, "maximum": 5}, ["1", "3", "5"], ["0", "6", "15"]),
    Form({"type": "integer", "minimum": -3, "maximum": 3}, ["-3", "0", "3"], ["-4", "4"]),
    Form({"type": "integer", "exclusiveMinimum": 0}, ["1", "10"], ["0", "-1"]),
    Form({"type": "integer", "exclusiveMaximum": 10}, ["9", "-1"], ["10", "11"]),
    Form({"type": "integer", "minimum": 18, "maximum": 120}, ["18", "99", "120"], ["17", "121"]),
    Form({"type": "integer", "minimum": 1000, "maximum": 9999}, ["1000", "5432"], ["999", "10000"]),
    Form({"type": "integer", "multipleOf": 5}, ["0", "5", "100", "-5"], ["1", "7", "101"]),
    Form({"type": "integer", "multipleOf": 3, "minimum": 0, "maximum": 20}, ["0", "18"], ["20", "-3", "21"]),
    Form({"type": "number", "minimum": 0}, ["0", "0.5", "10.25"], ["-1", "-0.5"]),
    Form({"type": "number", "maximum": 1}, ["1", "0.99", "-5.5"], ["1.01", "2"]),
    Form({"type": "number", "minimum": 0, "maximum": 1}, ["0", "0.5", "1", "1.0"], ["1.1", "-0.1", "2"]),
    Form({"type": "number", "exclusiveMinimum": 0}, ["0.1", "3"], ["0", "-1"]),
    Form({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, ["0.5"], ["0", "1"]),
    Form({"type": "number", "multipleOf": 0.5}, ["0.5", "2", "2.5"], ["0.3", "2.25"]),
    Form({"type": "number", "multipleOf": 0.01}, ["0.01", "19.99"], ["0.001"]),
    Form({"type": "number", "minimum": -90, "maximum": 90}, ["-90", "45.5", "90"], ["-90.1", "91"]),
    Form({"type": "number", "minimum": 0.5, "maximum": 2.5}, ["0.5", "1", "2.5"], ["0.4", "2.6"]),
    Form({"allOf": [{"type": "integer", "multipleOf": 4}, {"multipleOf": 6}]}, ["0", "12"], ["4", "6"]),
    Form({"type": "integer", "minimum": 3, "maximum": 3}, ["3"], ["2", "4"]),
    Form({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, ["4"], ["3"]),
    Form({"type": "number", "minimum": 0, "multipleOf": 10}, ["0", "20"], ["-10", "5"]),
]

ARRAYS = [
    Form({"type": "array"}, ["[]", '[1, "a", null, [2]]'], ["[1,2]", "{}", "[1", "[1, ]"]),
    Form({"type": "array", "items": TEXT}, ["[]", '["a"]', '["a", "b"]'], ["[1]", '["a", 1]', '["a""b"]']),
    Form({"type": "array", "items": WHOLE}, ["[]", "[1, 2, 3]"], ['["a"]', "[1.5]"]),
    Form({"type": "array", "items": {}}, ["[]", "[1, {}]"], ["1"]),
    Form({"type": "array", "items": WHOLE, "minItems": 1}, ["[1]", "[1, 2]"], ["[]"]),
    Form({"type": "array", "items": WHOLE, "maxItems": 2}, ["[]", "[1, 2]"], ["[1, 2, 3]"]),
    Form({"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 3}, ["[1, 2]", "[1, 2, 3]"], ["[1]", "[1, 2, 3, 4]"]),
    Form({"type": "array", "items": NUMBER, "minItems": 4, "maxItems": 4}, ["[1, 2, 3.5, 4]"], ["[1, 2, 3]"]),
    Form({"type": "array", "items": {"type": "array", "items": WHOLE}}, ["[]", "[[], [1], [1, 2]]"], ["[1]"]),
    Form({"type": "array", "items": {"enum": ["a", "b"]}}, ['["a", "a"]'], ['["c"]']),
    Form({"type": "array", "items": {"type": ["integer", "null"]}}, ["[1, null]"], ['["a"]']),
    Form({"type": "array", "prefixItems": [TEXT, WHOLE]}, ["[]", '["a"]', '["a", 1]', '["a", 1, null]'], ["[1]", '["a", "b"]']),
    Form({"type": "array", "prefixItems": [TEXT, WHOLE], "items": False}, ['["a", 1]', "[]"], ['["a", 1, 2]']),
    Form({"type": "array", "prefixItems": [TEXT, WHOLE], "minItems": 2, "maxItems": 2}, ['["a", 1]'], ['["a"]', '["a", 1, 2]']),
    Form({"type": "array", "prefixItems": [TEXT], "items": WHOLE}, ['["a", 1, 2]'], ['["a", "b"]']),
    Form({"type": "array", "items": [TEXT, WHOLE], "additionalItems": False}, ['["a", 1]'], ['["a", 1, 2]']),
    Form({"type": "array", "items": [TEXT], "additionalItems": WHOLE}, ['["a", 1]'], ['["a", "b"]']),
    Form({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    Form({"type": "array", "items": _object({"a": WHOLE}, "a")}, ["[]", '[{"a": 1}, {"a": 2}]'], ["[{}]", '[{"b": 1}]']),
    Form({"type": "array", "items": {"anyOf": [TEXT, WHOLE]}}, ['["a", 1]'], ["[null]"]),
    Form({"type": "array", "items": FLAG, "uniqueItems": False}, ["[true, true]"], ["[1]"]),
    Form({"type": ["array", "null"], "items": TEXT}, ["null", '["a"]'], ["[1]"]),
]  # fmt: skip

OBJECTS = [
    Form({"type": "object"}, ["{}", '{"a": 1}', '{"a": {"b": []}}'], ["[]", '{"a":1}', '{"a": 1,"b": 2}', "{", "{a: 1}"]),
    Form(_object({"a": TEXT}, "a"), ['{"a": "x"}'], ["{}", '{"a": 1}', '{"b": "x"}', '{"a": "x", "b": 1}']),
    Form(_object({"a": TEXT}), ["{}", '{"a": "x"}'], ['{"a": null}', '{"b": 1}']),
    Form(_object({"a": TEXT, "b": WHOLE}, "a", "b"), ['{"a": "x", "b": 1}'], ['{"a": "x"}', '{"b": 1, "a": "x"}']),
    Form(_object({"a": TEXT, "b": WHOLE}, "b"), ['{"b": 1}', '{"a": "x", "b": 1}'], ['{"a": "x"}', "{}"]),
    Form(_object({"a": TEXT, "b": WHOLE}), ["{}", '{"a": "x"}', '{"b": 1}', '{"a": "x", "b": 1}'], ['{"c": 1}']),
    Form(_object({"a": TEXT, "b": WHOLE, "c": FLAG}, "a", "c"), ['{"a": "x", "c": true}'], ['{"a": "x", "b": 1}']),
    Form(_object({"a": TEXT}, "a", additionalProperties=False), ['{"a": "x"}'], ['{"a": "x", "b": 1}']),
    Form(_object({"a": TEXT}, "a", additionalProperties=True), ['{"a": "x", "b": 1}'], ['{"b": 1}']),
    Form(_object({"a": TEXT}, "a", additionalProperties=WHOLE), ['{"a": "x", "b": 1}'], ['{"a": "x", "b": "y"}']),
    Form({"type": "object", "additionalProperties": TEXT}, ["{}", '{"a": "x", "b": "y"}'], ['{"a": 1}']),
    Form({"type": "object", "additionalProperties": {"type": "array", "items": WHOLE}}, ['{"a": [1]}'], ['{"a": 1}']),
    Form(_object({"a": WHOLE}, additionalProperties=TEXT), ['{"a": 1, "b": "x"}'], [r'{"\u0061": "x"}', '{"a": "x"}']),
    Form({"type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    Form({"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
    Form({"properties": {"a": WHOLE}, "type": "object"}, ["{}", '{"a": 1}'], ['{"a": "x"}']),
    Form({"type": "object", "patternProperties": {"^x-": TEXT}, "additionalProperties": False}, ['{"x-a": "b"}'], ['{"a": "b"}']),
    Form({"type": "object", "patternProperties": {"^n": WHOLE}}, ['{"n1": 1}', '{"a": "b"}'], ['{"n1": "b"}']),
    Form({"type": "object", "required": ["a"]}, ['{"a": 1}', '{"a": null, "b": 2}'], ["{}", '{"b": 1}']),
    Form({"type": "object", "minProperties": 1}, ['{"a": 1}'], ["{}"]),
    Form({"type": "object", "maxProperties": 1}, ["{}", '{"a": 1}'], ['{"a": 1, "b": 2}']),
    Form({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": WHOLE}, ['{"a": 1}', "{}"], ['{"c": 1}']),
    Form({"type": "object", "propertyNames": {"pattern": "^[a-z]$"}}, ['{"a": 1}'], ['{"ab": 1}', '{"A": 1}']),
    Form({"type": "object", "propertyNames": {"type": "string"}}, ['{"a": 1}'], ["[]"]),
    Form(_object({"a": _object({"b": WHOLE}, "b")}, "a"), ['{"a": {"b": 1}}'], ['{"a": {}}', '{"a": 1}']),
    Form(_object({"a": _object({"b": _object({"c": TEXT}, "c")}, "b")}, "a"), ['{"a": {"b": {"c": "x"}}}'], ['{"a": {"b": {}}}']),
    Form(_object({"a b": WHOLE, "ü": WHOLE, "": WHOLE}, "a b", "ü", ""), ['{"a b": 1, "ü": 2, "": 3}'], ['{"a b": 1, "ü": 2}']),
    Form(_object({'a"b\\': WHOLE}, 'a"b\\'), [r'{"a\"b\\": 1}'], ['{"ab": 1}']),
    Form(_object({"a": {}}, "a"), ['{"a": null}', '{"a": {"b": 1}}'], ["{}"]),
    Form(_object({"a": {"const": 1}, "b": {"enum": ["x"]}}, "a", "b"), ['{"a": 1, "b": "x"}'], ['{"a": 2, "b": "x"}']),
    Form(_object({"a": {"type": ["string", "null"]}}, "a"), ['{"a": null}', '{"a": "x"}'], ["{}", '{"a": 1}']),
    Form(_object({"a": FLAG, "b": FLAG}, unevaluatedProperties=False), ['{"a": true}'], ['{"c": true}']),
    Form(_object({"a": False, "b": WHOLE}), ['{"b": 1}', "{}"], ['{"a": 1}']),
    Form(_object({"a": True}, "a"), ['{"a": 1}'], ["{}"]),
    Form({"type": ["object", "null"], "properties": {"a": WHOLE}}, ["null", '{"a": 1}'], ['{"a": "x"}']),
    Form(_object({"type": TEXT, "properties": WHOLE}, "type", "properties"), ['{"type": "x", "properties": 1}'], ["{}"]),
    Form(_object({"a": WHOLE}, "a", title="T", description="D", examples=[{"a": 1}], default={}), ['{"a": 1}'], ["{}"]),
]  # fmt: skip

_CAT = _object({"kind": {"const": "cat"}, "lives": WHOLE}, "kind", "lives")
_DOG = _object({"kind": {"const": "dog"}, "name": TEXT}, "kind", "name")

COMBINED = [
    Form({"anyOf": [TEXT, WHOLE]}, ['"a"', "1"], ["null", "1.5"]),
    Form({"anyOf": [TEXT, NULL]}, ['"a"', "null"], ["1"]),
    Form({"anyOf": [_CAT, _DOG]}, ['{"kind": "cat", "lives": 9}', '{"kind": "dog", "name": "x"}'], ['{"kind": "cat", "name": "x"}']),
    Form({"anyOf": [{"type": "array", "items": WHOLE}, WHOLE]}, ["[1, 2]", "1"], ["[[1]]"]),
    Form({"anyOf": [{"type": "string", "maxLength": 1}, {"type": "string", "minLength": 3}]}, ['"a"', '"abc"'], ['"ab"']),
    Form({"anyOf": [{"const": 1}, {"const": 2}, {"const": "x"}]}, ["1", "2", '"x"'], ["3"]),
    Form({"oneOf": [TEXT, WHOLE]}, ['"a"', "1"], ["null"]),
    Form({"oneOf": [TEXT, NULL]}, ['"a"', "null"], ["1"]),
    Form({"oneOf": [{"const": "a"}, {"const": "b"}]}, ['"a"', '"b"'], ['"c"']),
    Form({"oneOf": [{"enum": [1, 2]}, {"enum": [3]}]}, ["1", "3"], ["4"]),
    Form({"oneOf": [_CAT, _DOG]}, ['{"kind": "cat", "lives": 9}', '{"kind": "dog", "name": "x"}'], ['{"kind": "cow"}']),
    Form({"oneOf": [{"$ref": "#/$defs/c"}, {"$ref": "#/$defs/d"}], "$defs": {"c": _CAT, "d": _DOG}}, ['{"kind": "cat", "lives": 9}'], ["{}"]),
    Form({"oneOf": [{"$ref": "#/$defs/c"}, NULL], "$defs": {"c": _CAT}}, ["null", '{"kind": "cat", "lives": 9}'], ["1"]),
    Form({"oneOf": [_CAT, _DOG], "discriminator": {"propertyName": "kind"}}, ['{"kind": "dog", "name": "x"}'], ["{}"]),
    Form({"allOf": [TEXT]}, ['"a"'], ["1"]),
    Form({"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 3}]}, ['"ab"', '"abc"'], ['"a"', '"abcd"']),
    Form({"allOf": [{"type": "integer", "minimum": 1}, {"maximum": 5}]}, ["1", "5"], ["0", "6"]),
    Form({"allOf": [{"pattern": "^a", "type": "string"}, {"pattern": "z$"}]}, ['"az"', '"abz"'], ['"a"', '"z"']),
    Form({"allOf": [_object({"a": WHOLE}, "a"), _object({"b": TEXT}, "b")]}, ['{"a": 1, "b": "x"}'], ['{"a": 1}', '{"b": "x"}']),
    Form({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": _object({"x": WHOLE}, "x")}}, ['{"x": 1}'], ["{}"]),
    Form({"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]}, ["2", "3"], ["1", "4"]),
    Form({"type": "object", "properties": {"a": WHOLE}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, ['{"a": 1}', '{"b": 2}'], ["{}"]),
    Form({"type": "string", "anyOf": [{"const": "a"}, {"const": "b"}]}, ['"a"'], ['"c"']),
    Form(_object({"a": {"anyOf": [WHOLE, NULL], "default": None}}), ["{}", '{"a": null}', '{"a": 1}'], ['{"a": "x"}']),
]  # fmt: skip

_NODE = {"value": WHOLE, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, NULL]}}
_TREE = {"name": TEXT, "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}

REFERENCES = [
    Form({"$ref": "#/$defs/a", "$defs": {"a": WHOLE}}, ["1"], ['"a"']),
    Form({"$ref": "#/definitions/a", "definitions": {"a": TEXT}}, ['"a"'], ["1"]),
    Form(_object({"a": {"$ref": "#/$defs/p"}, "b": {"$ref": "#/$defs/p"}}, "a", "b", **{"$defs": {"p": FLAG}}), ['{"a": true, "b": false}'], ['{"a": 1, "b": true}']),
    Form({"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": _object({"x": WHOLE}, "x")}}, ['[{"x": 1}]'], ["[1]"]),
    Form({"$ref": "#/$defs/Node", "$defs": {"Node": _object(_NODE, "value", "next")}}, ['{"value": 1, "next": {"value": 2, "next": null}}'], ['{"value": 1}']),
    Form({"$ref": "#/$defs/Node", "$defs": {"Node": _object(_NODE, "value")}}, ['{"value": 1}', '{"value": 1, "next": {"value": 2}}'], ["null"]),
    Form({"$ref": "#/$defs/Tree", "$defs": {"Tree": _object(_TREE, "name", "children")}}, ['{"name": "a", "children": [{"name": "b", "children": []}]}'], ["{}"]),
    Form(_object({"child": {"$ref": "#"}}), ["{}", '{"child": {"child": {}}}'], ['{"child": 1}']),
    Form({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": NULL}}, ["null"], ["1"]),
    Form({"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": WHOLE}}, ["1"], ["null"]),
    Form({"$ref": "#x", "$defs": {"a": {"$anchor": "x", "type": "integer"}}}, ["1"], ["null"]),
    Form({"$ref": "#/properties/a", "properties": {"a": WHOLE}}, ["1"], ["1.5"]),
    Form({"$ref": "#/$defs/a", "description": "said", "$defs": {"a": WHOLE}}, ["1"], ["null"]),
    Form({"$ref": "#/$defs/a", "maximum": 5, "$defs": {"a": WHOLE}}, ["5"], ["6"]),
    Form({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.org/s", "type": "integer"}, ["1"], ["null"]),
    Form({"$schema": "http://json-schema.org/draft-07/schema#", "type": "integer"}, ["1"], ["null"]),
]  # fmt: skip

_ITEM = _object({"name": TEXT, "price": {"type": "number", "minimum": 0}, "count": WHOLE}, "name", "price")
_POINT = _object(
    {"x": {"type": "integer", "minimum": 0, "maximum": 1000}, "y": {"type": "integer", "minimum": 0}}, "x", "y"
)

WHOLE_ANSWERS = [
    Form(
        _object({"shop": TEXT, "items": {"type": "array", "items": _ITEM}, "total": NUMBER}, "shop", "items", "total"),
        ['{"shop": "x", "items": [{"name": "a", "price": 1.5}], "total": 1.5}', '{"shop": "", "items": [], "total": 0}'],
        ['{"shop": "x", "items": [{"name": "a"}], "total": 1}', '{"shop": "x", "items": []}'],
    ),
    Form(
        _object({"label": TEXT, "box": {"type": "array", "items": WHOLE, "minItems": 4, "maxItems": 4}}, "label", "box"),
        ['{"label": "cat", "box": [1, 2, 3, 4]}'],
        ['{"label": "cat", "box": [1, 2, 3]}'],
    ),
    Form(
        _object({"points": {"type": "array", "items": _POINT, "maxItems": 2}}, "points"),
        ['{"points": [{"x": 0, "y": 5}]}'],
        ['{"points": [{"x": 1001, "y": 5}]}'],
    ),
    Form(
        _object({"mood": {"enum": ["good", "bad"]}, "score": {"type": "number", "minimum": 0, "maximum": 1}}, "mood", "score"),
        ['{"mood": "good", "score": 0.75}'],
        ['{"mood": "ok", "score": 0.75}', '{"mood": "bad", "score": 7}'],
    ),
    Form(
        _object({"when": {"type": "string", "format": "date"}, "tags": {"type": "array", "items": TEXT}}, "when"),
        ['{"when": "2024-05-01"}', '{"when": "2024-05-01", "tags": ["a", "b"]}'],
        ['{"when": "May", "tags": []}'],
    ),
    Form(
        _object({"pet": {"anyOf": [_CAT, _DOG, NULL]}}, "pet"),
        ['{"pet": null}', '{"pet": {"kind": "dog", "name": "Rex"}}'],
        ['{"pet": {"kind": "dog"}}', "{}"],
    ),
]  # fmt: skip

FORMS = [*SCALARS, *TEXTS, *NUMBERS, *ARRAYS, *OBJECTS, *COMBINED, *REFERENCES, *WHOLE_ANSWERS]

REFUSED: list[tuple[Schema, str]] = [
    ({"type": "array", "uniqueItems": True}, "`uniqueItems` at #"),
    ({"type": "array", "contains": WHOLE}, "`contains` at #"),
    ({"not": TEXT}, "`not` at #"),
    ({"if": TEXT, "then": {"minLength": 1}}, "`if` and `then` at #"),
    (_object({"a": {"type": "array", "contains": WHOLE, "minContains": 2}}), "at #/properties/a"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "object", "dependentSchemas": {"a": {}}}, "dependentSchemas"),
    ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
    ({"allOf": [{"properties": {"a": WHOLE}}], "unevaluatedProperties": False}, "unevaluatedProperties"),
    ({"$dynamicRef": "#a"}, "$dynamicRef"),
    ({"oneOf": [WHOLE, NUMBER]}, "oneOf"),
    ({"oneOf": [_object({"a": WHOLE}), _object({"b": WHOLE})]}, "oneOf"),
    ({"type": "string", "format": "regex"}, "format 'regex'"),
    ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    ({"type": "string", "pattern": r"(a)\1"}, "backreferences"),
    ({"type": "string", "pattern": '^[^"]*$'}, "excludes a quote"),
    ({"type": "string", "pattern": r"^[^\\/]*$"}, "excludes a quote or a backslash"),
    ({"type": "string", "pattern": "^[^!-~]$"}, "excludes a quote"),
    ({"type": "object", "patternProperties": {r"[^\x22]": {}}}, "excludes a quote"),
    ({"type": "string", "pattern": "a\\"}, "ends in a backslash"),
    (_object({"a": {"patternProperties": {"a\\": TEXT}}}), "ends in a backslash"),
    ({"enum": []}, "enum is empty at #."),
    ({"type": "array", "items": {"anyOf": []}, "minItems": 1}, "anyOf is empty at #/items."),
    ({"const": "a\x01b"}, "control character at #"),
    ({"enum": ["a", ["\x7f"]]}, "control character"),
    (_object({"\x00": WHOLE}), "control character"),
    ({"type": "string", "pattern": r"^a\x01$"}, "control character"),
    ({"type": "string", "pattern": "("}, "unclosed group"),
    ({"type": "string", "x-guidance": {"lenient": True}}, "x-guidance at #"),
    (_object({"a": {"x-guidance": {"lenient": True}, "uniqueItems": True}}), "x-guidance at #/properties/a"),
    ({"$ref": "https://example.org/x.json"}, "https://example.org/x.json"),
    ({"$ref": "other.json#/a"}, "other.json"),
    ({"$ref": "#/$defs/a"}, "#/$defs/a"),
    ({"$ref": "#"}, "recursive without end"),
    ({"$ref": "#/$defs/a", "$defs": {"a": _object({"b": {"$ref": "#/$defs/a"}}, "b")}}, "recursive without end"),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "recursive without end"),
    (
        {"anyOf": [NULL, {"$ref": "#/$defs/a"}], "$defs": {"a": _object({"b": {"$ref": "#/$defs/a"}}, "b")}},
        "without end",
    ),
    ({"enum": []}, "No answer fits"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength (3) is greater than maxLength (2) at #."),
    (
        _object({"a": {"type": "array", "items": {"type": "integer", "minimum": 3, "maximum": 2}, "minItems": 1}}, "a"),
        "minimum (3) is greater than maximum (2) at #/properties/a/items.",
    ),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems (3) is greater than maxItems (2) at #."),
    ({"type": "object", "minProperties": 3, "maxProperties": 2}, "minProperties (3) is greater than maxProperties (2)"),
    ({"type": "number", "exclusiveMinimum": 2, "maximum": 2}, "exclusiveMinimum (2) is equal to maximum (2) at #."),
    (
        {"$defs": {"Age": {"type": "integer", "minimum": 3, "maximum": 2.5}}, "$ref": "#/$defs/Age"},
        "minimum (3) is greater than maximum (2.5) at #/$defs/Age.",
    ),
    ({"type": "integer", "minimum": 3, "allOf": [{"maximum": 2}]}, "minimum (3) is greater than maximum (2) at #."),
    ({"type": "string", "enum": [1]}, "No answer fits"),
    ({"allOf": [TEXT, WHOLE]}, "No answer fits"),
    (_object({"a": TEXT}, "b", additionalProperties=False), "No answer fits"),
    (_object({"a": False}, "a"), "No answer fits"),
    ({"type": "text"}, "Invalid type"),
    ({"type": 3}, "type"),
    ({"properties": []}, "properties"),
    ({"type": "string", "minLength": -1}, "minLength"),
    ({"type": "number", "multipleOf": 2**31}, "multipleOf"),
    ({"allOf": [{"type": "string", "pattern": f"a{i}"} for i in range(7)]}, "more than 6 patterns"),
    ({"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]}, "multiple of several"),
    (_object({f"k{i}": WHOLE for i in range(1001)}), "more than 1000 properties"),
    ({"const": float("nan")}, "nan"),
    ({"const": 10**400}, "300 digits"),
    ({"title": "\ud800"}, "surrogate"),
]
"""Schemas that are refused, and words of the message."""
