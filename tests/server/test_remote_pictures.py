"""Pictures fetched from servers on loopback: what comes, what is refused, and what a server can make it cost.

The servers' name is picture.example, whose address the tests say; so the address policy is theirs, too.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme

from internvl_gguf.errors import PictureError
from internvl_gguf.server.public_addresses import Address, is_remote
from internvl_gguf.server.remote_pictures import FetchLimits, RemotePictures
from tests.support.strangers import NOBODY, Names

PICTURE = b"\x89PNG\r\n\x1a\n and the rest"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A server, and what it was asked: the head of each request."""

    port: int
    heads: list[str] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://picture.example:{self.port}/a.png"


@asynccontextmanager
async def serving(serve: Serve | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve an answer, whatever is asked."""
    found = Server(0)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            found.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if isinstance(serve, bytes):
                writer.write(serve)
                await writer.drain()
            else:
                await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    if tls:
        tls.sni_callback = lambda _socket, name, _context: found.server_names.append(name)
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


def ok(body: bytes, *headers: str) -> bytes:
    """An answer with a body that ends with the connection."""
    return "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body


def moved(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def fetched_from(
    serve: Serve | bytes,
    *,
    names: Names | None = None,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    path: str = "/a.png",
    is_allowed: Callable[[Address], bool] = lambda _address: True,
    is_clip: bool = False,
    **limits: float,
) -> tuple[bytes | PictureError, Server]:
    """Fetch from a server on loopback that has the name picture.example; `tls`: the server's and the client's."""
    theirs, mine = tls or (None, NOBODY)

    async def fetch() -> tuple[bytes | PictureError, Server]:
        async with serving(serve, theirs) as server:
            allowed = FetchLimits(ports=frozenset({server.port}), **limits)  # type: ignore[arg-type]
            pictures = RemotePictures(allowed, is_allowed=is_allowed, resolve=names or Names(["127.0.0.1"]), tls=mine)
            try:
                scheme = "https" if theirs else "http"
                url = f"{scheme}://picture.example:{server.port}{path}"
                return await pictures.fetch(url, is_clip=is_clip), server
            except PictureError as error:
                return error, server
            finally:
                await pictures.aclose()

    return asyncio.run(fetch())


def refusal_from(serve: Serve | bytes, **options: object) -> str:
    found, _ = fetched_from(serve, **options)  # type: ignore[arg-type]
    assert isinstance(found, PictureError)
    return found.message


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Type: image/png", f"Content-Length: {len(PICTURE)}"),
        ("Content-Type: IMAGE/PNG; charset=binary",),
        ("Content-Type: application/octet-stream", "Content-Encoding: identity"),
        ("Content-Type: binary/octet-stream",),
        (),
    ],
    ids=str,
)
def test_a_picture_comes(headers: tuple[str, ...]) -> None:
    found, server = fetched_from(ok(PICTURE, *headers), path="/a.png?b#c")
    assert found == PICTURE
    request, *sent = server.heads[0].strip().split("\r\n")
    assert request == "GET /a.png?b HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in sent} == {
        "host", "user-agent", "accept", "accept-encoding", "connection"
    }  # fmt: skip
    assert f"Host: picture.example:{server.port}" in sent


@pytest.mark.parametrize("kind", ["video/mp4", "image/gif", "application/octet-stream"])
def test_a_clip_comes(kind: str) -> None:
    found, server = fetched_from(ok(b"a clip", f"Content-Type: {kind}"), is_clip=True)
    assert found == b"a clip"
    assert "accept: video/*,image/*" in server.heads[0].lower()


def test_a_clip_has_bounds_and_kinds_of_its_own() -> None:
    video, page = "Content-Type: video/mp4", "Content-Type: text/html"
    assert "its server says that it is no picture" in refusal_from(ok(PICTURE, video))
    assert "the clip at picture.example: its server says that it is no clip" in refusal_from(
        ok(PICTURE, page), is_clip=True
    )
    assert fetched_from(ok(PICTURE, video), is_clip=True, max_bytes=4)[0] == PICTURE
    assert "it has more than" in refusal_from(ok(PICTURE, video), is_clip=True, clip_bytes=4)
    assert "no address on the public internet" in refusal_from(ok(PICTURE), is_clip=True, is_allowed=is_remote)


def test_a_chunked_picture_comes() -> None:
    assert fetched_from(ok(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))[0] == b"abcde"


def test_proxies_and_logins_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine picture.example login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found, server = fetched_from(ok(PICTURE))
    assert found == PICTURE
    assert "uthorization" not in server.heads[0]


def test_no_cookie_is_sent_back() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(1)
        cookie = b"Set-Cookie: a=b; Path=/\r\n"
        first = moved("/b.png").replace(b"Content-Length", cookie + b"Content-Length")
        writer.write(first if len(served) == 1 else ok(PICTURE))

    served: list[int] = []
    found, server = fetched_from(serve)
    assert (found, len(server.heads)) == (PICTURE, 2)
    assert "ookie" not in server.heads[1]


def test_a_picture_too_large_by_its_header_is_not_read() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"", "Content-Length: 11"))
        await reader.read()  # until the other side ends it

    assert "more than 9.53674e-06 MiB" in refusal_from(serve, max_bytes=10)


@pytest.mark.parametrize("header", ["Content-Type: image/png", "Transfer-Encoding: chunked"])
def test_an_endless_picture_is_refused_while_it_is_read(header: str) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"", header))
        piece = b"x" * 2**16
        while not writer.is_closing():
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if "chunked" in header else piece)
            await writer.drain()

    assert "it has more than 1 MiB" in refusal_from(serve, max_bytes=2**20)


def test_a_picture_of_exactly_the_limit_comes() -> None:
    assert fetched_from(ok(b"x" * 1000), max_bytes=1000)[0] == b"x" * 1000
    assert "it has more than" in refusal_from(ok(b"x" * 1001), max_bytes=1000)


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nX: ", ok(b"")], ids=["status", "headers", "body"])
def test_a_slow_drip_ends_in_time(begin: bytes) -> None:
    """Bytes come all the time, so no wait for the next one is ever long."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while not reader.at_eof():
            if begin:
                writer.write(b"x")
                await writer.drain()
            await asyncio.sleep(0.005)  # the pace of the drip

    assert refusal_from(serve, seconds=0.3) == (
        "Cannot use the picture at picture.example: it did not come within 0.3 s."
    )


def test_a_slow_name_server_ends_in_time() -> None:
    over = threading.Event()

    def resolve(_host: str, _port: int) -> Iterable[str]:
        over.wait(30)
        return ["127.0.0.1"]

    async def fetch() -> str:
        pictures = RemotePictures(FetchLimits(seconds=0.1), resolve=resolve, tls=NOBODY)
        try:
            with pytest.raises(PictureError) as refused:
                await pictures.fetch("http://picture.example/")
            return refused.value.message
        finally:
            over.set()
            await pictures.aclose()

    assert "did not come within 0.1 s" in asyncio.run(fetch())


def test_so_many_at_once_and_no_more() -> None:
    """Each answer waits for a second request, so none would come if fewer were asked at once."""
    pairs, now, most = asyncio.Barrier(2), 0, 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await pairs.wait()
        now -= 1
        writer.write(ok(PICTURE))

    async def fetch() -> list[bytes]:
        async with serving(serve) as server:
            limits = FetchLimits(at_once=2, ports=frozenset({server.port}))
            pictures = RemotePictures(
                limits, is_allowed=lambda _address: True, resolve=Names(["127.0.0.1"]), tls=NOBODY
            )
            found = await asyncio.gather(*(pictures.fetch(server.url) for _ in range(6)))
            await pictures.aclose()
            return found

    assert asyncio.run(fetch()) == [PICTURE] * 6
    assert most == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ok(b"<html>", "Content-Type: text/html"), "its server says that it is no picture"),
        (ok(b"{}", "Content-Type: application/json"), "its server says that it is no picture"),
        (ok(b"x", "Content-Type: nonsense"), "its server says that it is no picture"),
        (ok(b"\x1f\x8b", "Content-Encoding: gzip"), "compressed it once more"),
        (ok(b"\x1f\x8b", "Content-Encoding: identity, br"), "compressed it once more"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "status 500"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"HTTP/1.1 206 Partial\r\n\r\nx", "status 206"),
        (b"HTTP/1.1 302 Moved\r\n\r\n", "status 302"),
        (b"HTTP/1.1 304 Same\r\n\r\n", "status 304"),
        (b"", "the connection broke, or what came is not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the connection broke, or what came is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 20 + b"\r\n\r\n", "it has more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", "the connection broke"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\n\r\n", "the connection broke"),
        (b"\x00" * 100 + b"\r\n\r\n", "the connection broke"),
    ],
    ids=lambda value: ascii(value[:60]),
)
def test_what_is_no_picture_is_refused_in_words(answer: bytes, reason: str) -> None:
    assert reason in refusal_from(answer, seconds=10)


