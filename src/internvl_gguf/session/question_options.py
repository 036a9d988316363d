"""Options of a question as callers give them: checked, with the fields of the sampling put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from internvl_gguf.config import FORMS, AskOptions, PictureOptions, SamplingParams
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.judging import judge_of
from internvl_gguf.utils import arguments
from internvl_gguf.utils.foreign_names import QUESTION
from internvl_gguf.utils.options import options_of

if TYPE_CHECKING:
    from internvl_gguf.structured import AnswerFormat, Tool


def checked_options(options: Mapping[str, Any], shared: AskOptions | None = None) -> AskOptions:
    """Check the names and types of the options of a question; an option that is None is left out.

    Args:
        options: as `AskOptions`.
        shared: options that were checked before; those of the question replace them.

    Returns:
        The options of both; the fields of `SamplingParams` are in `sampling`.

    Raises:
        InvalidRequestError: an unknown option, or a value of another type or out of range; tile limits are checked
            later, with those of the session and of each picture.
    """
    if not isinstance(options, Mapping):
        raise arguments.wrong("options", options, 'Give a dict, as {"max_tiles": 6}.')
    for name in options:
        if name not in AskOptions.__annotations__:
            raise QUESTION.unknown(name, AskOptions.__annotations__)
    of_pictures, of_sampling = options_of(PictureOptions), options_of(SamplingParams)
    given: dict[str, Any] = {**(shared or {})}
    fields: dict[str, Any] = {}
    if "boxes" in options and not arguments.switch("boxes", options["boxes"] or False):
        options = {name: value for name, value in options.items() if name != "boxes"}
    form = {name: value for name, value in options.items() if name in FORMS and value is not None}
    if form:
        given["answer_format"] = _form(form)
    for name, value in options.items():
        if value is None or name in FORMS:
            continue
        if name == "judge":
            given[name] = judge_of(value)
            fields |= {name: value} if isinstance(value, str) else {}
        elif name in of_sampling:
            fields[name] = value
        elif name in of_pictures:
            given[name] = of_pictures[name].checked(value)
        elif name in _CHECKS:
            given[name] = _CHECKS[name](value)
        elif isinstance(value, SamplingParams):
            given[name] = value
        else:
            raise arguments.wrong(name, value, "Give a SamplingParams, or its fields by their names: temperature=0.8.")
    if fields:
        given["sampling"] = given.get("sampling", SamplingParams()).changed(fields)
    return cast("AskOptions", given)


def tools_and_form(options: AskOptions, tokens: Collection[str]) -> tuple[tuple[Tool, ...], AnswerFormat | None]:
    """Return the tools that an answer may call, and what it has to be like; None for any text.

    Args:
        options: checked options.
        tokens: as in `structured.tool_format`.

    Raises:
        InvalidRequestError: a tool is asked for that is not there.
    """
    tools, form = options.get("tools", ()), options.get("answer_format")
    choice = options.get("tool_choice", "auto")
    if not tools:
        if choice not in ("auto", "none"):
            raise InvalidRequestError("tool_choice asks for a tool, and there are none.", "Give tools.")
        return (), form
    from internvl_gguf.structured.tool_format import tool_format

    return tools, tool_format(tools, choice, options.get("parallel_tool_calls", True), otherwise=form, tokens=tokens)


def _form(given: Mapping[str, Any]) -> AnswerFormat:
    """Return the one form that is given.

    Raises:
        InvalidRequestError: it cannot be used, or there are several.
    """
    from internvl_gguf.structured import AnswerFormat, format_of

    if len(given) > 1:
        raise InvalidRequestError(f"An answer has one form, not {'= and '.join(given)}=.", "Give one of them.")
    ((name, value),) = given.items()
    if name == "answer_format":
        if not isinstance(value, AnswerFormat):
            raise arguments.wrong(name, value, "Give what structured.format_of returns.")
        return value
    if name == "boxes":
        from internvl_gguf.boxes import box_format

        return box_format()
    form = format_of(**given)
    assert form is not None
    return form


def _tools(value: Any) -> tuple[Tool, ...]:
    from internvl_gguf.structured import tools_of

    return tools_of(value)


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "confidence": partial(arguments.switch, "confidence"),
    "format_in_prompt": partial(arguments.switch, "format_in_prompt"),
    "tools": _tools,
    "tool_choice": partial(arguments.text, "tool_choice"),
    "parallel_tool_calls": partial(arguments.switch, "parallel_tool_calls"),
}
