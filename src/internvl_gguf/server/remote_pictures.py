"""Fetch a file that a stranger named by its URL, without lending the stranger this machine's place in its network.

What is defended: services that only this machine or its network can reach (server-side request forgery), and the
server's memory and time. So each hop goes the same way: the URL is read strictly (`picture_urls`), its name is looked
up once, all addresses found must be of the public internet (`public_addresses`), and the connection goes to one of
these very addresses. A name that answers differently the second time (DNS rebinding) gains nothing: nobody asks twice.

Why httpx2's transport and not its client: the client knows proxies, cookies, logins from .netrc, redirects and
decompression, each of which would have to be switched off; the transport knows none of them. It speaks HTTP/1.1 with
h11, bounds headers, and takes an address in the URL with the name to be certified beside it (`sni_hostname`), which is
all that pinning needs. An own client on asyncio, h11 and ssl would be longer and no stricter. Every hop has a transport
of its own: a pool would find connections again by their address, whatever name was certified on them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from ssl import SSLContext
from typing import Final

import httpx2

from internvl_gguf._version import __version__
from internvl_gguf.errors import PictureError
from internvl_gguf.server.picture_urls import INSTEAD, PictureUrl, parse_url, redirected
from internvl_gguf.server.public_addresses import Address, is_remote

_TRIED: Final = 4
"""Addresses of one name that are tried, one after the other."""
_MOVED: Final = {301, 302, 303, 307, 308}
_BYTES: Final = {"application/octet-stream", "binary/octet-stream"}
"""Content types of servers that do not know what they have; object stores send them."""
_ONE: Final = httpx2.Limits(max_connections=1, max_keepalive_connections=0)


@dataclass(frozen=True)
class FetchLimits:
    """Bounds on the cost of a stranger's picture or clip.

    Attributes:
        max_bytes: size of a picture's file.
        seconds: whole time of a picture, with the wait for one of the places, the lookups and all redirects.
        clip_bytes: size of a clip's file.
        clip_seconds: whole time of a clip.
        redirects: how often it may be somewhere else.
        at_once: files that are fetched at the same time; others wait.
        ports: TCP ports that may be asked.
    """

    max_bytes: int = 20 * 2**20
    seconds: float = 15.0
    clip_bytes: int = 64 * 2**20
    clip_seconds: float = 45.0
    redirects: int = 3
    at_once: int = 8
    ports: frozenset[int] = frozenset({80, 443})


@dataclass(frozen=True)
class _Wanted:
    """What kind of file is fetched.

    Attributes:
        noun: its name in errors.
        accept: content types that are asked for.
        types: how those that are taken begin; an animation is a clip and an image.
        max_bytes, seconds: bounds.
    """

    noun: str
    accept: str
    types: tuple[str, ...]
    max_bytes: int
    seconds: float


def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system finds them; blocks.

    The dot at the end keeps the search list of this machine's network out.

    Raises:
        OSError: there are none.
    """
    found = socket.getaddrinfo(f"{host}.", port, type=socket.SOCK_STREAM)
    return [f"{where[0]}%{where[3]}" if len(where) == 4 and where[3] else str(where[0]) for *_, where in found]


