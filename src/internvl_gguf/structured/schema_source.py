"""Schemas as `schema=` takes them (JSON, types, the short form), made a plain JSON schema and a reader of answers."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.errors import InvalidAnswerError, InvalidRequestError
from internvl_gguf.structured.libraries import library
from internvl_gguf.structured.schema_tree import MAX_BYTES, plain_schema, walk
from internvl_gguf.utils.arguments import shown
from internvl_gguf.utils.safe_text import error_line, quoted, safe_name

FORMATS: Final = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown")
)
"""Formats of texts that llguidance binds an answer to."""
_SAYS_NOTHING: Final = frozenset(("int32", "int64", "float", "double", "password", "binary", "byte"))
"""Formats of OpenAPI, which no text is refused for."""

_KEY: Final = re.compile(r"[^\W\d][\w-]*")
_TYPES: Final = {
    "str": "string", "string": "string", "int": "integer", "integer": "integer", "float": "number", "number": "number",
    "bool": "boolean", "boolean": "boolean",
}  # fmt: skip
_WORDS: Final = ("true", "false", "null")
"""JSON texts that would pass for names of keys in the short form."""
_LIST: Final = re.compile(r"list(?:\[\s*(\w+)\s*\])?\Z")
_FORMS: Final = 'Write it as "name, age int, tags list", or one field a line as `name type: description`.'
_GIVE_TEXT: Final = 'Give a JSON schema, or "name, age int, tags list".'
_GIVE: Final = 'Give a JSON schema, a pydantic model, a dataclass, another type, or "name, age int, tags list".'


@dataclass(frozen=True)
class SchemaSource:
    """A schema of the caller's.

    Attributes:
        schema: plain JSON schema.
        read: makes the value of a finished answer from its text; raises `InvalidAnswerError`.
        is_checked: whether `read` refuses what does not fit, so that the text need not be matched with the grammar.
    """

    schema: dict[str, Any]
    read: Callable[[str], Any]
    is_checked: bool


def schema_source(given: object) -> SchemaSource:
    """Return the schema that a caller gave in any of the forms.

    Raises:
        InvalidRequestError: it is none of them, or one that is wrong.
    """
    if isinstance(given, str):
        given = _from_text(given)
    if given is True:
        return SchemaSource({}, read_json, False)
    if given is False:
        raise InvalidRequestError("The schema is false, which no answer fits.", _GIVE)
    if isinstance(given, Mapping):
        return SchemaSource(with_known_formats(plain_schema(given)), read_json, False)
    if given is None or isinstance(given, int | float | bytes | list | tuple | set) or inspect.isroutine(given):
        raise InvalidRequestError(f"The schema is {shown(given)}.", _GIVE)
    return _of_type(given)


def read_json(text: str) -> Any:
    """Return the value of a finished JSON text.

    Raises:
        InvalidAnswerError: it is none, or one that Python cannot hold.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        is_cut = not isinstance(error, json.JSONDecodeError) or error.pos >= len(text) or "Unterminated" in error.msg
        hint = "It may have been cut off: give it more max_tokens." if is_cut else "Nothing may stand beside the JSON."
        raise InvalidAnswerError(f"The answer is not JSON: {error_line(error)}.", hint) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def _from_text(text: str) -> dict[str, Any] | bool:
    """Return the schema that a text holds: JSON, true and false among it, or the short form."""
    if len(text) > MAX_BYTES:
        raise InvalidRequestError(f"The schema is larger than {MAX_BYTES // 1024} KiB.", "Give a smaller one.")
    if text.strip() in _WORDS or text.lstrip().startswith(("{", "[", '"')):
        try:
            schema = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"The schema is not JSON: {error_line(error)}.", _GIVE_TEXT) from None
        if not isinstance(schema, dict | bool):
            what = "null" if schema is None else shown(schema)
            raise InvalidRequestError(f"The schema is {what}.", _GIVE_TEXT)
        return schema
    return short_form(text)


