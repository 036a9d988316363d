"""Where pictures come from, and what is refused of them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.served import Served, data_uri, served

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, example: bytes) -> Path:
    root = tmp_path_factory.mktemp("media")
    (root / "inside" / "deep").mkdir(parents=True)
    (root / "inside" / "deep" / "picture.png").write_bytes(example)
    (root / "secret.png").write_bytes(example)
    (root / "inside" / "out").symlink_to(root / "secret.png")
    (root / "inside" / "in").symlink_to(root / "inside" / "deep" / "picture.png")
    (root / "inside-too").mkdir()
    (root / "inside-too" / "picture.png").write_bytes(example)
    return root


@pytest.fixture(scope="module")
def rooted(cache_folder: Path, folder: Path) -> Iterator[Served]:
    with served(["demo"], "--media-root", str(folder / "inside"), "--max-pictures", "3", "--max-body", "8") as found:
        yield found


def ask(server: Served, *urls: str) -> tuple[int, str]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}
    response = server.post(CHAT, {"messages": [message], "max_tokens": 1})
    return response.status_code, response.json().get("error", {}).get("code") or ""


def test_files_below_the_media_root_may_be_named(rooted: Served, folder: Path) -> None:
    assert ask(rooted, f"file://{folder}/inside/deep/picture.png") == (200, "")
    assert ask(rooted, f"file://{folder}/inside/in") == (200, "")


@pytest.mark.parametrize(
    "name",
    [
        "secret.png",
        "inside/../secret.png",
        "inside/out",
        "inside-too/picture.png",
        "inside/%2e%2e/secret.png",
        "inside/deep",
        "inside/nothing.png",
        "inside/deep/picture.png%00.txt",
    ],
)
def test_no_other_file_can_be_told_from_a_missing_one(rooted: Served, folder: Path, name: str) -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"file://{folder}/{name}"}}]
    response = rooted.post(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "Cannot use picture 1: there is no such file. Name one below the media root."
    )


def test_files_and_addresses_are_refused_unless_allowed(demo: Served, folder: Path) -> None:
    assert ask(demo, f"file://{folder}/inside/deep/picture.png") == (400, "local_images_not_allowed")
    assert ask(demo, "/etc/passwd")[0] == 400
    for url in ("http://example.org/a.png", "HTTPS://example.org/a.png", " http://127.0.0.1/"):
        assert ask(demo, url) == (400, "remote_images_not_allowed")
    assert ask(demo, "ftp://example.org/a.png") == (400, "invalid_image")


def test_addresses_are_fetched_from_public_ones_only(cache_folder: Path) -> None:
    with served(["demo"], "--allow-remote-images") as server:
        port = server.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "169.254.169.254", "10.0.0.1"):
            assert ask(server, f"http://{host}/a.png") == (400, "invalid_image"), host
            assert ask(server, f"http://{host}:{port}/health") == (400, "invalid_image"), host


def bomb() -> bytes:
    """A small PNG of 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def large(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,!!!!",
        "data:image/png;base64,",
        "data:text/html,<h1>hello</h1>",
        "data:image/png;base64," + base64.b64encode(b"no picture").decode(),
        "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>",
        "not base64 either",
        "data:image/png",
    ],
)
def test_what_is_no_picture_is_refused(demo: Served, url: str) -> None:
    assert ask(demo, url) == (400, "invalid_image")


def test_a_bomb_is_refused_by_its_header(demo: Served) -> None:
    assert ask(demo, data_uri(bomb())) == (400, "invalid_image")


def test_pictures_are_bounded_together(rooted: Served, example: bytes) -> None:
    """Each of them is allowed, but all are decoded at once."""
    picture = data_uri(large(11_000))
    assert ask(rooted, picture, picture, picture) == (400, "invalid_image")
    assert ask(rooted, *[data_uri(example)] * 4) == (400, "too_many_images")


def test_a_body_is_bounded(rooted: Served) -> None:
    assert ask(rooted, "data:image/png;base64," + "A" * (9 * 2**20)) == (413, "request_too_large")
