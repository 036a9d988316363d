"""The form and the tools of a request, checked: a stranger gave them, and checking takes time."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import AnswerWishes, FormWish, ToolWish
from internvl_gguf.server.client_words import for_json_clients

if TYPE_CHECKING:
    from internvl_gguf.structured import AnswerFormat, Tool

_LONGEST_KEPT: Final = 64 * 1024
"""Characters of the tools of a request as JSON that are kept with what was made of them: agents send them each turn."""

_KINDS: Final = ("choices", "regex", "grammar")
"""What messages about a form begin with, which clients call otherwise."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class CheckedWishes:
    """`AnswerWishes` that an answer can be bound to.

    Attributes:
        form: None for any text.
        tools: the tools.
        options: both, as options of `prepare_question`.
    """

    form: AnswerFormat | None
    tools: tuple[Tool, ...]
    options: dict[str, Any]

    @property
    def note(self) -> str:
        """The end of the question, which shows the form; "" for none."""
        return self.form.note if self.form and self.options["format_in_prompt"] else ""


NO_WISHES: Final = CheckedWishes(None, (), {})


def checked(wishes: AnswerWishes) -> CheckedWishes:
    """Check what an answer is to be like. It takes milliseconds to seconds, and no longer whatever was given.

    Raises:
        RefusedRequestError: it cannot be used, or the server lacks the library for it.
    """
    if wishes.form is None and not wishes.tools:
        return NO_WISHES
    _require_llguidance()
    form = _form(wishes.form) if wishes.form else None
    tools = _tools(wishes.tools)
    _check_together(wishes, form, tools)
    options = {
        "answer_format": form,
        "format_in_prompt": wishes.form_in_prompt,
        "tools": tools or None,
        "tool_choice": wishes.tool_choice if tools else None,
        "parallel_tool_calls": wishes.calls_several,
    }
    return CheckedWishes(form, tools, options)


def _require_llguidance() -> None:
    if importlib.util.find_spec("llguidance") is None:
        raise RefusedRequestError(
            "This server cannot bind answers to a form: it lacks the package llguidance.",
            "Its owner can install it: pip install 'internvl-gguf[serve]'.",
            status=501,
            code="not_supported",
        )


def _form(wish: FormWish) -> AnswerFormat:
    from internvl_gguf.structured import format_of

    code = "invalid_json_schema" if wish.kind == "schema" else "invalid_value"
    form = _refusing(lambda: format_of(**{wish.kind: wish.value}), wish.param, code)
    assert form is not None
    return replace(form, note=f"{wish.about}\n{form.note}") if wish.about and form.note else form


def _tools(wishes: tuple[ToolWish, ...]) -> tuple[Tool, ...]:
    from internvl_gguf.structured import tools_of
    from internvl_gguf.structured.tools import MAX_TOOLS, check_name

    if len(wishes) > MAX_TOOLS:
        raise RefusedRequestError(
            f"tools has more than {MAX_TOOLS} tools.", "Give fewer.", code="invalid_value", param="tools"
        )
    for wish in wishes:
        _refusing(partial(check_name, wish.name), wish.name_param, "invalid_value")
    made = [_refusing(partial(_tool, wish), wish.param, "invalid_function_parameters") for wish in wishes]
    return _refusing(lambda: tools_of(made), "tools", "invalid_value")


def _tool(wish: ToolWish) -> Tool:
    from internvl_gguf.structured import Tool

    parameters = {"type": "object", "properties": {}} if wish.parameters is None else dict(wish.parameters)
    text = json.dumps([wish.name, wish.description, parameters])
    return _kept_tool(text) if len(text) <= _LONGEST_KEPT else Tool(wish.name, wish.description, parameters)


@lru_cache(maxsize=512)
def _kept_tool(text: str) -> Tool:
    from internvl_gguf.structured import Tool

    return Tool(*json.loads(text))


def _check_together(wishes: AnswerWishes, form: AnswerFormat | None, tools: tuple[Tool, ...]) -> None:
    """Check that an answer can be bound to form and tools at once."""
    if not tools:
        return
    from internvl_gguf.structured.tool_format import tool_format

    choice, parallel = wishes.tool_choice, wishes.calls_several
    param = wishes.form.param if wishes.form and wishes.form.kind != "schema" else "tools"
    _refusing(lambda: tool_format(tools, choice, parallel, otherwise=form), param, "invalid_value")


def _refusing(make: Callable[[], Value], param: str, code: str) -> Value:
    """Return what is made; an error of it names the field."""
    try:
        return make()
    except InvalidRequestError as error:
        said, hint = (for_json_clients(text) for text in (error.message, error.hint))
        subject, _, rest = said.partition(" ")
        message = f"{param} {rest}" if subject in _KINDS else f"{param}: {said}"
        raise RefusedRequestError(message, hint, code=code, param=param) from None