def short_form(text: str) -> dict[str, Any]:
    """Return the JSON schema of `"name, age int, tags list"`, the short form of simonw/llm, with lists.

    Fields are separated by commas, or stand one a line, where `: description` may follow each. Types are str (which is
    meant where none stands), int, float and bool, and `list` or `list[int]`.

    Raises:
        InvalidRequestError: a field has no name, an unknown type, or the name of another.
    """
    fields = text.split("\n") if "\n" in text else text.split(",")
    properties: dict[str, Any] = {}
    for field in filter(None, map(str.strip, fields)):
        head, _, description = field.partition(":")
        name, _, kind = head.strip().partition(" ")
        if not name:
            raise InvalidRequestError(f"A field of the schema has no name: {quoted(field)}.", _FORMS)
        if not _KEY.fullmatch(name):
            raise InvalidRequestError(
                f"The schema is a list of names, and {quoted(name)} is none.",
                "Names have letters, digits, _ and -; write others, and a schema of a file, as JSON.",
            )
        if description.strip() in _TYPES:
            raise InvalidRequestError(
                f"The field {safe_name(name)} has its type behind a colon.", f"Write `{name} {description.strip()}`."
            )
        if name in properties:
            raise InvalidRequestError(f"The schema has the field {safe_name(name)} twice.", "Give each once.")
        properties[name] = _short_type(kind.strip(), name)
        if description.strip():
            properties[name]["description"] = description.strip()
    if not properties:
        raise InvalidRequestError("The schema is empty.", _GIVE_TEXT)
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _short_type(kind: str, name: str) -> dict[str, Any]:
    if (is_list := _LIST.match(kind)) and (is_list[1] or "str") in _TYPES:
        return {"type": "array", "items": {"type": _TYPES[is_list[1] or "str"]}}
    if kind and kind not in _TYPES:
        raise InvalidRequestError(
            f"The field {safe_name(name)} of the schema has the unknown type {quoted(kind)}.",
            "Types are str, int, float, bool, list and list[int].",
        )
    return {"type": _TYPES[kind or "str"]}


def with_known_formats(schema: dict[str, Any]) -> dict[str, Any]:
    """Take formats that refuse no text out of a schema; others that are unknown are refused by name."""
    for path, node in walk(schema):
        form = node.get("format")
        if not isinstance(form, str):
            continue
        if form in _SAYS_NOTHING:
            del node["format"]
        elif form not in FORMATS:
            raise InvalidRequestError(
                f"The schema has the format {quoted(form)} at {safe_name(path, 80)}, "
                "to which an answer cannot be bound.",
                f"Leave it out, or use pattern. Formats that work: {', '.join(sorted(FORMATS - {'unknown'}))}.",
            )
    return schema


def _of_type(given: Any) -> SchemaSource:
    """Return the schema of a pydantic model or any other type, as pydantic writes it."""
    pydantic = library("pydantic", "A schema that is a type")
    is_type = isinstance(given, type) or typing.get_origin(given) is not None
    if not is_type and not hasattr(given, "__supertype__") and not hasattr(given, "__value__"):
        name = type(given).__qualname__
        hint = f"Give the class: schema={name}." if dataclasses.is_dataclass(given) or _is_model(given) else _GIVE
        raise InvalidRequestError(f"schema is {shown(given)}, which is no type.", hint)
    try:
        adapter = pydantic.TypeAdapter(_with_new_typed_dicts(given, {}))
        schema = adapter.json_schema(schema_generator=schema_generator())
    except Exception as error:  # what the type's own methods raise, too
        raise InvalidRequestError(
            f"The schema {_type_name(given)} has no JSON form: {pydantic_words(error)}.", _GIVE
        ) from None
    plain = without_own_checks(plain_schema(schema))

    def read(text: str) -> Any:
        try:
            return adapter.validate_json(text)
        except pydantic.ValidationError as error:
            raise InvalidAnswerError(
                f"The answer does not fit {_type_name(given)}: {pydantic_errors(error)}.",
                "Say in the prompt what is wanted, or loosen the check; give more max_tokens to one that was cut off.",
            ) from None
        except Exception as error:  # a validator of the user's
            raise InvalidAnswerError(
                f"A check of {_type_name(given)} failed: {error_line(error)}.", "Correct the check."
            ) from error

    return SchemaSource(plain, read, True)


