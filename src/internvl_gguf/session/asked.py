"""A question of the user, or the results of tools, as messages whose pictures are not read yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from internvl_gguf.config import AskOptions, PictureOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.load import picture_list
from internvl_gguf.session.prompt_template import check_places
from internvl_gguf.structured.tool_stream import AFTER_ARGUMENTS
from internvl_gguf.types import Frames, Message, MessagePicture, Picture, PictureLayout, ToolResult, Video
from internvl_gguf.utils import arguments
from internvl_gguf.utils.safe_text import error_line
from internvl_gguf.utils.sizes import counted

_GIVE_JSON: Final = "Give text, or what JSON can hold: dicts, lists, texts, numbers, true, false and None."
_PICTURES: Final = (Picture, MessagePicture, Video, Frames)


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
    """Return what a tool returned as the model reads it: text as it is, anything else as JSON.

    Raises:
        InvalidRequestError: JSON cannot hold it: NaN, a list that holds itself, bytes that are no text, a picture
            among other things, an object of the caller's own.
    """
    if isinstance(content, str):
        text = content
    else:
        from pydantic_core import to_jsonable_python

        _refuse_pictures(content)
        try:
            plain = to_jsonable_python(content, fallback=_as_lists)
            text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        except InvalidRequestError:
            raise
        except Exception as error:  # what a value's own methods raise, too
            raise InvalidRequestError(f"The result of a tool is no JSON: {error_line(error)}.", _GIVE_JSON) from None
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("The result of a tool has half a surrogate pair.", _GIVE_JSON) from None
    return text


def _as_lists(value: Any) -> Any:
    """Return an array as lists.

    Raises:
        InvalidRequestError: it is none, and JSON has no form of it.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    raise InvalidRequestError(
        f"The result of a tool has {arguments.shown(value)} in it, which JSON cannot hold.", _GIVE_JSON
    )


def _refuse_pictures(content: Any) -> None:
    """Refuse a picture among other things, which would be told by its fields.

    Raises:
        InvalidRequestError: there is one.
    """
    waiting, seen = [content], {id(content)}
    while waiting:
        value = waiting.pop()
        if isinstance(value, _PICTURES):
            raise InvalidRequestError(
                f"The result of a tool has {arguments.shown(value)} in it, which JSON cannot hold.",
                'Give pictures beside the words: ToolResult("words", [picture]).',
            )
        inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for each in inside:
            if id(each) not in seen and not isinstance(each, str):
                seen.add(id(each))
                waiting.append(each)


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
