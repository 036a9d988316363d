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
from internvl_gguf.errors import ServerError
from internvl_gguf.models.network import proxy_of
from internvl_gguf.utils.safe_text import error_line, safe_name

CONNECT_SECONDS: Final = 10
SILENT_SECONDS: Final = 300
_LONGEST_SAID: Final = 300
_CONTEXT: Final = re.compile(r"context (length|size|window)|maximum context|too many tokens|prompt is too long", re.I)
_AS_OPENAI: Final = "Check --url: it is the address before /v1, as http://HOST:PORT."
KEY_HINT: Final = "Give it with --api-key KEY, or set INTERNVL_API_KEY."


class ContextFullError(ServerError):
    """The server refuses a conversation that does not fit its context."""


def connection_fault(error: Exception, address: Address, patience: float) -> ServerError:
    """Return the error for a connection that failed or broke off; `patience` is how many seconds it may be silent."""
    url = address.url
    causes = list(_causes(error))
    if isinstance(error, httpx2.ProxyError):
        return ServerError(
            f"The proxy does not lead to {url} ({error_line(error)}).", "Correct it, or name the host in NO_PROXY."
        )
    if any(isinstance(each, socket.gaierror) for each in causes):
        return ServerError(f"The host of {url} cannot be found.", "Check --url, and the network.")
    if any(isinstance(each, ConnectionRefusedError) for each in causes):
        return ServerError(
            f"Nobody listens at {url}{_through(address)}.",
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
            f"{url} cannot be reached{_through(address)} ({error_line(error)}).", "Check --url, and the network."
        )
    return ServerError(
        f"The server at {url} closed the connection ({error_line(error)}).",
        "Ask again; if it stays so, look at the server, and at http:// or https:// in --url.",
    )


def refusal(
    status: int, body: bytes, headers: Mapping[str, str], address: Address, path: str, model: str | None
) -> ServerError:
    """Return the error for an HTTP status that is no success.

    Args:
        body: the beginning of the answer.
        path: path of the request.
        model: the model that was asked, if any.
    """
    url = address.url
    error = error_in(body)
    said = _said(error)
    if status in (401, 403):
        if address.key is None:
            return ServerError(f"The server at {url} wants an API key.", KEY_HINT)
        return ServerError(f"The server at {url} does not accept this API key.", f"{KEY_HINT} The right one, that is.")
    if 300 <= status < 400:
        place = safe_name(headers.get("location", "another place"), 120)
        return ServerError(f"{url} sends on to {place}.", "Give that address with --url.")
    if status == 404 and model is not None and said and (error.get("code") == "model_not_found" or "model" in said):
        return ServerError(f"The server at {url} has no model {safe_name(model)}.", "/model lists those that it has.")
    if not said or status in (404, 405):
        return not_a_server(address, f"it answers {path} with status {status}")
    if status == 413:
        return ServerError(f"The server takes no request so large: {said}", "Ask with fewer or smaller pictures.")
    if status in (429, 503):
        wait = headers.get("retry-after", "")
        after = f" in {wait} s" if re.fullmatch(r"\d{1,4}", wait) else ""
        return ServerError(f"The server is busy: {said}", f"Ask again{after}.")
    return refused(error, address)


def refused(error: Mapping[str, Any], address: Address) -> ServerError:
    """Return the error for what a server says is wrong, in a refusal or in the middle of an answer."""
    said = _said(error) or "it does not say why."
    kind = f"{error.get('code')} {error.get('type')}"
    if "context_length_exceeded" in kind or "exceed_context_size" in kind or _CONTEXT.search(said):
        return ContextFullError(
            said, "Make room: /drop takes parts of the conversation out, /clear begins a new one; or ask for less."
        )
    return ServerError(f"The server refuses: {said}", f"Change the question or its settings, or look at {address.url}.")


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


def _said(error: Mapping[str, Any]) -> str:
    """Return what a server says, as one line that ends like a sentence; "" if it says nothing."""
    message = error.get("message")
    line = safe_name(message.strip(), _LONGEST_SAID) if isinstance(message, str) else ""
    return line if not line or line.endswith((".", "!", "?")) else f"{line}."


def _through(address: Address) -> str:
    proxy = None if address.is_here else proxy_of(httpx2.URL(address.url))
    return f" through {proxy}" if proxy else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