def test_endless_greetings_end_in_time() -> None:
    """1xx answers may come before the real one, and here none does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    assert "did not come within 0.3 s" in refusal_from(serve, seconds=0.3)


def test_a_closed_port_is_an_error_and_the_next_address_is_tried() -> None:
    async def closed_port() -> int:
        async with serving(b"") as server:
            return server.port

    async def fetch(port: int) -> bytes:
        limits = FetchLimits(ports=frozenset({port}))
        pictures = RemotePictures(limits, is_allowed=lambda _address: True, resolve=Names(["127.0.0.1"]), tls=NOBODY)
        return await pictures.fetch(f"http://picture.example:{port}/")

    with pytest.raises(PictureError, match="its host cannot be reached"):
        asyncio.run(fetch(asyncio.run(closed_port())))
    assert fetched_from(ok(PICTURE), names=Names(["::1", "127.0.0.1"]))[0] == PICTURE


# Redirects, and names that change


def redirecting_to(location: str, status: int = 302) -> Serve:
    """Redirect whatever is asked; {port} in the location is the server's."""

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(moved(location.format(port=writer.get_extra_info("sockname")[1]), status))

    return serve


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/b.png", "b.png", "//picture.example:{port}/b.png", "?b", "b.png#c"])
def test_a_redirect_is_followed_and_looked_up_once_more(status: int, location: str) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(1)
        port = writer.get_extra_info("sockname")[1]
        writer.write(moved(location.format(port=port), status) if len(served) == 1 else ok(PICTURE))

    served: list[int] = []
    names = Names(["127.0.0.1"])
    found, server = fetched_from(serve, names=names)
    assert (found, names.asked) == (PICTURE, ["picture.example"] * 2)
    assert server.heads[1].split()[1] == ("/a.png?b" if location == "?b" else "/b.png")


