"""Classify faults of requests to the hub as transient or permanent, with messages for users."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from internvl_gguf.errors import HubError
from internvl_gguf.models.hub.cache import HubCache
from internvl_gguf.models.network import certificates_variable, proxy_of
from internvl_gguf.utils.safe_text import error_line

_NAMED: Final = 4  # repositories named in a hint
TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which a retry may succeed."""


def permanent_fault(error: Exception) -> HubError | None:
    """Return the error for a connection fault that no retry mends; None for other faults and for HTTP statuses."""
    if isinstance(error, HfHubHTTPError):
        return None
    if any(isinstance(each, socket.gaierror) for each in _causes(error)):
        return _unknown_host(error)
    tls = next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return _untrusted(error, tls)
    if tls is not None and not isinstance(tls, ssl.SSLEOFError | ssl.SSLZeroReturnError):  # a wrong protocol
        return HubError(
            f"{_host(error)} does not speak TLS as it should ({_reason(tls)}).",
            "Check HF_ENDPOINT (http or https?) and the proxy.",
        )
    if isinstance(error, httpx2.ProxyError) and "407" in str(error):
        return HubError(
            f"{_proxy(error) or 'The proxy'} wants a name and a password ({error_line(error)}).",
            "Set it as http://NAME:PASSWORD@HOST:PORT.",
        )
    if isinstance(error, httpx2.LocalProtocolError):  # its text holds the token
        return unusable_token()
    if not isinstance(error, httpx2.TransportError) or isinstance(error, httpx2.UnsupportedProtocol):
        return HubError(
            f"{_host(error)} answers as no hub does ({error_line(error)}).",
            "Check HF_ENDPOINT, and whether the network wants you to log in first.",
        )
    return None


def unusable_token() -> HubError:
    """Return the error for a token that no request can carry."""
    return HubError(
        "The token of the hub holds characters that no token has.",
        "Set HF_TOKEN to the token alone, or log in again with `hf auth login`.",
    )


def transient_fault(error: Exception) -> tuple[str, float | None]:
    """Return a description of a transient fault, and the seconds that the hub asks to wait."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        what = "The hub is busy (429)" if status == 429 else f"The hub answered with status {status}"
        return what, _retry_after(error.response)
    if isinstance(error, httpx2.TimeoutException):
        return "The hub did not answer in time", None
    proxy = _proxy(error)
    through = f" through {proxy}" if proxy else ""
    return f"The connection to {_host(error)}{through} failed ({error_line(error)})", None


def _unknown_host(error: Exception) -> HubError:
    """Return the error for a name that does not resolve, with what is here all the same."""
    proxy = _proxy(error)
    here = ", ".join(["demo", *(repo.repo for repo in HubCache().repos())][:_NAMED])
    return HubError(
        f"No network: {f'the host of {proxy}' if proxy else _host(error)} cannot be found.",
        f"Connect, and run it again. Here already: {here}; see `internvl list`.",
    )


def _untrusted(error: Exception, tls: ssl.SSLCertVerificationError) -> HubError:
    """Return the error for a certificate that is untrusted, of another name, or out of date."""
    found = (tls.verify_message or _reason(tls)).rstrip(".")
    reason = f"The certificate of {_host(error)} is not accepted: {found}"
    variable = certificates_variable()
    if variable is not None:
        return HubError(
            f"{reason}, by the certificates of {variable}.",
            f"Add the one that signs it (a company's proxy has its own), or unset {variable}.",
        )
    return HubError(
        f"{reason}.", "If your network has a certificate of its own, name its file (PEM) with SSL_CERT_FILE."
    )


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's name of the fault in words."""
    return error.reason.replace("_", " ").lower() if error.reason else error_line(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _retry_after(response: httpx2.Response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _url(error: Exception) -> httpx2.URL | None:
    try:
        return error.request.url if isinstance(error, httpx2.HTTPError) else None
    except RuntimeError:  # raised before there was a request
        return None


def _host(error: Exception) -> str:
    url = _url(error)
    return (url.host if url else "") or "the hub"


def _proxy(error: Exception) -> str | None:
    url = _url(error)
    return proxy_of(url) if url else None
