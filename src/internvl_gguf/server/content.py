"""Turns of a conversation from the messages of the three interfaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, cast, get_args

from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import Detail, Part, PicturePart, TextPart, Turn

_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TOOL_ROLES: Final = ("tool", "function")
_DETAILS: Final = get_args(Detail)
_NO_TOOLS: Final = "tools are not there yet"

Role = Literal["system", "user", "assistant"]
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
    """Return the role of a message; a developer is the system.

    Raises:
        RefusedRequestError: a role that is not known, or of tools.
    """
    role = message.get("role")
    if isinstance(role, str) and role in _TOOL_ROLES:
        raise refused(f"{param}.role", f"is {role}, and {_NO_TOOLS}", "Leave it out.", "unsupported_value")
    found = _ROLES.get(role) if isinstance(role, str) else None
    if found is None:
        raise refused(f"{param}.role", "is not known", "Use system, developer, user or assistant.")
    return cast("Role", found)


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


def conversation(turns: Iterable[Turn], param: str) -> tuple[Turn, ...]:
    """Return the turns of a conversation, neighbours of one role joined.

    The published prompt has one system message at its beginning and then questions and answers in turn; several
    messages of one role in a row, which other models take, are one turn here.

    Raises:
        RefusedRequestError: no question, an empty one at the end, or a picture in no question.
    """
    roles: list[Role] = []
    parts: list[list[Part]] = []
    for turn in turns:
        if turn.pictures and turn.role != "user":
            raise refused(param, f"have a picture in a message of the {turn.role}", "Give it in a message of the user.")
        if not roles or roles[-1] != turn.role:
            roles.append(turn.role)
            parts.append([])
        parts[-1] += turn.parts
    joined = [Turn(role, tuple(each)) for role, each in zip(roles, parts, strict=True)]
    if not any(turn.role == "user" for turn in joined):
        raise refused(param, "have no message of the user", "Ask something.")
    last = joined[-1]
    if last.role == "system":
        raise refused(param, "end with a system message", "Give it before the question.")
    if last.role == "assistant" and joined[-2].role != "user":
        raise refused(param, "end with an answer that follows no question", "Give it behind a message of the user.")
    if last.role == "user" and not last.pictures and not last.text.strip():
        raise refused(param, "end with an empty question", "Ask something, or give a picture.")
    return tuple(joined)


def texts_only(parts: Sequence[Part], param: str) -> tuple[Part, ...]:
    """Return parts that must all be text.

    Raises:
        RefusedRequestError: a picture is among them.
    """
    if any(isinstance(part, PicturePart) for part in parts):
        raise refused(param, "has a picture", "Give pictures in messages of the user.")
    return tuple(parts)
