"""The address of a server and its key, as they were typed."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils.safe_text import safe_name

_KEY = re.compile(r"[\x21-\x7e]+")
_ENDINGS = ("/chat/completions", "/models", "/v1")
"""Ends of addresses that other programs ask for; the rest is the same server."""


@dataclass(frozen=True)
class Address:
    """An OpenAI-compatible server.

    Attributes:
        url: its address without `/v1` and without a slash at the end.
        key: the key that is sent with each request; None sends none.
    """

    url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, key: str | None = None) -> Address:
        """Return the address that was typed, with or without `/v1`.

        Raises:
            InvalidRequestError: it is no address of a server, or the key is none.
        """
        text = url.strip()
        parts = _split(text)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", text):
            raise _no_address(text)
        if parts.username is not None or parts.password is not None:
            raise InvalidRequestError("--url has a name or a password in it.", "Give a key with --api-key instead.")
        if parts.query or parts.fragment:
            raise InvalidRequestError(
                f"--url is {safe_name(text)!r}, which goes on after a ? or #.", "Write http://HOST:PORT alone."
            )
        path = parts.path.rstrip("/")
        for ending in _ENDINGS:
            path = path.removesuffix(ending).rstrip("/")
        key = (key or "").strip() or None
        if key is not None and not _KEY.fullmatch(key):
            raise InvalidRequestError("The API key has characters that no key has.", "Give the key alone, in one word.")
        return cls(f"{parts.scheme}://{parts.netloc}{path}", key)

    @property
    def is_here(self) -> bool:
        """Whether the server is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def clear_text_notice(self) -> str | None:
        """The warning that others can read what is sent; None where they cannot, or where no key is sent."""
        if self.key is None or self.is_here or self.url.startswith("https:"):
            return None
        return f"The key and the pictures travel to {self.url} in clear text: https:// would hide them."


def _split(text: str) -> SplitResult | None:
    """Parse an address; return None if it or its port is invalid."""
    try:
        parts = urlsplit(text)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None


def _no_address(text: str) -> InvalidRequestError:
    shown = safe_name(text)
    if re.fullmatch(r"[\w.-]+(:\d+)?(/\S*)?", text) or re.fullmatch(r"\[[0-9a-fA-F:]+\](:\d+)?", text):
        return InvalidRequestError(f"--url is {shown!r}, without http:// before it.", f"Write http://{shown}.")
    return InvalidRequestError(f"--url is {shown!r}, which is no address of a server.", "Write http://HOST:PORT.")
