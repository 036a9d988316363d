"""Parts of messages that the three interfaces share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn, cast, get_args

from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import Detail, Part, PicturePart, SentCall, TextPart

_ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip
_DETAILS: Final = get_args(Detail)

Role = Literal["system", "user", "assistant", "tool"]
ReadPart = Callable[[dict[str, Any], str], Part]
"""Makes a part of a JSON object and of its name in errors, such as `messages[0].content[1]`."""


def refused(param: str, what: str, hint: str, code: str = "invalid_value") -> RefusedRequestError:
    """Return the error of a part of a message."""
    return RefusedRequestError(f"{param} {what}.", hint, code=code, param=param)


def as_object(value: object, param: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        RefusedRequestError: it is something else.
    """
    if not isinstance(value, dict):
        raise refused(param, "is no object", "Give a JSON object.")
    return value


def as_list(value: object, param: str) -> list[Any]:
    """Return a list.

    Raises:
        RefusedRequestError: it is something else.
    """
    if not isinstance(value, list):
        raise refused(param, "is no list", "Give a list.")
    return value


def as_text(value: object, param: str) -> str:
    """Return a text.

    Raises:
        RefusedRequestError: it is something else.
    """
    if not isinstance(value, str):
        raise refused(param, "is no text", "Give a string.")
    return value


def role_of(message: dict[str, Any], param: str) -> Role:
    """Return the role of a message; a developer is the system, and a function a tool.

    Raises:
        RefusedRequestError: a role that is not known.
    """
    role = message.get("role")
    found = _ROLES.get(role) if isinstance(role, str) else None
    if found is None:
        raise refused(f"{param}.role", "is not known", "Use system, developer, user, assistant or tool.")
    return cast("Role", found)


def sent_call(call_id: object, name: object, arguments: object, param: str) -> SentCall:
    """Return a call of a tool that a client sends back.

    Args:
        call_id: its id; None for none.
        name: the tool's.
        arguments: a JSON object, or the text of one; an empty text is no arguments.
        param: the name of the arguments in errors.

    Raises:
        RefusedRequestError: values of another kind, or arguments that are no JSON object.
    """
    place = param.rpartition(".")[0]
    call_id = "" if call_id is None else as_text(call_id, f"{place}.id")
    tool = as_text(name, f"{place}.name")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}", parse_constant=_no_constant)
            json.dumps(arguments, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except (ValueError, RecursionError):
            raise refused(param, "are no JSON", "Give them as the answer had them.") from None
    if not isinstance(arguments, dict):
        raise refused(param, "are no JSON object", "Give them as the answer had them.")
    return SentCall(call_id, tool, arguments)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def parts_of(content: object, param: str, read_part: ReadPart) -> tuple[Part, ...]:
    """Return the parts of a message's content: a text, or a list of parts; null is none.

    Raises:
        RefusedRequestError: something else.
    """
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise refused(param, "is neither a text nor a list of parts", "Give a string, or a list of parts.")
    return tuple(
        read_part(as_object(part, f"{param}[{index}]"), f"{param}[{index}]") for index, part in enumerate(content)
    )


def unknown_part(part: dict[str, Any], param: str, known: str) -> RefusedRequestError:
    """Return the error of a part of a kind that is not supported."""
    kind = part.get("type")
    shown = kind if isinstance(kind, str) and len(kind) < 40 and kind.isprintable() else "missing"
    return refused(f"{param}.type", f"is {shown}, which is not supported", f"Use {known}.", "unsupported_value")


def picture_part(source: object, detail: object, param: str) -> PicturePart:
    """Return a picture by its source and OpenAI's `detail`.

    Raises:
        RefusedRequestError: values of another kind.
    """
    if not isinstance(source, str) or not source:
        raise refused(param, "is no text", "Give a data URI: data:image/png;base64,DATA.")
    if detail is None:
        return PicturePart(source)
    if detail not in _DETAILS:
        raise refused(f"{param}.detail", "is not known", f"Use {', '.join(_DETAILS)}.")
    return PicturePart(source, cast("Detail", detail))
