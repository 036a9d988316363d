"""Tools as values: what the model is told of them, and how it calls them."""

from __future__ import annotations

import functools
import inspect
import json
import re
import threading
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from internvl_gguf.errors import InvalidRequestError, ToolError
from internvl_gguf.structured.constraint import check_schema, schema_grammar
from internvl_gguf.structured.libraries import library
from internvl_gguf.structured.schema_checks import check_schema_tree
from internvl_gguf.structured.schema_rewrite import closed, rewritten
from internvl_gguf.structured.schema_source import (
    pydantic_errors,
    pydantic_words,
    schema_generator,
    with_known_formats,
    without_own_checks,
)
from internvl_gguf.structured.schema_tree import plain_schema, walk
from internvl_gguf.utils.arguments import shown
from internvl_gguf.utils.safe_text import error_line, quoted, safe_line, safe_name, shortened

MAX_TOOLS: Final = 128

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_A_TOOL: Final = "A tool that is a function"
_TOOLS: Final = (
    "functions with type hints and a docstring, or dicts as OpenAI takes them: "
    '{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}.'
)
_GIVE: Final = f"Give {_TOOLS}"
_CALL_AGAIN: Final = "Call it again with arguments that fit its parameters."
_LONGEST_FAILURE: Final = 400


@dataclass(frozen=True)
class Tool:
    """A tool that the model may call. `tools_of` makes one of a function or a dict.

    Attributes:
        name: up to 64 letters, digits, underscores and hyphens.
        description: what it does, for the model; "" for nothing.
        parameters: JSON schema of an object: its arguments by name. They are bound to it.
        function: what `call` calls, by keyword; None for a tool that the caller runs elsewhere.

    Raises:
        InvalidRequestError: the name is none, or arguments cannot be bound to the parameters.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}}, hash=False)
    function: Callable[..., Any] | None = None
    _signature: _Signature | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if not isinstance(self.description, str):
            raise InvalidRequestError(f"The description of {self.name} is {shown(self.description)}.", "Give a text.")
        try:
            parameters = plain_schema(self.parameters)
            if parameters.get("type", "object") != "object":
                raise InvalidRequestError(
                    f"The parameters are of the type {shown(parameters['type'])}.", 'Their schema has "type": "object".'
                )
            self._check(parameters)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"Tool {self.name}: {error.message}", error.hint) from None
        object.__setattr__(self, "parameters", parameters)

    def _check(self, parameters: dict[str, Any]) -> None:
        if self._signature is None:
            with_known_formats(parameters)
        schema = self._bound(parameters)
        check_schema_tree(schema)
        check_schema(schema_grammar(schema, coerce_one_of=self._signature is not None), schema)

    @staticmethod
    def _bound(parameters: dict[str, Any]) -> dict[str, Any]:
        return closed(rewritten({"properties": {}, **parameters, "type": "object"}))

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """The schema that the arguments of a call are bound to: the parameters, closed to other names."""
        return self._bound(self.parameters)

    @property
    def is_checked(self) -> bool:
        """Whether `call` checks arguments with the function's signature."""
        return self._signature is not None

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function with arguments from the model, and return its result. A coroutine is run to its end.

        Raises:
            ToolError: the arguments do not fit, the function raised, or there is none. The message can go back to the
                model, and `__cause__` is what the function raised.
        """
        if self.function is None:
            raise ToolError(f"The tool {self.name} has no function to call.", "Run it yourself, or give a function.")
        if not isinstance(arguments, Mapping):
            raise ToolError(f"The arguments of {self.name} are {shown(arguments)}.", "Give an object of arguments.")
        positional, named = (), dict(arguments)
        if self._signature is not None:
            positional, named = self._signature.bind(self.name, named)
        try:
            return _finished(self.function(*positional, **named))
        except Exception as error:  # whatever the function raises
            words = shortened(safe_line(f"{type(error).__name__}: {error}"), _LONGEST_FAILURE)
            raise ToolError(
                f"The tool {self.name} failed: {words}", "Call it otherwise, or answer without it."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the tool as OpenAI's interface and Qwen's template have it; `json.dumps` of it is one line there."""
        about = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": about}


