"""Tools and the choice among them, as the fields of the three interfaces say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from internvl_gguf.server.chat_request import TOOL_MODES, AnswerWishes, Body, FormWish, ToolWish
from internvl_gguf.server.content import as_list, as_object, as_text, refused
from internvl_gguf.server.field_values import switch
from internvl_gguf.utils.safe_text import safe_name

_GIVE_FUNCTIONS: Final = "Give tools that the client runs, of the type function."

ReadTool = Callable[[Mapping[str, Any], str], ToolWish]
"""Makes a tool of a JSON object and of its name in errors, such as `tools[0]`."""


def tools_of_body(body: Body, read_tool: ReadTool) -> tuple[ToolWish, ...]:
    """Return the tools of a request.

    Raises:
        RefusedRequestError: one of another shape, or a tool of the interface's maker.
    """
    given = as_list(body.get("tools", []), "tools")
    return tuple(read_tool(as_object(tool, f"tools[{index}]"), f"tools[{index}]") for index, tool in enumerate(given))


def chat_tool(tool: Mapping[str, Any], param: str) -> ToolWish:
    """Return a tool of chat completions, whose function has a name of its own level.

    Raises:
        RefusedRequestError: it has another shape.
    """
    _check_kind(tool, param, ("function",))
    function = as_object(tool.get("function"), f"{param}.function")
    return _tool(function, f"{param}.function", "parameters")


def response_tool(tool: Mapping[str, Any], param: str) -> ToolWish:
    """Return a tool of Responses, which is flat. Raises as `chat_tool`."""
    _check_kind(tool, param, ("function",))
    return _tool(tool, param, "parameters")


def anthropic_tool(tool: Mapping[str, Any], param: str) -> ToolWish:
    """Return a tool of Anthropic's interface. Raises as `chat_tool`."""
    _check_kind(tool, param, ("custom", None))
    return _tool(tool, param, "input_schema")


def _check_kind(tool: Mapping[str, Any], param: str, known: Sequence[str | None]) -> None:
    kind = tool.get("type")
    if kind not in known:
        shown = safe_name(kind, 40) if isinstance(kind, str) else "missing"
        raise refused(f"{param}.type", f"is {shown}, which is not supported", _GIVE_FUNCTIONS, "unsupported_value")


def _tool(given: Mapping[str, Any], param: str, schema: str) -> ToolWish:
    name = as_text(given.get("name"), f"{param}.name")
    description = given.get("description")
    parameters = given.get(schema)
    return ToolWish(
        name,
        "" if description is None else as_text(description, f"{param}.description"),
        None if parameters is None else as_object(parameters, f"{param}.{schema}"),
        f"{param}.{schema}",
        f"{param}.name",
    )


def openai_wishes(
    body: Body,
    form: FormWish | None,
    read_tool: ReadTool,
    name_of: Callable[[Mapping[str, Any], str], str],
) -> AnswerWishes:
    """Return the form and the tools of a request of OpenAI's interfaces.

    Args:
        body: the fields of the request.
        form: its form, if any.
        read_tool: reads a tool, as in `tools_of_body`.
        name_of: as in `openai_choice`.

    Raises:
        RefusedRequestError: tools or their choice cannot be used.
    """
    choice, tools = openai_choice(body, tools_of_body(body, read_tool), name_of)
    return AnswerWishes(
        form=form,
        form_in_prompt=switch(body, "format_in_prompt", default=True),
        tools=tools,
        tool_choice=choice,
        parallel_calls=switch(body, "parallel_tool_calls", default=True),
    )


