"""No spelling of a URL leads inside, and every plain one to a public host is asked at the address that was checked."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from internvl_gguf.errors import PictureError
from internvl_gguf.server.picture_urls import LONGEST
from internvl_gguf.server.remote_pictures import RemotePictures
from tests.support.strangers import INNER, NOBODY, Names

PUBLIC = "93.184.215.14"
PICTURE = b"\x89PNG\r\n\x1a\n and the rest"


class Wire:
    """Stands where connections would begin, and answers with a picture."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []

    async def __call__(self, _transport: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return httpx2.Response(200, stream=httpx2.ByteStream(PICTURE))


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    found = Wire()

    async def handle(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        return await found(transport, request)

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", handle)
    return found


def fetched(url: str, names: Names) -> bytes:
    """What comes from a URL with the usual rules."""

    async def fetch() -> bytes:
        pictures = RemotePictures(resolve=names, tls=NOBODY)
        try:
            return await pictures.fetch(url)
        finally:
            await pictures.aclose()

    return asyncio.run(fetch())


WRONG = [
    *(f"http://{f'[{each}]' if ':' in each else each}/a.png" for each in INNER),
    *(f"https://{f'[{each}]' if ':' in each else each}/a.png" for each in INNER),
    # This machine by numbers of every kind
    "http://2130706433/",
    "http://017700000001/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0x7f.0.0.1/",
    "http://127.0.0.0x1/",
    "http://127.0.0.0X1/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0x/",
    "http://1.1.1.0x/",
    "http://4294967297/",
    "http://256.256.256.256/",
    "http://1.1.1.1.1/",
    "http://8.8/",
    "http://127.0.0.1./",
    "http://localhost./",
    "http://example.com./",
    "http://[::1]./",
    "http://[::1/",
    "http://::1/",
    "http://[]/",
    "http://[::1%25lo]/",
    "http://[fe80::1%25eth0]/",
    "http://[::ffff:127.0.0.1%25]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000::0001]/",
    "http://[::ffff:0x7f000001]/",
    "http://[::ffff:0177.0.0.1]/",
    "http://[127.0.0.1]/",
    "http://[v1.127.0.0.1]/",
    # By letters that stand for others
    "http://127。0。0。1/",
    "http://93。184。215。14/",
    "http://example。com/",
    "http://bücher．example/",
    "http://127.0。0.1/",
    "http://１２７.0.0.1/",
    "http://127．0．0．1/",
    "http://127｡0｡0｡1/",
    "http://①②⑦.⓪.⓪.①/",
    "http://①②⑦。⓪。⓪。①/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://ⓔⓧⓐⓜⓟⓛⓔ.com/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://loc\u00adalhost/",
    "http://local\u200bhost/",
    "http://١٢٧.٠.٠.١/",
    "http://127.0.0.¹/",
    "http://𝟏𝟐𝟕.𝟎.𝟎.𝟏/",
    "http://exa℀mple.com/",
    "http://example.com／@127.0.0.1/",
    "http://example.com？@127.0.0.1/",
    "http://ſocalhost/",
    "httpſ://example.com/",
    "http://-.com/",
    "http://xn--/",
    "http://xn--.com\ud800/",
    "http://☃️.example/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://%6c%6f%63%61%6c%68%6f%73%74/",
    "http://example.com%00.127.0.0.1/",
    "http://example.com%2f@127.0.0.1/",
    "http://example.com%40127.0.0.1/",
    # By names
    "http://localhost/",
    "http://LOCALHOST/",
    "http://LocalHost:80/",
    "http://a.localhost/",
    "http://a.b.LOCALHOST/",
    "http://localhost.localdomain/",
    "http://printer.local/",
    "http://metadata/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://host.docker.internal/",
    "http://kubernetes.default.svc.cluster.local/",
    "http://router.lan/",
    "http://router.home.arpa/",
    "http://intranet/",
    "http://inner.example.com/",
    "http://127.0.0.1.nip.example/",
    "https://inner.example.com/",
    "http://a..example.com/",
    "http://.example.com/",
    "http://-a.example.com/",
    "http://a-.example.com/",
    "http://exam ple.com/",
    "http://exa'mple.com/",
    "http://exa$mple.com/",
    "http://exa<mple.com/",
    f"http://{'a' * 64}.example.com/",
    f"http://{'a.' * 130}example.com/",
    # By who is asked
    "http://public@127.0.0.1/",
    "http://93.184.215.14@127.0.0.1/",
    "http://127.0.0.1@example.com/",
    "http://user:password@example.com/",
    "http://@example.com/",
    "http://:@example.com/",
    "http://a:b@c@example.com/",
    "http://example.com:80@127.0.0.1/",
    "http://example.com:@127.0.0.1:80/",
    "http://127.0.0.1:80\\@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com/a\\b",
    "http://example.com\\.127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "http:/\\127.0.0.1/",
    "http://\\127.0.0.1/",
    "https:127.0.0.1/",
    "http:/127.0.0.1/",
    "http:///127.0.0.1/",
    "http:////127.0.0.1/",
    "http://?@127.0.0.1/",
    "http://#@127.0.0.1/",
    "//127.0.0.1/",
    "127.0.0.1/",
    "http://",
    "http:",
    "",
    " http://example.com/",
    "http://example.com/ ",
    "http://example.com/a b",
    "\thttp://example.com/",
    "ht\ntp://example.com/",
    "http://127.0.0\t.1/",
    "http://127.0.0\n.1/",
    "http://exa\tmple.com/",
    "http://example.com\r\nHost: 127.0.0.1/",
    "http://example.com/a\r\nX: y",
    "http://example.com/\x00",
    "http://example.com\x00.127.0.0.1/",
    "http://example.com/\x7f",
    "http://example.com/\x85",
    "http://example.com/\u2028",
    "http://example.com/\u202e",
    "\ufeffhttp://example.com/",
    "http://example.com/\ud800",
    # By what is asked
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    "ftp://example.com/a.png",
    "gopher://example.com/_",
    "dict://example.com/",
    "ldap://example.com/",
    "ws://example.com/",
    "unix:///run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/",
    "jar:http://example.com/a!/b",
    "url:http://example.com/",
    "view-source:http://example.com/",
    "javascript:alert(1)",
    "data:image/png;base64,AAAA",
    "/etc/passwd",
    "C:\\a.png",
    "\\\\server\\share\\a.png",
    "http://example.com:22/",
    "http://example.com:8080/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:99999/",
    "http://example.com:-80/",
    "http://example.com:+80/",
    "http://example.com:8_0/",
    "http://example.com:８０/",
    "http://example.com: 80/",
    "http://example.com:80:80/",
    "http://example.com:0x50/",
    "http://example.com:/",
    f"http://example.com/{'a' * LONGEST}",
]


@pytest.mark.parametrize("url", WRONG, ids=ascii)
def test_no_spelling_leads_inside(url: str, wire: Wire) -> None:
    names = Names(["127.0.0.1"])
    with pytest.raises(PictureError) as refused:
        fetched(url, names)
    assert wire.requests == []
    assert names.asked in ([], ["inner.example.com"], ["127.0.0.1.nip.example"])
    assert refused.value.hint
    assert "\n" not in f"{refused.value}"


RIGHT = {
    "http://example.com/a.png": ("http", 80, "example.com", "/a.png"),
    "HTTPS://Example.COM": ("https", 443, "example.com", "/"),
    "https://example.com:443/a?b=c%20d&e=/?#fragment": ("https", 443, "example.com", "/a?b=c%20d&e=/?"),
    "https://example.com?a=1": ("https", 443, "example.com", "/?a=1"),
    "https://example.com:80/": ("https", 80, "example.com:80", "/"),
    "https://my_bucket.a-b.example.com/ä?ö": ("https", 443, "my_bucket.a-b.example.com", "/%C3%A4?%C3%B6"),
    "https://bücher.example/": ("https", 443, "xn--bcher-kva.example", "/"),
    "https://例え.jp/": ("https", 443, "xn--r8jz45g.jp", "/"),
    "https://xn--bcher-kva.example/": ("https", 443, "xn--bcher-kva.example", "/"),
    "https://example.com/@127.0.0.1/": ("https", 443, "example.com", "/@127.0.0.1/"),
    "https://1.example.com/": ("https", 443, "1.example.com", "/"),
    "https://notlocalhost.com/": ("https", 443, "notlocalhost.com", "/"),
}


@pytest.mark.parametrize("url", RIGHT, ids=ascii)
def test_a_public_host_is_asked_at_its_address_by_its_name(url: str, wire: Wire) -> None:
    scheme, port, host, path = RIGHT[url]
    names = Names([PUBLIC, "2606:4700::6810:1"])
    assert fetched(url, names) == PICTURE
    [request] = wire.requests
    asked = request.url
    assert (asked.scheme, asked.host, asked.port or {"http": 80, "https": 443}[scheme]) == (scheme, PUBLIC, port)
    assert asked.raw_path.decode() == path
    assert request.headers["Host"] == host
    assert request.extensions["sni_hostname"] == host.partition(":")[0]
    assert names.asked == [host.partition(":")[0]]
    assert not {"cookie", "authorization", "referer"} & request.headers.keys()


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://93.184.215.14/", "93.184.215.14"), ("http://[2606:4700:0::6810:1]/", "[2606:4700::6810:1]")],
)
def test_a_public_address_is_asked_without_a_name_server(url: str, host: str, wire: Wire) -> None:
    names = Names(["127.0.0.1"])
    assert fetched(url, names) == PICTURE
    assert (wire.requests[0].headers["Host"], names.asked) == (host, [])


@pytest.mark.parametrize(
    "answer",
    [["10.0.0.7"], [PUBLIC, "10.0.0.7"], ["2606:4700::1", "fe80::1%2"], ["::ffff:10.0.0.7"], ["nonsense"], []],
    ids=str,
)
def test_what_a_name_leads_to_inside_is_told_to_nobody(answer: list[str], wire: Wire) -> None:
    """One address inside spoils the others; and the error is the same as for a name that does not exist."""
    with pytest.raises(PictureError) as refused:
        fetched("https://example.com/a.png?key=secret", Names(answer))
    assert refused.value.message == (
        "Cannot use the picture at example.com: its host has no address on the public internet."
    )
    assert wire.requests == []
