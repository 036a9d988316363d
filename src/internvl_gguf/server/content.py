"""Parts of messages that the three interfaces share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, NoReturn, cast, get_args

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import ClipPart, Detail, FramesPart, Part, PicturePart, SentCall, TextPart, Turn
from internvl_gguf.tiling import MAX_TILES_LIMIT
from internvl_gguf.types import Video
from internvl_gguf.utils.foreign_names import VIDEO, ForeignNames
from internvl_gguf.utils.safe_text import safe_name

_ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip
_DETAILS: Final = get_args(Detail)

CLIP_WISHES: Final = ("frames", "fps", "start", "end", "max_tiles")
"""Fields of `Video` that a part may have beside its clip."""
_NAMES: Final = ForeignNames(
    "a clip", {**VIDEO.called, **dict.fromkeys(("path", "video", "file", "source"), "url")}, VIDEO.otherwise
)
_JPEG_FRAMES: Final = "data:video/jpeg;base64,"

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
    try:
        if isinstance(arguments, str):
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


def elsewhere(kind: object) -> str:
    """Return the words about clips for interfaces whose formats have none; "" for a part of another kind."""
    return "; /v1/chat/completions takes clips" if isinstance(kind, str) and "video" in kind else ""


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


def clip_part(source: object, wishes: dict[str, Any], param: str) -> ClipPart | FramesPart:
    """Return a clip by its source, or by a list of its frames, and the wishes beside it.

    A `data:video/jpeg` URI has frames as JPEG, in base64 with commas between them, as vLLM takes them.

    Raises:
        RefusedRequestError: values that cannot be used.
    """
    if isinstance(source, str) and source[: len(_JPEG_FRAMES)].lower() == _JPEG_FRAMES:
        source = [f"data:image/jpeg;base64,{each}" for each in source[len(_JPEG_FRAMES) :].split(",")]
    given = {name: wishes[name] for name in CLIP_WISHES if wishes.get(name) is not None}
    max_tiles = given.get("max_tiles")
    if max_tiles is not None and not (type(max_tiles) is int and 1 <= max_tiles <= MAX_TILES_LIMIT):
        raise refused(f"{param}.max_tiles", "is no number of tiles", f"Give 1 to {MAX_TILES_LIMIT}.")
    try:
        video = Video("", **given)
    except InvalidRequestError as error:
        raise RefusedRequestError(f"{param}: {error.message}", error.hint, code="invalid_value", param=param) from None
    if isinstance(source, list):
        return _frames_part(source, given, video, param)
    if not isinstance(source, str) or not source:
        raise refused(param, "is neither a text nor a list of frames", "Give a data URI: data:video/mp4;base64,DATA.")
    return ClipPart(replace(video, source=source))


def refuse_other_wishes(given: Mapping[str, Any], param: str, *, is_all: bool = False) -> None:
    """Refuse names that others have for what is wanted of a clip: the frames would be others than meant.

    Args:
        given: the part, or the object with the URL.
        param: its name in errors.
        is_all: whether every name is refused that is not known; a part may have more, as for caches.

    Raises:
        RefusedRequestError: such a name.
    """
    known = ("url", *CLIP_WISHES)
    for name in given:
        if (name in ("video", "type") and not is_all) or name in known:
            continue
        if is_all or (name in VIDEO.called or name in VIDEO.otherwise):
            hint = _NAMES.unknown(name, known, "field").hint
            raise refused(f"{param}.{safe_name(name)}", "is no field of a clip", hint, "unknown_parameter")


def _frames_part(frames: list[Any], given: dict[str, Any], video: Video, param: str) -> FramesPart:
    if not frames or not all(isinstance(each, str) and each for each in frames):
        raise refused(param, "is no list of frames", "Give each frame as a data URI: data:image/png;base64,DATA.")
    for name in ("frames", "start", "end"):
        if name in given:
            raise refused(f"{param}.{name}", "is given beside a list of frames", "Leave it out: all of them are shown.")
    return FramesPart(tuple(frames), video.fps, video.max_tiles)


def with_clip_wishes(turns: Iterable[Turn], wishes: dict[str, Any], param: str) -> list[Turn]:
    """Return turns whose clips have the wishes of the request where a clip has none of its own.

    Args:
        turns: the turns.
        wishes: some of `CLIP_WISHES`, by their names.
        param: the field they stand in, for errors.

    Raises:
        RefusedRequestError: a wish that cannot be used.
    """

    def part_with(part: Part) -> Part:
        if isinstance(part, FramesPart):
            return replace(part, max_tiles=part.max_tiles or wishes.get("max_tiles"))
        if not isinstance(part, ClipPart):
            return part
        own = {name: getattr(part.video, name) for name in CLIP_WISHES}
        counts = {"frames", "fps"} if own["frames"] or own["fps"] else set()  # one says it all
        more = {name: value for name, value in wishes.items() if own[name] is None and name not in counts}
        return clip_part(part.video.source, {**own, **more}, param)

    return [replace(turn, parts=tuple(map(part_with, turn.parts))) for turn in turns]
