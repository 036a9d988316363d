"""What went wrong with a server, in two lines: faults of the connection, and what it refuses."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx2

from internvl_gguf.chat.remote.address import Address
from internvl_gguf.errors import ContextOverflowError, ServerError
from internvl_gguf.models.network import proxy_of
from internvl_gguf.utils.safe_text import error_line, safe_name

CONNECT_SECONDS: Final = 10
SILENT_SECONDS: Final = 300
_LONGEST_SAID: Final = 300
_CONTEXT: Final = re.compile(r"context (length|size|window)|maximum context|too many tokens|prompt is too long", re.I)
_AS_OPENAI: Final = "Check --url: it is the address before /v1, as http://HOST:PORT."
_KEY_OPTIONS: Final = "with --api-key KEY or INTERNVL_API_KEY."


def connection_fault(error: Exception, address: Address, patience: float) -> ServerError:
    """Return the error for a connection that failed or broke off; `patience` is how many seconds it may be silent."""
    url = address.url
    causes = list(_causes(error))
    proxy = _proxy(address)
    if proxy and (
        isinstance(error, httpx2.ProxyError) or any(isinstance(each, ConnectionRefusedError) for each in causes)
    ):
        return ServerError(
            f"The proxy of {proxy} does not lead to {url} ({error_line(error)}).",
            "Correct it, or name the host in NO_PROXY.",
        )
    if any(isinstance(each, socket.gaierror) for each in causes):
        return ServerError(f"The host of {url} cannot be found.", "Check --url, and the network.")
    if any(isinstance(each, ConnectionRefusedError) for each in causes):
        return ServerError(
            f"Nobody listens at {url}.",
            "Start the server there, as with `internvl serve`, or correct --url.",
        )
    tls = next((each for each in causes if isinstance(each, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return ServerError(
            f"The certificate of {url} is not accepted: {error_line(Exception(tls.verify_message or tls.reason))}.",
            "Name the file (PEM) of the certificate that signs it with SSL_CERT_FILE.",
        )
    if tls is not None and url.startswith("https:"):
        reason = (tls.reason or error_line(tls)).replace("_", " ").lower()
        return ServerError(f"{url} does not speak TLS ({reason}).", "Write http:// if the server has no certificate.")
    if isinstance(error, httpx2.ConnectTimeout):
        return ServerError(
            f"{url} did not answer within {CONNECT_SECONDS} s.", "Check --url, and whether a firewall is in between."
        )
    if isinstance(error, httpx2.TimeoutException):
        return ServerError(f"The server at {url} was silent for {patience:g} s.", "Look at the server, and ask again.")
    if isinstance(error, httpx2.ConnectError):
        return ServerError(
            f"{url} cannot be reached ({error_line(error)}).", "Check --url, the network, and any proxy."
        )
    return ServerError(
        f"The server at {url} closed the connection ({error_line(error)}).",
        "Ask again; if it stays so, look at the server, and at http:// or https:// in --url.",
    )


def refusal(
    status: int, body: bytes, headers: Mapping[str, str], address: Address, path: str, model: str | None
) -> ServerError | ContextOverflowError:
    """Return the error for an HTTP status that is no success.

    Args:
        body: the beginning of the answer.
        path: path of the request.
        model: the model that was asked, if any.
    """
    url = address.url
    error = error_in(body)
    said = _said(error)
    if status == 401 or (status == 403 and not said):
        if address.key is None:
            return ServerError(f"The server at {url} wants an API key.", f"Give it {_KEY_OPTIONS}")
        return ServerError(f"The server at {url} does not accept this API key.", f"Give the right one {_KEY_OPTIONS}")
    if 300 <= status < 400:
        place = safe_name(headers.get("location", "another place"), 120)
        return ServerError(f"{url} sends on to {place}.", "Give that address with --url.")
    if status == 404 and model is not None and said and (error.get("code") == "model_not_found" or "model" in said):
        return ServerError(f"The server at {url} has no model {safe_name(model)}.", "/model lists those that it has.")
    if status >= 500 and not said:
        return ServerError(f"The server at {url} fails (status {status}).", "Look at the server, and ask again.")
    if not said or status in (404, 405):
        return not_a_server(address, f"it answers {path} with status {status}")
    if status == 413:
        hint = _hint(error) or "Ask with fewer or smaller pictures."
        return ServerError(f"The server takes no request so large: {said}", hint)
    if status in (429, 503):
        wait = headers.get("retry-after", "")
        after = f" in {wait} s" if re.fullmatch(r"\d{1,4}", wait) else ""
        return ServerError(f"The server is busy: {said}", f"Ask again{after}.")
    return refused(error, address)


def refused(error: Mapping[str, Any], address: Address) -> ServerError | ContextOverflowError:
    """Return the error for what a server says is wrong, in a refusal or in the middle of an answer."""
    said, hint = _said(error) or "it does not say why.", _hint(error)
    kind = f"{error.get('code')} {error.get('type')}"
    if "context_length_exceeded" in kind or "exceed_context_size" in kind or _CONTEXT.search(said):
        hint = "Make room: /drop takes parts of the conversation out, /clear begins a new one; or ask for less."
        needed, available = whole(error.get("needed")), whole(error.get("available"))
        if needed is None or available is None or needed <= available:
            return ServerError(said, hint)
        tiles = whole(error.get("max_tiles")) or None
        return ContextOverflowError(said, hint, needed=needed, available=available, max_tiles=tiles)
    return ServerError(
        f"The server refuses: {said}", hint or f"Change the question or its settings, or look at {address.url}."
    )


def not_a_server(address: Address, why: str) -> ServerError:
    """Return the error for an address at which no OpenAI-compatible server is."""
    return ServerError(f"{address.url} is no OpenAI-compatible server: {why}.", _AS_OPENAI)


def error_in(body: bytes) -> Mapping[str, Any]:
    """Return the error that the answer of a server holds; empty if it holds none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    found = document.get("error")
    if isinstance(found, dict):
        return found
    if isinstance(found, str):
        return {"message": found}
    return document if document.get("object") == "error" or "message" in document else {}


def whole(value: object) -> int | None:
    """Return a whole number that a server sent; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def _said(error: Mapping[str, Any]) -> str:
    """Return what a server says, as one line that ends like a sentence; "" if it says nothing.

    What our server says to do about it is left out: that is `_hint`.
    """
    message = error.get("message")
    if not isinstance(message, str):
        return ""
    hint = error.get("hint")
    message = message.removesuffix(hint) if isinstance(hint, str) else message
    line = safe_name(message.strip(), _LONGEST_SAID)
    return line if not line or line.endswith((".", "!", "?")) else f"{line}."


def _hint(error: Mapping[str, Any]) -> str:
    """Return what our server says to do, as one line; "" of other servers, which do not say it apart."""
    hint = error.get("hint")
    return safe_name(hint.strip(), _LONGEST_SAID) if isinstance(hint, str) else ""


def _proxy(address: Address) -> str | None:
    """Return the variable of the proxy that leads to a server; None without one."""
    return None if address.is_here else proxy_of(httpx2.URL(address.url))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
