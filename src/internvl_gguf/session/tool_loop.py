"""`Session.run`: ask, call the tools that the answer calls, give back what they return, until an answer calls none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Unpack

from internvl_gguf.config import AskOptions
from internvl_gguf.errors import InternVLError, InvalidRequestError, ToolError
from internvl_gguf.session.asked import result_text
from internvl_gguf.types import MessagePicture, Picture, Reply, ToolCall, ToolResult
from internvl_gguf.utils import arguments
from internvl_gguf.utils.sizes import in_seconds

if TYPE_CHECKING:
    from internvl_gguf.structured import Tool

OnCall = Callable[[ToolCall, ToolResult], None]
Ask = Callable[..., Reply]

DEFAULT_MAX_STEPS: Final = 8
DEFAULT_TOOL_TIMEOUT: Final = 60.0  # seconds


def run_tools(
    ask: Ask,
    prompt: str,
    images: Any,
    *,
    max_steps: int,
    tool_timeout: float,
    on_call: OnCall | None,
    **options: Unpack[AskOptions],
) -> Reply:
    """Ask until an answer calls no tool, or `max_steps` answers were given. See `Session.run`.

    Args:
        ask: `Session.ask`.
    """
    arguments.functions(on_call=on_call)
    tools = _callable_tools(options.get("tools"))
    steps = arguments.whole("max_steps", max_steps)
    if arguments.number("tool_timeout", tool_timeout) < 0:
        raise arguments.wrong("tool_timeout", tool_timeout, "Give seconds; 0 waits for ever.")
    if steps < 1:
        raise arguments.wrong("max_steps", max_steps, "Give 1 or more.")
    reply = ask(prompt, images, **options)
    for _ in range(steps - 1):
        if not reply.tool_calls:
            break
        results = []
        for call in reply.tool_calls:
            results.append(call_tool(tools[call.name], call, tool_timeout))
            if on_call:
                on_call(call, results[-1])
        # A tool that has to be called was called: what follows may be the answer in words.
        reply = ask(results, **{**options, "tool_choice": "auto"})
    return reply


def call_tool(tool: Tool, call: ToolCall, timeout: float) -> ToolResult:
    """Call a tool and return its result; what it raises, and that it took too long, is a result, too, in words.

    Args:
        tool: the tool.
        call: the call.
        timeout: seconds after which it is not waited for any more; it goes on in a thread of its own. 0 waits for ever.
    """
    outcomes: SimpleQueue[ToolResult | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            outcomes.put(_usable(tool, as_result(tool.call(call.arguments))))
        except BaseException as error:  # SystemExit, too: a tool may not end the program
            outcomes.put(error)

    threading.Thread(target=work, name=f"internvl-tool-{tool.name}", daemon=True).start()
    try:
        outcome = outcomes.get(timeout=timeout or None)
    except Empty:
        return ToolResult(f"Error: {tool.name} took longer than {in_seconds(timeout)}.")
    if isinstance(outcome, BaseException):
        return ToolResult(f"Error: {_in_words(outcome)}")
    return outcome


def as_result(value: Any) -> ToolResult:
    """Return what a function returned as a result: pictures, bytes and lists of them as pictures, else its content."""
    if isinstance(value, ToolResult):
        return value
    if _is_shown(value):
        return ToolResult("", [value])
    if isinstance(value, list | tuple) and value and all(map(_is_shown, value)):
        return ToolResult("", list(value))
    return ToolResult(value)


def _usable(tool: Tool, result: ToolResult) -> ToolResult:
    """Return a result that the model can be told, its pictures read.

    Raises:
        ToolError: it cannot be told; that is a fault of the tool.
    """
    try:
        result_text(result.content)
        return _with_read_pictures(result)
    except InternVLError as error:
        raise ToolError(f"What the tool {tool.name} returned cannot be used: {error.message}", error.hint) from error


def _with_read_pictures(result: ToolResult) -> ToolResult:
    """Return a result with its pictures read: one that cannot be read is a fault of the tool."""
    from internvl_gguf.images.load import describe_source, load_image, picture_list

    given = [
        each if isinstance(each, Picture | MessagePicture) else Picture(each) for each in picture_list(result.images)
    ]
    read = [
        replace(each, source=load_image(each.source, name=each.name or describe_source(each.source)))
        if isinstance(each, Picture)
        else each
        for each in given
    ]
    return replace(result, images=read)


def _is_shown(value: Any) -> bool:
    return isinstance(value, Picture | bytes) or _is_picture(value)


def _is_picture(value: Any) -> bool:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    is_array = kind == "numpy.ndarray" and getattr(value, "ndim", 0) == 3 and str(value.dtype) == "uint8"
    return is_array or any(
        f"{each.__module__}.{each.__qualname__}" == "PIL.Image.Image" for each in type(value).__mro__
    )


def _callable_tools(given: Any) -> dict[str, Tool]:
    from internvl_gguf.structured import tools_of

    tools = tools_of(given or ())
    if not tools:
        raise InvalidRequestError("There are no tools to run.", "Give tools=[function, ...].")
    for tool in tools:
        if tool.function is None:
            raise InvalidRequestError(
                f"The tool {tool.name} has no function.", "Give a Python function, or answer its calls with ask()."
            )
    return {tool.name: tool for tool in tools}


def _in_words(error: BaseException) -> str:
    if isinstance(error, InternVLError):
        return error.message
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
