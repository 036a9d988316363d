"""Errors as the interfaces report them: an HTTP status, OpenAI's type and code, and no path of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from internvl_gguf.errors import (
    ContextOverflowError,
    InternVLError,
    InvalidRequestError,
    PictureError,
    SessionStateError,
    VideoError,
    WorkerDiedError,
)
from internvl_gguf.server.client_words import for_clients


class RefusedRequestError(InternVLError):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        code: short name of the reason, for programs.
        param: the field that is wrong; None for none.
        retry_after: seconds after which the same request may be answered; None if it never will be.
    """

    def __init__(
        self,
        message: str,
        hint: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


@dataclass(frozen=True)
class Failure:
    """An error as a client is told it.

    Attributes:
        status: HTTP status.
        kind: OpenAI's type of error.
        message: what happened, and what to do.
        param, code, retry_after: as in `RefusedRequestError`.
        parts: further fields of OpenAI's error for our own client: the hint alone, and the sizes of a full context.
    """

    status: int
    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: int | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of the response."""
        found = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return {**found, "www-authenticate": "Bearer"} if self.status == 401 else found


_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    503: "unavailable_error",
}
_INTERNAL: Final = Failure(
    500, "server_error", "The server failed at this request. Its log says more; ask again.", code="internal_error"
)


def failure_of(error: Exception) -> Failure:
    """Return what a client is told of an error. Messages about files and memory stay with the owner of the server."""
    parts = {"hint": error.hint} if isinstance(error, InternVLError) else {}
    if isinstance(error, RefusedRequestError):
        kind = _KINDS.get(error.status, "server_error")
        return Failure(error.status, kind, str(error), error.param, error.code, error.retry_after, parts)
    if isinstance(error, ContextOverflowError):
        said, parts["hint"] = for_clients(str(error)), for_clients(error.hint)
        sizes = {"needed": error.needed, "available": error.available, "max_tiles": error.max_tiles}
        return Failure(400, _KINDS[400], said, "messages", "context_length_exceeded", parts={**parts, **sizes})
    if isinstance(error, PictureError):
        code = "invalid_video" if isinstance(error, VideoError) else "invalid_image"
        parts["hint"] = for_clients(error.hint)
        return Failure(400, _KINDS[400], for_clients(str(error)), "messages", code, parts=parts)
    if isinstance(error, InvalidRequestError):
        return Failure(400, _KINDS[400], for_clients(str(error)), parts={"hint": for_clients(error.hint)})
    if isinstance(error, WorkerDiedError):
        said = f"{error.message} It is loaded again: ask again."
        return Failure(503, _KINDS[503], said, code="model_process_ended", retry_after=2)
    if isinstance(error, SessionStateError):
        said = "The model was unloaded before the answer ended. Ask again."
        return Failure(503, _KINDS[503], said, code="model_unloaded", retry_after=1)
    return _INTERNAL


def is_expected(error: Exception) -> bool:
    """Return whether an error is a client's, or one that the server told its owner of already."""
    return failure_of(error) is not _INTERNAL


def openai_body(failure: Failure) -> dict[str, Any]:
    """Return the body of an error in OpenAI's shape."""
    inner = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return {"error": {**inner, **failure.parts}}


_ANTHROPIC_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
}


def anthropic_body(failure: Failure) -> dict[str, Any]:
    """Return the body of an error in Anthropic's shape."""
    default = "invalid_request_error" if failure.status < 500 else "api_error"
    kind = _ANTHROPIC_KINDS.get(failure.status, default)
    return {"type": "error", "error": {"type": kind, "message": failure.message}}