def check_name(name: object) -> None:
    """Refuse what cannot be the name of a tool.

    Raises:
        InvalidRequestError: it is none.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidRequestError(
            f"A tool has the name {quoted(str(name))}.", "Names are up to 64 letters, digits, underscores and hyphens."
        )


def tools_of(given: object) -> tuple[Tool, ...]:
    """Return tools from functions, dicts of OpenAI's shape, and tools.

    Of a function the name, the docstring and the signature are taken: descriptions of parameters from the docstring
    (Google, NumPy, reST) or from `Annotated[str, "description"]`, types from the hints (any JSON where there is none);
    a parameter with a default is optional.

    Raises:
        InvalidRequestError: one is none of these, or cannot be described to a model, two have the same name, or there
            are more than 128.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidRequestError(f"tools is {shown(given)}.", f"Give a list of {_TOOLS}")
    tools: dict[str, Tool] = {}
    for each in given:
        tool = each if isinstance(each, Tool) else _from_dict(each) if isinstance(each, Mapping) else _of_function(each)
        if tool.name in tools:
            raise InvalidRequestError(f"Two tools have the name {tool.name}.", "Give each a name of its own.")
        if len(tools) == MAX_TOOLS:
            raise InvalidRequestError(f"There are more than {MAX_TOOLS} tools.", "Give fewer.")
        tools[tool.name] = tool
    return tuple(tools.values())


def _from_dict(given: Mapping[Any, Any]) -> Tool:
    about = given.get("function")
    if given.get("type", "function") != "function" or not isinstance(about, Mapping):
        raise InvalidRequestError("A tool is a dict of another shape.", _GIVE)
    name = about.get("name")
    if not isinstance(name, str):
        raise InvalidRequestError("A tool has no name.", _GIVE)
    parameters = about.get("parameters")
    parameters = {"type": "object", "properties": {}} if parameters is None else parameters
    if not isinstance(parameters, Mapping):
        raise InvalidRequestError(f"The parameters of {safe_name(name)} are {shown(parameters)}.", _GIVE)
    return Tool(name, about.get("description") or "", dict(parameters))


def _of_function(given: Any) -> Tool:
    if not callable(given):
        raise InvalidRequestError(f"A tool is {shown(given)}.", _GIVE)
    inner = given.func if isinstance(given, functools.partial) else given
    name = getattr(inner, "__name__", "")
    if not name or name == "<lambda>":
        raise InvalidRequestError(
            f"A tool is {'a lambda' if name else shown(given)}, which has no name.",
            "Write it with def, or give Tool(name, description, parameters, function).",
        )
    check_name(name)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise InvalidRequestError(f"Tool {name} is a generator.", "Return a list instead.")
    description, of_parameters = _described(inspect.getdoc(inner) or "")
    signature = _Signature.of(given, inner, name, of_parameters)
    return Tool(name, description, signature.schema(name), given, signature)


