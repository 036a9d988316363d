"""Who may ask: the Host and Origin of a request, and its key. Pure ASGI, in front of everything else."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from internvl_gguf.server.api_errors import (
    Failure,
    RefusedRequestError,
    anthropic_body,
    failure_of,
    openai_body,
)

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFE_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": PAGE_POLICY,
}
_CORS_METHODS: Final = "GET, POST, OPTIONS"
_CORS_HEADERS: Final = "authorization, content-type, x-api-key, anthropic-version, anthropic-beta"
_ANTHROPICS: Final = ("/v1/messages", "/v1/v1/messages", "/messages")  # with two usual mistakes
_LOCAL_SUFFIX: Final = ".localhost"


@dataclass(frozen=True)
class GuardSettings:
    """Who may ask.

    Attributes:
        keys: keys of which a request must bring one; none lets everybody in.
        host: the address that the server listens on.
        allowed_hosts: further names that a request may call the server by.
        cors_origins: origins whose pages may ask, such as "https://chat.example.org".
        public_paths: paths that need no key.
        public_prefixes: beginnings of such paths.
    """

    keys: Sequence[str]
    host: str
    allowed_hosts: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    public_paths: frozenset[str] = frozenset({"/", "/health", "/v1/health", "/favicon.ico"})
    public_prefixes: tuple[str, ...] = ("/page/",)


class Guard:
    """Refuses requests before they reach the application.

    A server on loopback is called by a name of loopback only: a page of another site whose name was made to point here
    (DNS rebinding) still sends its own name. A browser tells the origin of a page that asks; pages of other sites are
    refused unless their origin is listed, and no cookie or stored password counts as leave.

    Args:
        app: the application.
        settings: who may ask.
    """

    def __init__(self, app: ASGIApp, settings: GuardSettings) -> None:
        self._app = app
        self._settings = settings
        self._keys = [_digest(key.encode()) for key in settings.keys]
        self._checks_host = is_loopback(settings.host) or bool(settings.allowed_hosts)
        self._allowed_hosts = {name.lower().rstrip(".") for name in settings.allowed_hosts}
        self._origins = {origin.rstrip("/").lower() for origin in settings.cors_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        added = {**_SAFE_HEADERS, "request-id": f"req_{secrets.token_hex(12)}"}
        if origin is not None and origin.lower() in self._origins:
            added |= {"access-control-allow-origin": origin, "vary": "Origin"}
            added["access-control-expose-headers"] = "retry-after, request-id"
            added["cross-origin-resource-policy"] = "cross-origin"
        sending = _with_headers(send, added)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers, origin)
            if scope["method"] == "OPTIONS" and origin is not None and "access-control-request-method" in headers:
                await _preflight()(scope, receive, sending)
                return
            self._check_key(scope["path"], headers)
        except RefusedRequestError as error:
            await error_response(scope["path"], failure_of(error))(scope, receive, sending)
            return
        await self._app(scope, receive, sending)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        if not self._checks_host:
            return
        name = host_name(headers.get("host", ""))
        if name in self._allowed_hosts or is_loopback(name):
            return
        raise RefusedRequestError(
            "The request calls this server by a name that is not its own.",
            "Call it localhost or 127.0.0.1; the server's owner can add a name with --allowed-host.",
            status=403,
            code="host_not_allowed",
        )

    def _check_origin(self, scope: Scope, headers: Mapping[str, str], origin: str | None) -> None:
        if origin is None or origin.lower() in self._origins:
            return
        own = headers.get("host", "").lower()
        if origin.lower() in (f"http://{own}", f"https://{own}"):
            return
        raise RefusedRequestError(
            "The page that asks is of another site.",
            "The server's owner can allow its origin with --cors-origin.",
            status=403,
            code="origin_not_allowed",
        )

    def _check_key(self, path: str, headers: Mapping[str, str]) -> None:
        settings = self._settings
        if not self._keys or path in settings.public_paths or path.startswith(settings.public_prefixes):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = _digest(given.encode("latin-1"))  # the bytes that were sent
        # All are compared, each in constant time: how long it takes tells nothing about the keys.
        if not sum(hmac.compare_digest(digest, key) for key in self._keys):
            raise RefusedRequestError(
                "The key is wrong." if given else "A key is needed.",
                "Send the server's key as `Authorization: Bearer KEY`.",
                status=401,
                code="invalid_api_key",
            )


def host_name(header: str) -> str:
    """Return the name in a Host header, without its port."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def is_loopback(name: str) -> bool:
    """Return whether a name or address can only mean the machine itself."""
    name = name.strip("[]").lower()
    if name == "localhost" or name.endswith(_LOCAL_SUFFIX):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def error_response(path: str, failure: Failure) -> Response:
    """Return an error in the shape of the interface that a path belongs to."""
    body = anthropic_body(failure) if path.startswith(_ANTHROPICS) else openai_body(failure)
    return JSONResponse(body, failure.status, headers=failure.headers)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _preflight() -> Response:
    headers = {
        "access-control-allow-methods": _CORS_METHODS,
        "access-control-allow-headers": _CORS_HEADERS,
        "access-control-max-age": "600",
    }
    return Response(status_code=204, headers=headers)


def _with_headers(send: Send, added: Mapping[str, str]) -> Callable[[Message], Awaitable[None]]:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in added.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