def openai_choice(
    body: Body, tools: tuple[ToolWish, ...], name_of: Callable[[Mapping[str, Any], str], str]
) -> tuple[str, tuple[ToolWish, ...]]:
    """Return the `tool_choice` of OpenAI's interfaces as `AnswerWishes` has it, and the tools that are left by it.

    Args:
        body: the fields of a request.
        tools: its tools.
        name_of: reads the name of a tool in a choice, given its object and the object's name in errors.

    Raises:
        RefusedRequestError: it has another shape, or chooses what is not there.
    """
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, str):
        if choice not in TOOL_MODES:
            raise refused("tool_choice", "is not known", f"Use {', '.join(TOOL_MODES)}, or name a function.")
    else:
        choice = as_object(choice, "tool_choice")
        if choice.get("type") == "allowed_tools":
            return _allowed(choice, tools, name_of)
        if choice.get("type") != "function":
            raise refused("tool_choice.type", "is not supported", "Use function or allowed_tools.", "unsupported_value")
        return named_choice(name_of(choice, "tool_choice"), tools, "tool_choice"), tools
    return checked_mode(choice, tools), tools


def _allowed(
    choice: Mapping[str, Any], tools: tuple[ToolWish, ...], name_of: Callable[[Mapping[str, Any], str], str]
) -> tuple[str, tuple[ToolWish, ...]]:
    """Return the choice among some of the tools: the model is told of those alone."""
    param = "tool_choice"
    inner = choice.get("allowed_tools")
    if inner is not None:  # chat completions have a level more than Responses
        param = "tool_choice.allowed_tools"
        choice = as_object(inner, param)
    mode = choice.get("mode")
    if mode not in ("auto", "required"):
        raise refused(f"{param}.mode", "is not known", "Use auto or required.")
    allowed = set()
    for index, each in enumerate(as_list(choice.get("tools"), f"{param}.tools")):
        place = f"{param}.tools[{index}]"
        allowed.add(named_choice(name_of(as_object(each, place), place), tools, place))
    left = tuple(tool for tool in tools if tool.name in allowed)
    return checked_mode(mode, left), left


def checked_mode(mode: str, tools: tuple[ToolWish, ...]) -> str:
    """Return a choice that names no tool.

    Raises:
        RefusedRequestError: a call is wanted, and there are no tools.
    """
    if mode == "required" and not tools:
        raise refused("tool_choice", "asks for a call, and there are no tools", "Give tools, or leave it out.")
    return mode


def named_choice(name: str, tools: tuple[ToolWish, ...], param: str) -> str:
    """Return the choice of one tool.

    Raises:
        RefusedRequestError: no tool has the name, or it is the name of another choice.
    """
    if name not in (tool.name for tool in tools):
        raise refused(param, f"names {safe_name(name, 64)}, which no tool is called", "Name one of the tools.")
    if name in TOOL_MODES:
        raise refused(param, f"names a tool called {name}", "Give the tool another name to choose it.")
    return name


def chat_choice_name(choice: Mapping[str, Any], param: str) -> str:
    """Return the name of a chosen function of chat completions."""
    return as_text(as_object(choice.get("function"), f"{param}.function").get("name"), f"{param}.function.name")


def response_choice_name(choice: Mapping[str, Any], param: str) -> str:
    """Return the name of a chosen function of Responses."""
    return as_text(choice.get("name"), f"{param}.name")


def anthropic_choice(body: Body, tools: tuple[ToolWish, ...]) -> tuple[str, bool]:
    """Return the `tool_choice` of Anthropic's interface as `AnswerWishes` has it, and whether calls may be several.

    Raises:
        RefusedRequestError: it has another shape, or chooses what is not there.
    """
    choice = as_object(body.get("tool_choice", {"type": "auto"}), "tool_choice")
    one_at_most = choice.get("disable_parallel_tool_use")
    if one_at_most is not None and not isinstance(one_at_most, bool):
        raise refused("tool_choice.disable_parallel_tool_use", "is neither true nor false", "Give true or false.")
    kind = choice.get("type")
    if kind == "tool":
        name = as_text(choice.get("name"), "tool_choice.name")
        return named_choice(name, tools, "tool_choice.name"), not one_at_most
    if kind not in ("auto", "any", "none"):
        raise refused("tool_choice.type", "is not known", "Use auto, any, tool or none.")
    return checked_mode("required" if kind == "any" else kind, tools), not one_at_most