def _described(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the description in a docstring, and those of the parameters by their names."""
    if not docstring:
        return "", {}
    parser = library("docstring-parser", _A_TOOL)
    try:
        parsed = parser.parse(docstring)
    except parser.ParseError:
        return docstring, {}
    words = [parsed.short_description or "", parsed.long_description or ""]
    described = {each.arg_name: " ".join((each.description or "").split()) for each in parsed.params}
    return "\n\n".join(filter(None, words)), described


@dataclass(frozen=True)
class _Signature:
    """The parameters of a function as a pydantic model, whose fields are called p0, p1, … lest a name of its is taken.

    Attributes:
        model: the class; its aliases are the names of the parameters.
        names: names of the parameters in order.
        positional: how many of them may be given by position only.
    """

    model: Any
    names: tuple[str, ...]
    positional: int

    @classmethod
    def of(cls, function: Any, inner: Any, name: str, described: dict[str, str]) -> _Signature:
        """Read a signature.

        Raises:
            InvalidRequestError: it cannot be read, has *args or **kwargs, or a type that has no JSON form.
        """
        pydantic = library("pydantic", _A_TOOL)
        try:
            parameters = inspect.signature(function).parameters.values()
            hints = typing.get_type_hints(_hinted(inner), include_extras=True)
        except (NameError, TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"The signature of the tool {name} cannot be read: {error_line(error)}.",
                "Define its types before it is given, or give a dict with its parameters.",
            ) from None
        fields: dict[str, Any] = {}
        for index, each in enumerate(parameters):
            if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                stars = "*" if each.kind is each.VAR_POSITIONAL else "**"
                raise InvalidRequestError(
                    f"The tool {name} takes {stars}{each.name}, of which a model cannot be told.",
                    "Name its parameters one by one, or give a dict with its parameters.",
                )
            hint = hints.get(each.name, Any)
            words = described.get(each.name) or _annotated_words(hint)
            options: dict[str, Any] = {"alias": each.name, **({"description": words} if words else {})}
            if each.default is not each.empty:
                options["default"] = each.default
            fields[f"p{index}"] = (hint, pydantic.Field(**options))
        names = tuple(each.name for each in parameters)
        positional = sum(each.kind is each.POSITIONAL_ONLY for each in parameters)
        try:
            model = pydantic.create_model(name, __config__={"extra": "forbid"}, **fields)
        except Exception as error:  # what a type of the user's own raises, too
            raise _no_json(name, error) from None
        return cls(model, names, positional)

    def schema(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of the parameters, as short as models are used to: types first, no titles."""
        try:
            schema = plain_schema(self.model.model_json_schema(schema_generator=schema_generator()))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"Tool {name}: {error.message}", error.hint) from None
        except Exception as error:  # what a type of the user's own raises, too
            raise _no_json(name, error) from None
        del schema["additionalProperties"]
        for _, node in walk(without_own_checks(schema)):
            node.pop("title", None)
            for key in ("type", "description", "properties", "required"):
                if key in node:
                    node[key] = node.pop(key)
            for key in [key for key in node if key not in ("type", "description", "properties", "required")]:
                node[key] = node.pop(key)
        return schema

    def bind(self, name: str, arguments: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return arguments as the function takes them, by position and by name.

        Raises:
            ToolError: they do not fit.
        """
        pydantic = library("pydantic", _A_TOOL)
        try:
            checked = self.model.model_validate_json(json.dumps(arguments))
        except pydantic.ValidationError as error:
            raise ToolError(f"The arguments of {name} do not fit: {pydantic_errors(error)}.", _CALL_AGAIN) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolError(f"The arguments of {name} are no JSON: {error_line(error)}.", _CALL_AGAIN) from None
        values = {each: getattr(checked, f"p{index}") for index, each in enumerate(self.names)}
        first = tuple(values.pop(each) for each in self.names[: self.positional])
        given = {each: value for each, value in values.items() if each in arguments}
        return first, given


def _hinted(inner: Any) -> Any:
    """Return what has the type hints of the parameters: a class is made by its `__init__`, unless it is a dataclass."""
    if isinstance(inner, type) and "__init__" in vars(inner):
        return vars(inner)["__init__"]
    return inner


def _annotated_words(hint: Any) -> str:
    """Return the description in `Annotated[str, "description"]`; "" if there is none."""
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, str)), "")


def _no_json(name: str, error: BaseException) -> InvalidRequestError:
    return InvalidRequestError(
        f"The tool {name} has a parameter without a JSON form: {pydantic_words(error)}.",
        "Use types such as str, int, list[str], dataclasses and pydantic models.",
    )


def _finished(result: Any) -> Any:
    """Return a result; a coroutine is run in a thread of its own, since a loop may be running in this one."""
    if not inspect.iscoroutine(result):
        return result
    import asyncio  # takes as long to load as this whole room

    box: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            box.append(asyncio.run(result))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="tool")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return box[0]