class RemotePictures:
    """Fetches pictures; for one event loop."""

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        is_allowed: Callable[[Address], bool] = is_remote,
        resolve: Callable[[str, int], Iterable[str]] = look_up,
        tls: SSLContext | None = None,
    ) -> None:
        """Fetch nothing yet.

        Args:
            limits: the usual ones if None.
            is_allowed: says which addresses may be connected to; given by tests only, whose servers are on loopback.
            resolve: addresses of a host and port; may block, and raise OSError; given by tests only.
            tls: whom to trust; if None, whom this system trusts (SSL_CERT_FILE and SSL_CERT_DIR count).
        """
        self._limits = limits or FetchLimits()
        self._picture = _Wanted("picture", "image/*", ("image/",), self._limits.max_bytes, self._limits.seconds)
        clip_types = ("video/", "image/")
        self._clip = _Wanted("clip", "video/*,image/*", clip_types, self._limits.clip_bytes, self._limits.clip_seconds)
        self._is_allowed = is_allowed
        self._resolve = resolve
        self._tls = tls or httpx2.create_ssl_context()
        self._places = asyncio.Semaphore(self._limits.at_once)
        # Threads of its own: a stranger's slow name servers keep no other work of the event loop's threads waiting.
        self._lookups = ThreadPoolExecutor(self._limits.at_once, thread_name_prefix="picture-lookup")

    async def fetch(self, url: str, *, is_clip: bool = False) -> bytes:
        """Return the file at a URL.

        Args:
            url: as the stranger wrote it.
            is_clip: whether it is to be a clip, not a picture.

        Raises:
            PictureError: it may not be asked for, cannot be had, is too large, too slow, or of another kind.
        """
        wanted = self._clip if is_clip else self._picture
        target = parse_url(url, self._limits.ports)
        try:
            async with asyncio.timeout(wanted.seconds), self._places:
                return await self._follow(target, wanted)
        except TimeoutError:
            raise _failure(target, wanted, f"it did not come within {wanted.seconds:g} s") from None

    async def aclose(self) -> None:
        """Let go of the threads; lookups under way end by themselves."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, first: PictureUrl, wanted: _Wanted) -> bytes:
        target = first
        for _ in range(self._limits.redirects + 1):
            found = await self._ask(target, await self._addresses(target, wanted), wanted)
            if isinstance(found, bytes):
                return found
            target = redirected(target, found, self._limits.ports)
        raise _failure(first, wanted, f"it is redirected more than {self._limits.redirects} times")

    async def _addresses(self, target: PictureUrl, wanted: _Wanted) -> list[Address]:
        """Return the addresses of a host; one that is not allowed spoils all, since no honest name has both."""
        if target.address:
            addresses = [target.address]
        else:
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(self._lookups, self._resolve, target.host, target.port)
                addresses = [ip_address(each) for each in dict.fromkeys(found)]
            except (OSError, ValueError):  # ValueError: a zone, or a name that the system's encoding refuses
                addresses = []
        # One answer for names that do not exist and those of the inner network: it tells nobody which is which.
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise _failure(target, wanted, "its host has no address on the public internet")
        return addresses[:_TRIED]

    async def _ask(self, target: PictureUrl, addresses: list[Address], wanted: _Wanted) -> bytes | str:
        """Return the file, or where it is instead (a Location header)."""
        for address in addresses:
            try:
                return await self._ask_at(target, address, wanted)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
            except (httpx2.HTTPError, OSError):
                raise _failure(target, wanted, "the connection broke, or what came is not HTTP") from None
        raise _failure(target, wanted, "its host cannot be reached, or has no valid certificate")

    async def _ask_at(self, target: PictureUrl, address: Address, wanted: _Wanted) -> bytes | str:
        request = httpx2.Request(
            "GET",
            httpx2.URL(scheme=target.scheme, host=str(address), port=target.port, raw_path=target.path.encode("ascii")),
            headers={
                "Host": target.authority,
                "User-Agent": f"internvl-gguf/{__version__}",
                "Accept": wanted.accept,
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
            extensions={"sni_hostname": target.host, "timeout": {"connect": self._limits.seconds / _TRIED}},
        )
        async with httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=_ONE) as transport:
            response = await transport.handle_async_request(request)
            try:
                if response.status_code in _MOVED and (location := response.headers.get("Location")):
                    return location
                self._check_headers(target, wanted, response)
                return await self._read(target, wanted, response)
            finally:
                await response.aclose()

    def _check_headers(self, target: PictureUrl, wanted: _Wanted, response: httpx2.Response) -> None:
        """Refuse what is of another kind before any of it is read."""
        if response.status_code != httpx2.codes.OK:
            raise _failure(target, wanted, f"its server answered with status {response.status_code}")
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind and kind not in _BYTES and not kind.startswith(wanted.types):
            raise _failure(
                target,
                wanted,
                f"its server says that it is no {wanted.noun}",
                f"Give the URL of the {wanted.noun} itself.",
            )
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise _failure(target, wanted, "its server compressed it once more, though asked not to")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > wanted.max_bytes:
            raise _too_large(target, wanted)

    async def _read(self, target: PictureUrl, wanted: _Wanted, response: httpx2.Response) -> bytes:
        """Read the body, but never more than one piece beyond the limit."""
        pieces, size = [], 0
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for piece in response.stream:
            size += len(piece)
            if size > wanted.max_bytes:
                raise _too_large(target, wanted)
            pieces.append(piece)
        return b"".join(pieces)


def _too_large(target: PictureUrl, wanted: _Wanted) -> PictureError:
    limit = wanted.max_bytes / 2**20
    hint = "Scale it down, or save it in a compressed format."
    return _failure(target, wanted, f"it has more than {limit:g} MiB", hint)


def _failure(target: PictureUrl, wanted: _Wanted, reason: str, hint: str = INSTEAD) -> PictureError:
    return PictureError(f"Cannot use the {wanted.noun} at {target.host}: {reason}.", hint)
