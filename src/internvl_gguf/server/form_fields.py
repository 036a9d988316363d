"""What an answer has to be like, as the fields of the three interfaces say it, and those of llama.cpp and vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from internvl_gguf.server.chat_request import Body, ChatRequest, FormWish
from internvl_gguf.server.content import as_list, as_object, as_text, refused
from internvl_gguf.server.field_values import switch
from internvl_gguf.server.thinking_fields import ThinkingWish

_ANY_OBJECT: Final = {"type": "object"}
_OUTPUTS: Final = ("json", "json_object", "regex", "choice", "grammar")
_WITHOUT_EFFECT: Final = ("disable_fallback", "disable_any_whitespace")
"""Settings of vLLM's `structured_outputs` that ask for what is always so: no free answer instead, JSON on one line."""


def form_of(body: Body, *of_interface: FormWish | None) -> FormWish | None:
    """Return what an answer is bound to; None for any text.

    Args:
        body: the fields of a request.
        *of_interface: what the fields of its interface say.

    Raises:
        RefusedRequestError: there are several forms, or one of another shape.
    """
    found = [form for form in (*of_interface, *_of_other_runtimes(body)) if form is not None]
    if len(found) > 1:
        raise refused(found[1].param, f"is given beside {found[0].param}", "An answer has one form: give one of them.")
    return found[0] if found else None


def refuse_begun(request: ChatRequest, thinking: ThinkingWish) -> None:
    """Refuse a form or a thought for an answer that the client began: what is bound is a whole answer.

    Raises:
        RefusedRequestError: there are both.
    """
    if request.turns[-1].role != "assistant":
        return
    form = request.wishes.form.param if request.wishes.form else ""
    for param in (form, thinking.param if thinking.thinking and thinking.is_firm else ""):
        if param:
            raise refused(param, "is given, and the last message begins the answer", "Leave one of them out.")


def response_format(body: Body) -> FormWish | None:
    """Return what the `response_format` of chat completions says.

    Raises:
        RefusedRequestError: it has another shape.
    """
    param = "response_format"
    if param not in body:
        return None
    given = as_object(body[param], param)
    if given.get("type") != "json_schema":
        return _of_type(given, param)
    inner = f"{param}.json_schema"
    return _named_schema(as_object(given.get("json_schema"), inner), inner)


def flat_format(given: Mapping[str, Any], param: str) -> FormWish | None:
    """Return what a format says that has its schema beside its type, as Responses and Messages have it.

    Raises:
        RefusedRequestError: it has another shape.
    """
    return _named_schema(given, param) if given.get("type") == "json_schema" else _of_type(given, param)


def _of_type(given: Mapping[str, Any], param: str) -> FormWish | None:
    kind = given.get("type")
    if kind == "text":
        return None
    if kind == "json_object":  # llama.cpp and others take a schema here
        if given.get("schema") is None:
            return FormWish("schema", _ANY_OBJECT, param)
        return FormWish("schema", as_object(given["schema"], f"{param}.schema"), f"{param}.schema")
    raise refused(f"{param}.type", "is not known", "Use text, json_object or json_schema.")


def _named_schema(given: Mapping[str, Any], param: str) -> FormWish:
    """Return the form of a schema with OpenAI's words about it; it binds whether it is strict or not."""
    for name in ("name", "description"):
        if given.get(name) is not None:
            as_text(given[name], f"{param}.{name}")
    if given.get("strict") is not None:
        switch({f"{param}.strict": given["strict"]}, f"{param}.strict")
    schema = as_object(given.get("schema"), f"{param}.schema")
    return FormWish("schema", schema, f"{param}.schema", given.get("description") or "")


def _of_other_runtimes(body: Body) -> list[FormWish]:
    found = []
    if "json_schema" in body:
        found.append(FormWish("schema", as_object(body["json_schema"], "json_schema"), "json_schema"))
    if body.get("grammar", "") != "":
        found.append(FormWish("grammar", as_text(body["grammar"], "grammar"), "grammar"))
    found += _outputs(as_object(body.get("structured_outputs", {}), "structured_outputs"), "structured_outputs.")
    guided = {
        name: body[f"guided_{name}"] for name in ("json", "regex", "choice", "grammar") if f"guided_{name}" in body
    }
    return [*found, *_outputs(guided, "guided_")]


def _outputs(given: Mapping[str, Any], before: str) -> list[FormWish]:
    """Return the forms that vLLM's `structured_outputs` says, or the fields that it had before.

    Args:
        given: the values by their names.
        before: what stands before a name in errors.
    """
    found = []
    for name, value in given.items():
        param = f"{before}{name}"
        if value is None or name in _WITHOUT_EFFECT:
            continue
        if name not in _OUTPUTS:
            raise refused(param, "is not supported", f"Use {', '.join(_OUTPUTS)}.", "unsupported_parameter")
        if name == "json":
            found.append(FormWish("schema", _schema(value, param), param))
        elif name == "choice":
            found.append(FormWish("choices", as_list(value, param), param))
        elif name == "json_object":
            found += [FormWish("schema", _ANY_OBJECT, param)] if switch({param: value}, param) else []
        elif name == "regex":
            found.append(FormWish("regex", as_text(value, param), param))
        else:
            found.append(FormWish("grammar", as_text(value, param), param))
    return found


def _schema(value: object, param: str) -> dict[str, Any]:
    """Return a schema that may be given as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise refused(param, "is no JSON", "Give a JSON schema.") from None
    return as_object(value, param)