def test_a_redirect_loop_ends() -> None:
    found, server = fetched_from(moved("/a.png"), redirects=3)
    assert isinstance(found, PictureError)
    assert "redirected more than 3 times" in found.message
    assert len(server.heads) == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://127.1:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://169.254.169.254:{port}/latest/meta-data/",
        "http://169.254.169.254/latest/meta-data/",
        "//127.0.0.1:{port}/",
        "http://me@picture.example:{port}/",
        "http://picture.example:1/",
        "file:///etc/passwd",
        "ftp://picture.example:{port}/a.png",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http:\\\\127.0.0.1\\",
        "/\\127.0.0.1/",
        "\\\\127.0.0.1/",
        "http://127.0.0.1:{port}\t/",
        "http://[",
        "http://１２７.0.0.1:{port}/",
        "http://inner.example:{port}/",
    ],
)
def test_a_redirect_leads_nowhere_that_a_url_may_not(location: str) -> None:
    """The server is let through once, as if it were public; after that the usual rules hold."""
    first = [True]
    found, server = fetched_from(
        redirecting_to(location), is_allowed=lambda address: first.pop() if first else is_remote(address)
    )
    assert isinstance(found, PictureError)
    assert (len(server.heads), first) == (1, [])


@pytest.mark.parametrize("location", ["/b\t.png", "b\\c.png", "http://[", "/\x85"])
def test_a_redirect_is_not_repaired(location: str) -> None:
    found, server = fetched_from(moved(location))
    assert isinstance(found, PictureError)
    assert "redirected to no plain URL" in found.message
    assert len(server.heads) == 1


def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """DNS rebinding: public when it is checked, inside when it is connected to. Nobody asks a second time."""
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    checked: list[Address] = []

    def is_allowed(address: Address) -> bool:
        checked.append(address)
        return address == ip_address("127.0.0.1")

    found, server = fetched_from(ok(PICTURE), names=names, is_allowed=is_allowed)
    assert (found, len(server.heads)) == (PICTURE, 1)
    assert (names.asked, checked) == (["picture.example"], [ip_address("127.0.0.1")])


def test_a_redirect_to_the_same_name_is_checked_again() -> None:
    allowed = ip_address("127.0.0.1")
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    found, server = fetched_from(moved("/b.png"), names=names, is_allowed=lambda each: each == allowed)
    assert isinstance(found, PictureError)
    assert (len(server.heads), len(names.asked)) == (1, 2)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server with a certificate for these names, and a client that trusts it."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(theirs)
    mine = ssl.create_default_context()
    authority.configure_trust(mine)
    return theirs, mine


def test_the_certificate_must_be_for_the_name_though_the_address_is_connected_to(authority: trustme.CA) -> None:
    found, server = fetched_from(ok(PICTURE), tls=contexts(authority, "picture.example"))
    assert found == PICTURE
    assert server.server_names == ["picture.example"]
    assert server.heads[0].count(f"Host: picture.example:{server.port}") == 1


@pytest.mark.parametrize("names", [["other.example"], ["127.0.0.1"]])
def test_a_certificate_for_another_name_or_the_address_is_refused(authority: trustme.CA, names: list[str]) -> None:
    found, server = fetched_from(ok(PICTURE), tls=contexts(authority, *names))
    assert isinstance(found, PictureError)
    assert "has no valid certificate" in found.message
    assert server.heads == []


def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    theirs, _ = contexts(authority, "picture.example")
    _, mine = contexts(trustme.CA(), "picture.example")
    assert "has no valid certificate" in refusal_from(ok(PICTURE), tls=(theirs, mine))


def test_https_is_not_redirected_to_http(authority: trustme.CA) -> None:
    serve = redirecting_to("http://picture.example:{port}/")
    found, server = fetched_from(serve, tls=contexts(authority, "picture.example"))
    assert isinstance(found, PictureError)
    assert "redirected from https to http" in found.message
    assert len(server.heads) == 1