def _is_model(given: Any) -> bool:
    return isinstance(given, library("pydantic", "A schema that is a type").BaseModel)


def _with_new_typed_dicts(given: Any, made: dict[Any, Any]) -> Any:
    """Return a type with `typing.TypedDict` replaced by that of typing_extensions, which pydantic needs before 3.12."""
    if sys.version_info >= (3, 12):
        return given
    if typing.is_typeddict(given) and type(given).__module__ == "typing":
        if given not in made:
            made[given] = given  # where it holds itself, pydantic says what to do
            extensions = library("typing-extensions", "A TypedDict as a schema")
            hints = typing.get_type_hints(given, include_extras=True)
            entries = {name: _with_new_typed_dicts(each, made) for name, each in hints.items()}
            optional = {name: extensions.NotRequired[entries[name]] for name in given.__optional_keys__}
            made[given] = extensions.TypedDict(given.__name__, {**entries, **optional})
        return made[given]
    arguments = typing.get_args(given)
    new = tuple(_with_new_typed_dicts(each, made) for each in arguments)
    if new == arguments:
        return given
    if isinstance(given, types.UnionType):
        return typing.Union[new]  # noqa: UP007  # `|` takes no tuple
    if hasattr(given, "copy_with"):
        return given.copy_with(new[:1] if hasattr(given, "__metadata__") else new)
    return typing.get_origin(given)[new]


def without_own_checks(schema: dict[str, Any]) -> dict[str, Any]:
    """Take out of pydantic's schema what llguidance does not have and pydantic checks in what comes back."""
    for _, node in walk(schema):
        if node.get("format") not in FORMATS:
            node.pop("format", None)
        node.pop("uniqueItems", None)
    return schema


def pydantic_words(error: BaseException) -> str:
    """Return the message of an error that pydantic raised about a type, without the address of its page."""
    return error_line(Exception(str(error).split("For further information")[0]))


def _type_name(given: Any) -> str:
    if isinstance(given, type):
        return safe_name(given.__qualname__)
    return safe_name(repr(given)) if typing.get_origin(given) is not None else shown(given)


def pydantic_errors(error: Any) -> str:
    """Return the first errors that pydantic found in a value, as "place: what; place: what"."""
    found = []
    for each in error.errors(include_url=False, include_context=False)[:3]:
        place = ".".join(map(str, each["loc"]))
        found.append(f"{place}: {each['msg']}" if place else each["msg"])
    return safe_name("; ".join(found), 240)


def schema_generator() -> Any:
    """Return pydantic's writer of schemas, without the texts that it allows in place of numbers."""
    pydantic = library("pydantic", "A schema that is a type")
    json_schema, base_model = pydantic.json_schema, pydantic.BaseModel

    class Generator(json_schema.GenerateJsonSchema):  # type: ignore[misc,name-defined]
        """A Decimal is a number to a model: the pattern of its texts needs look-ahead, which llguidance has not."""

        def model_schema(self, schema: Any) -> Any:
            if schema["cls"] is base_model:  # an instance of it breaks as soon as it is looked at
                raise TypeError("BaseModel itself has no fields: give a class of your own")
            return super().model_schema(schema)

        ignored_warning_kinds: Final = {"skipped-choice", "non-serializable-default"}

        def decimal_schema(self, schema: Any) -> Any:
            return self.float_schema({**schema, "type": "float"})

    return Generator
