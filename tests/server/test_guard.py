"""Who may ask: hosts, origins and keys, in front of an application that answers everybody."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from internvl_gguf.server.guard import Guard, GuardSettings, is_loopback


def ask(settings: GuardSettings, method: str = "GET", path: str = "/v1/models", **headers: str) -> httpx2.Response:
    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=Guard(PlainTextResponse("answered"), settings))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            return await client.request(
                method, path, headers={name.replace("_", "-"): v for name, v in headers.items()}
            )

    return asyncio.run(send())


def code(response: httpx2.Response) -> Any:
    return "" if response.status_code == 200 else response.json()["error"]["code"]


LOCAL = GuardSettings(keys=(), host="127.0.0.1")
KEYED = GuardSettings(keys=("secret", "another-ü"), host="0.0.0.0")


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "app.localhost:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:80"],
)
def test_a_server_on_loopback_is_called_by_its_names(host: str) -> None:
    assert ask(LOCAL, host=host).text == "answered"


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:8080",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "10.0.0.1",
        "[::2]",
        "",
        "evil-localhost",
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(host: str) -> None:
    """DNS rebinding: a page of evil.com whose name now means 127.0.0.1 is of the same origin for its browser."""
    assert code(ask(LOCAL, host=host)) == "host_not_allowed"


def test_a_proxys_name_can_be_allowed() -> None:
    settings = GuardSettings(keys=(), host="127.0.0.1", allowed_hosts=["Chat.Example.org"])
    assert ask(settings, host="chat.example.org:443").text == "answered"
    assert code(ask(settings, host="other.example.org")) == "host_not_allowed"


@pytest.mark.parametrize(
    "origin", ["https://evil.com", "null", "http://localhost:3000", "http://localhost.evil.com:8080", "file://"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_sites_are_refused(origin: str, method: str) -> None:
    response = ask(LOCAL, method, origin=origin)
    assert code(response) == "origin_not_allowed"
    assert "access-control-allow-origin" not in response.headers


def test_the_servers_own_page_may_ask() -> None:
    assert ask(LOCAL, "POST", origin="http://localhost:8080").text == "answered"


def test_listed_origins_may_ask() -> None:
    settings = GuardSettings(keys=("secret",), host="127.0.0.1", cors_origins=["https://chat.example.org"])
    origin = "https://chat.example.org"
    preflight = ask(settings, "OPTIONS", origin=origin, access_control_request_method="POST")
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    response = ask(settings, "POST", origin=origin, authorization="Bearer secret")
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["vary"] == "Origin"
    refused = ask(settings, "POST", origin=origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin  # so that the page can tell its user
    assert code(ask(settings, "OPTIONS", origin="https://other.org", access_control_request_method="POST")) == (
        "origin_not_allowed"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer secret"},
        {"authorization": "bearer  secret "},
        {"x-api-key": "secret"},
        {"authorization": "Bearer another-ü".encode().decode("latin-1")},
    ],
)
def test_a_key_opens(headers: dict[str, str]) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    assert ask(KEYED, **raw).text == "answered"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Basic secret"},
        {"authorization": "secret"},
        {"authorization": "Bearer secre"},
        {"authorization": "Bearer secrets"},
        {"x-api-key": ""},
    ],
)
def test_everything_else_is_a_401(headers: dict[str, str]) -> None:
    response = ask(KEYED, **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/", "/health", "/page/app.js"])
def test_the_page_and_health_need_no_key(path: str) -> None:
    assert ask(KEYED, path=path).text == "answered"


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/pages", "/v1/chat/completions", "/health/x"])
def test_everything_else_needs_one(path: str) -> None:
    assert ask(KEYED, path=path).status_code == 401


def test_errors_have_the_shape_of_the_interface() -> None:
    assert ask(KEYED, "POST", "/v1/messages").json()["type"] == "error"
    assert ask(KEYED, "POST", "/v1/responses").json()["error"]["type"] == "authentication_error"


def test_every_response_is_hardened() -> None:
    for response in (ask(LOCAL), ask(LOCAL, host="evil.com")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["request-id"].startswith("req_")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "[::1]", "a.localhost"])
def test_names_of_loopback(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize("name", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org"])
def test_names_of_other_machines(name: str) -> None:
    assert not is_loopback(name)
