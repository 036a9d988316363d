"""Read the URL of a picture that a stranger named, in the one spelling that no two programs read differently.

Most ways around a check of addresses are a second way to spell a host: 127.1, 0x7f000001, a backslash, a tab, an @,
fullwidth digits. So nothing is repaired here: what is not plainly scheme, host, port and path is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, urljoin

import httpx2

from internvl_gguf.errors import PictureError
from internvl_gguf.server.public_addresses import Address

LONGEST: Final = 4096
"""Characters of a URL; signed ones of object stores have about 1,500."""
INSTEAD: Final = "Send the file itself, as data:image/png;base64,DATA or data:video/mp4;base64,DATA."

_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(https?)://([^/?#]+)([/?][^#]*)?(?:#.*)?", re.IGNORECASE | re.ASCII)
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::([0-9]{1,5}))?")
_NAME: Final = re.compile(r"(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)+(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_NAMES: Final = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home.arpa")
_DOTS: Final = re.compile("[\u3002\uff0e\uff61]")
_KEPT: Final = "".join(map(chr, range(0x21, 0x7F)))
"""What is not escaped in a path and its query: all of visible ASCII."""


@dataclass(frozen=True)
class PictureUrl:
    """Where a picture is.

    Attributes:
        scheme: http or https.
        host: a name in ASCII (IDNA), or an address without brackets.
        port: of TCP.
        path: with the query, in ASCII.
        address: the host where it is an address and no name.
    """

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None

    @property
    def authority(self) -> str:
        """Host and port, as the Host header has them."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(text: str, ports: Collection[int]) -> PictureUrl:
    """Read a URL.

    Args:
        text: as the stranger wrote it.
        ports: those that may be asked.

    Raises:
        PictureError: it is no plain URL of http or https, it names this machine or a port that is not allowed.
    """
    if len(text) > LONGEST:
        raise _refusal(f"it has {len(text):,} characters, more than {LONGEST:,}")
    if not text.isprintable() or " " in text or "\\" in text:
        raise _refusal("it has a space, a backslash or a character that cannot be seen")
    parts = _URL.fullmatch(text)
    if not parts:
        raise _refusal("it does not begin with http://HOST/ or https://HOST/")
    scheme, rest = parts[1].lower(), parts[3] or "/"
    authority = _AUTHORITY.fullmatch(parts[2])
    if not authority:
        raise _refusal("its host is no plain name or address; a user name or password is not sent")
    host, address = _read_host(authority[1])
    port = int(authority[2]) if authority[2] else _PORTS[scheme]
    if port not in ports:
        raise _refusal(f"port {port} is not asked, only {' and '.join(map(str, sorted(ports)))}")
    path = quote(rest if rest.startswith("/") else f"/{rest}", safe=_KEPT)
    return PictureUrl(scheme, host, port, path, address)


def redirected(url: PictureUrl, location: str, ports: Collection[int]) -> PictureUrl:
    """Read where a server sends on to, with the rules of the first URL; nor from https to http.

    Raises:
        PictureError: it may not go there.
    """
    if not location.isprintable() or "\\" in location:
        raise _refusal("it is redirected to no plain URL")
    try:
        joined = urljoin(str(url), location)
    except ValueError:
        raise _refusal("it is redirected to no plain URL") from None
    target = parse_url(joined, ports)
    if url.scheme == "https" != target.scheme:
        raise _refusal("it is redirected from https to http")
    return target


def _read_host(text: str) -> tuple[str, Address | None]:
    """Return a host in ASCII, and as an address where it is one."""
    if text.startswith("["):
        try:
            v6 = IPv6Address(text[1:-1])
        except ValueError:
            raise _refusal("its host is no address of IPv6") from None
        return str(v6), v6
    host = text.lower() if text.isascii() else _to_ascii(text)
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            v4 = IPv4Address(host)
        except ValueError:
            raise _refusal("its host is a number, but no address as 192.0.2.1 is") from None
        return str(v4), v4
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise _refusal("its host is no full name of a host on the internet")
    if any(host == name or host.endswith(f".{name}") for name in _LOCAL_NAMES):
        raise _refusal("its host is on the server's own machine or network")
    return host, None


def _to_ascii(host: str) -> str:
    """Encode an international name by IDNA 2008, which has no letters that stand for others; dots it would replace."""
    if _DOTS.search(host):
        raise _refusal("its host has dots of another script")
    try:
        return httpx2.URL(scheme="http", host=host).raw_host.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError):
        raise _refusal("its host is no international name") from None


def _refusal(reason: str) -> PictureError:
    return PictureError(f"Cannot use the URL: {reason}.", INSTEAD)
