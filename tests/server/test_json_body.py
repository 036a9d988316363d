"""Bodies: bounded in bytes and depth, JSON objects only."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.json_body import BodyReader, ClientLeftError

JSON = {"content-type": "application/json"}


def read(*parts: bytes, headers: dict[str, str] | None = None, reader: BodyReader | None = None) -> dict[str, Any]:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts[:-1]]
    messages.append({"type": "http.request", "body": parts[-1], "more_body": False})
    found = iter(messages)

    async def receive() -> Any:
        return next(found)

    return asyncio.run((reader or BodyReader(1000, 5000)).read(headers or JSON, receive))


def status(*parts: bytes, **options: Any) -> int:
    with pytest.raises(RefusedRequestError) as caught:
        read(*parts, **options)
    return caught.value.status


def test_a_body_may_come_in_pieces() -> None:
    assert read(b'{"a', b'": "\xc3', b'\xa4"}') == {"a": "ä"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"5",
        b'"text"',
        b"{",
        b'{"a": 1} {"b": 2}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 900,
        b'{"a": ' + b"9" * 900 + b"}{",
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert status(body) == 400


def test_deep_json_is_refused() -> None:
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert status(deep, reader=BodyReader(10**6, 10**7)) == 400


@pytest.mark.parametrize("part", [b"[],", b"{},", b"1,", b'"\\u0041",'])
def test_json_of_very_many_parts_is_refused_unparsed(part: bytes) -> None:
    """Sixty megabytes of empty lists took 1.6 GB and held everybody up for 15 seconds."""
    body = b'{"messages": [' + part * 2_100_000 + b"1]}"
    assert status(body, reader=BodyReader(10**8, 10**9)) == 400


def test_huge_numbers_are_refused() -> None:
    assert status(b'{"seed": ' + b"9" * 10_000 + b"}", reader=BodyReader(10**6, 10**7)) == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_other_media_types_are_refused(kind: str) -> None:
    """A page of another site may send a form without asking for leave; JSON it may not."""
    assert status(b"{}", headers={"content-type": kind}) == 415


def test_a_charset_may_stand_behind_the_type() -> None:
    assert read(b"{}", headers={"content-type": "Application/JSON; charset=utf-8"}) == {}


def test_compressed_bodies_are_refused() -> None:
    assert status(b"{}", headers={**JSON, "content-encoding": "gzip"}) == 415


def test_too_many_bytes_are_refused_before_and_while_they_come() -> None:
    assert status(b"{}", headers={**JSON, "content-length": "1001"}) == 413
    assert status(b"{" + b" " * 600, b" " * 600 + b"}") == 413


def test_all_bodies_together_are_bounded() -> None:
    assert status(b'{"a": 1}', reader=BodyReader(1000, 5)) == 503
    reader = BodyReader(1000, 8)
    for _ in range(3):  # what was read counts no more
        assert read(b'{"a": 1}', reader=reader) == {"a": 1}


def test_a_body_that_drips_is_refused() -> None:
    """A byte now and then keeps a connection alive; what came before it took the memory of others' bodies."""
    clock = itertools.count(0, 8)
    assert status(b"{", *[b" "] * 50, b"}", reader=BodyReader(1000, 5000, lambda: next(clock))) == 408


def test_a_client_that_leaves_is_noticed() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeftError):
        asyncio.run(BodyReader(1000, 5000).read(JSON, receive))


def test_a_large_body_is_read_whole() -> None:
    body = json.dumps({"a": "x" * 10**6}).encode()
    assert len(read(body, reader=BodyReader(2 * 10**6, 10**7))["a"]) == 10**6
