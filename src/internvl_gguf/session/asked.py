"""A question of the user, or the results of tools, as messages whose pictures are not read yet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from internvl_gguf.config import AskOptions, PictureOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.load import picture_list
from internvl_gguf.session.prompt_template import check_places
from internvl_gguf.structured.tool_stream import AFTER_ARGUMENTS
from internvl_gguf.types import Message, PictureLayout, ToolResult
from internvl_gguf.utils import arguments
from internvl_gguf.utils.sizes import counted


@dataclass(frozen=True)
class Asked:
    """One message of what is asked.

    Attributes:
        message: the message without its pictures.
        images: its pictures, as they were given.
    """

    message: Message
    images: tuple[Any, ...]


def asked(
    history: Sequence[Message], prompt: str | Sequence[ToolResult], images: Any, options: AskOptions
) -> list[Asked]:
    """Return what is asked as messages.

    Args:
        history: the conversation before it.
        prompt: the question, or what the tools returned that the last answer called.
        images: pictures of the question.
        options: checked options; the form of the answer may add to the question.

    Raises:
        InvalidRequestError: nothing is asked, results that no call waits for, or places of pictures that do not fit
            the pictures.
    """
    layout = options.get("layout", PictureOptions.layout)
    given = tuple(picture_list(images))
    if isinstance(prompt, list | tuple) and all(isinstance(each, ToolResult) for each in prompt):
        if given:
            raise InvalidRequestError("Results of tools have pictures of their own.", "Give them to each ToolResult.")
        if not prompt:
            raise InvalidRequestError("There are no results of tools.", "Give a ToolResult for each call.")
        _check_calls(history, len(prompt))
        return [_result(result, "separate") for result in prompt]
    prompt = arguments.text("prompt", prompt, "Give a str, or a ToolResult for each of reply.tool_calls.")
    if not prompt and not given:
        raise InvalidRequestError("The prompt is empty.", "Ask something, or give a picture.")
    check_places(prompt, len(given), layout)
    return [Asked(Message("user", with_note(prompt, options), layout=layout), given)]


def result_text(content: Any) -> str:
    """Return what a tool returned as the model reads it: text as it is, anything else as JSON."""
    if isinstance(content, str):
        return content
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(content, fallback=_last_resort), ensure_ascii=False)


def _last_resort(value: Any) -> Any:
    """Return an array as lists, and what JSON has no form of as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _check_calls(history: Sequence[Message], n_results: int) -> None:
    """Refuse results unless there is one for each call of the last answer."""
    last = history[-1] if history else None
    n_calls = last.text.count(AFTER_ARGUMENTS) if last and last.role == "assistant" else 0
    if not n_calls:
        raise InvalidRequestError("There is no call of a tool to give results for.", "Ask with tools=[...] first.")
    if n_results != n_calls:
        raise InvalidRequestError(
            f"There are {counted(n_results, 'result')} for {counted(n_calls, 'call')}.",
            "Give a ToolResult for each of reply.tool_calls, in their order.",
        )


def _result(result: ToolResult, layout: PictureLayout) -> Asked:
    given = tuple(picture_list(result.images))
    text = result_text(result.content)
    check_places(text, len(given), layout)
    return Asked(Message("tool", text, layout=layout), given)


def with_note(prompt: str, options: AskOptions) -> str:
    """Return a question followed by what the model has to know about the form of its answer."""
    return "\n\n".join(filter(None, (prompt, form_note(options))))


def without_note(text: str, options: AskOptions) -> str:
    """Return the question of which `with_note` made a text."""
    note = form_note(options)
    return text.removesuffix(note).removesuffix("\n\n") if note else text


def form_note(options: AskOptions) -> str:
    """Return what the prompt says about the form of the answer; "" for nothing."""
    form = options.get("answer_format")
    return form.note if form is not None and options.get("format_in_prompt", True) else ""
