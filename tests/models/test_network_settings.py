"""Proxies, certificates and addresses of the environment are used, or refused in two lines that name the variable."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
import trustme

from internvl_gguf.models.hub.faults import permanent_fault
from internvl_gguf.models.local_files import demo_files
from tests.support.loopback_hub import LoopbackHub

MODEL = "owner/name:Q4_K_M"
FILE = "name-Q4_K_M.gguf"
EXAMPLE = demo_files().text.with_name("example.png")
SETTINGS = ("proxy", "HF_", "SSL_CERT", "CA_BUNDLE", "TOKEN")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pull(tmp_path: Path) -> Run:
    """Run the command with no setting of the network but those given; stdin as `typed`."""

    def run(*arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not any(part.lower() in name.lower() for part in SETTINGS)
        }
        own = {"HF_HOME": str(tmp_path / "hf"), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "internvl_gguf", *(arguments or ("pull", MODEL))],
            input=typed,
            capture_output=True,
            text=True,
            env={**inherited, **own, **environment},
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def without_socks(tmp_path: Path) -> dict[str, str]:
    """An environment without the package that speaks SOCKS."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "socksio.py").write_text("raise ImportError('not here')\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), os.environ.get("PYTHONPATH", "")])}


def assert_told(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line of what happened and one of what to do; nothing was tried in between."""
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "hub.example"),
        ("HF_ENDPOINT", "http://hub.example:port"),
        ("HF_ENDPOINT", "http://hub.example:99999"),
        ("HF_ENDPOINT", "http://[hub"),
        ("HF_ENDPOINT", "https://"),
        ("HF_ENDPOINT", "ftp://hub.example"),
        ("HF_ENDPOINT", "https://hub example"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_HUB_ETAG_TIMEOUT", "1.5"),
        ("ALL_PROXY", "ftp://127.0.0.1:1080"),
        ("ALL_PROXY", "socks4://127.0.0.1:1080"),
        ("HTTPS_PROXY", "http://127.0.0.1:port"),
        ("https_proxy", "http://"),
        ("SSL_CERT_FILE", "/no/such.pem"),
        ("SSL_CERT_DIR", "/no/such/folder"),
        ("REQUESTS_CA_BUNDLE", "/no/such.pem"),
        ("CURL_CA_BUNDLE", "/no/such.pem"),
        ("SSL_CERT_FILE", __file__),
        ("CURL_CA_BUNDLE", __file__),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(name: str, value: str, pull: Run) -> None:
    """Each ended in a traceback of a library, or in six requests to nowhere."""
    assert_told(pull(**{name: value}), name, value.rstrip("/"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["pull", MODEL, "--dry-run"],
        ["ask", MODEL, "What?"],
        ["chat", MODEL],
        ["pick", MODEL],
        ["show", MODEL],
        ["bench", MODEL],
        ["inspect", str(EXAMPLE), "-m", MODEL],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_that_asks_the_hub_names_the_setting(
    arguments: list[str], pull: Run, without_socks: dict[str, str]
) -> None:
    for variable, value in (("ALL_PROXY", "socks5://127.0.0.1:1080"), ("HF_ENDPOINT", "hub.example")):
        assert_told(pull(*arguments, **{variable: value}, **without_socks), variable)


@pytest.mark.parametrize("scheme", ["socks", "socks5", "socks5h"])
def test_a_socks_proxy_needs_a_package(scheme: str, pull: Run, without_socks: dict[str, str]) -> None:
    done = pull(ALL_PROXY=f"{scheme}://name:secret@127.0.0.1:1080/", **without_socks)
    assert_told(done, "ALL_PROXY", "socksio", "internvl-gguf[socks]")
    assert "secret" not in done.stderr


def test_a_chat_goes_on_with_the_model_it_has(pull: Run, without_socks: dict[str, str]) -> None:
    """`/model NAME` ended the chat with a traceback."""
    script = f"What is it?\n/model {MODEL}\nWhat is it?\n"
    for settings in (
        {"ALL_PROXY": "socks5://127.0.0.1:1080"},
        {"SSL_CERT_FILE": "/no/such.pem"},
        {"HF_ENDPOINT": "http://[hub"},
        {"HF_HUB_DOWNLOAD_TIMEOUT": "soon"},
    ):
        done = pull("chat", "demo", "--no-history", typed=script, **settings, **without_socks)
        assert done.returncode == 1  # a line of the script failed
        assert next(iter(settings)) in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stdout.splitlines()) == 2, "both questions were answered"


class _Forwarder:
    """A proxy on 127.0.0.1 that speaks SOCKS 5 (RFC 1928) without a password.

    Attributes:
        reached: the hosts and ports that were asked for.
    """

    def __init__(self) -> None:
        self.reached: list[tuple[str, int]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> _Forwarder:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb", buffering=0) as words, contextlib.suppress(OSError):
            words.read(2 + 1)  # version, one way to log in: none
            client.sendall(b"\x05\x00")
            kind = words.read(4)[3]
            length = {1: 4, 3: -1}[kind]
            host = words.read(words.read(1)[0]).decode() if length < 0 else socket.inet_ntoa(words.read(length))
            port = int.from_bytes(words.read(2), "big")
            self.reached.append((host, port))
            with socket.create_connection((host, port)) as server:
                client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
                self._pump(client, server)

    @staticmethod
    def _pump(client: socket.socket, server: socket.socket) -> None:
        while True:
            for ready in select.select([client, server], [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                (server if ready is client else client).sendall(data)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.add_repo("owner/name", {FILE: b"a text model", "mmproj-F16.gguf": b"an encoder"})
        yield hub


@pytest.mark.parametrize("scheme", ["socks", "socks5", "socks5h"])
def test_the_hub_is_reached_through_a_socks_proxy(scheme: str, hub: LoopbackHub, pull: Run) -> None:
    """Desktops write "socks://" for SOCKS 5."""
    with _Forwarder() as proxy:
        done = pull(
            "pull", MODEL, "--dry-run", "--json", HF_ENDPOINT=hub.url, ALL_PROXY=f"{scheme}://127.0.0.1:{proxy.port}/"
        )
        assert done.returncode == 0, done.stderr
    assert FILE in [file["path"] for file in json.loads(done.stdout)["files"]]
    assert ("127.0.0.1", int(hub.url.rpartition(":")[2])) in proxy.reached


def test_a_socks_proxy_beside_others_does_no_harm(hub: LoopbackHub, pull: Run, without_socks: dict[str, str]) -> None:
    """Desktops set all_proxy beside http_proxy and https_proxy, which are for what is asked of the hub."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    others = {"http_proxy": nobody, "https_proxy": nobody, "no_proxy": "127.0.0.1"}
    done = pull(
        "pull", MODEL, "--dry-run", HF_ENDPOINT=hub.url, all_proxy="socks://127.0.0.1:1/", **others, **without_socks
    )
    assert done.returncode == 0, done.stderr


def test_a_proxy_where_nobody_listens_is_named(hub: LoopbackHub, pull: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = pull(HF_ENDPOINT=hub.url, http_proxy=f"http://name:secret@127.0.0.1:{port}")
    assert done.returncode == 1
    assert "through http_proxy failed" in done.stderr
    assert "secret" not in done.stderr


def test_an_empty_endpoint_is_the_public_one(pull: Run) -> None:
    """The connection to "" failed; a container's empty variable is none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = pull(HF_ENDPOINT="", HTTPS_PROXY=f"http://127.0.0.1:{port}")
    assert "The connection to huggingface.co through HTTPS_PROXY failed" in done.stderr


def test_a_token_that_cannot_be_sent_is_told_and_not_shown(hub: LoopbackHub, pull: Run) -> None:
    done = pull(HF_ENDPOINT=hub.url, HF_TOKEN="secret-ü")
    assert_told(done, "HF_TOKEN")
    assert "secret" not in done.stderr
    refused = permanent_fault(httpx2.LocalProtocolError("Illegal header value b'Bearer secret'"))
    assert refused is not None
    assert "HF_TOKEN" in refused.hint
    assert "secret" not in str(refused)


class _Page(BaseHTTPRequestHandler):
    """A login page that answers whatever is asked."""

    def do_GET(self) -> None:
        """The page, or a redirect that never ends."""
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        loops = self.path.startswith("/loop/")
        self.send_response(302 if loops else 200)
        if loops:
            self.send_header("Location", self.path)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[ThreadingHTTPServer]:
    """A server of such pages; `seen` are the paths that were asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    server.seen = []  # type: ignore[attr-defined]
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("path", ["", "/loop"])
def test_a_login_page_is_no_hub(path: str, pull: Run) -> None:
    """A page that a network answers with ended in a JSONDecodeError, a redirect to itself in TooManyRedirects."""
    with serving() as server:
        done = pull(HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}{path}")
    assert_told(done, "HF_ENDPOINT", "log in")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates of these servers."""
    return trustme.CA()


@pytest.fixture
def signed(authority: trustme.CA) -> ssl.SSLContext:
    """What a server needs to be localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def test_a_certificate_that_is_not_trusted_is_told_at_once(signed: ssl.SSLContext, pull: Run) -> None:
    """It was tried three times and blamed on the network."""
    with serving(signed) as server:
        done = pull(HF_ENDPOINT=f"https://localhost:{server.server_port}")
    assert_told(done, "The certificate of localhost is not accepted", "SSL_CERT_FILE")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_are_found_where_people_set_them(
    name: str, signed: ssl.SSLContext, authority: trustme.CA, pull: Run, tmp_path: Path
) -> None:
    trusted, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(trusted)
    trustme.CA().cert_pem.write_to_path(other)
    with serving(signed) as server:
        endpoint = f"https://localhost:{server.server_port}"
        assert_told(pull(HF_ENDPOINT=endpoint, **{name: str(trusted)}), "log in")
        assert server.seen  # type: ignore[attr-defined]
        assert_told(pull(HF_ENDPOINT=endpoint, **{name: str(other)}), "is not accepted", name)


def test_a_certificate_of_another_name_is_told(
    signed: ssl.SSLContext, authority: trustme.CA, pull: Run, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(signed) as server:
        done = pull(HF_ENDPOINT=f"https://127.0.0.1:{server.server_port}", SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert_told(done, "127.0.0.1 is not accepted", "mismatch")


def test_https_asked_of_a_server_without_it_is_told_at_once(pull: Run) -> None:
    with serving() as server:
        done = pull(HF_ENDPOINT=f"https://127.0.0.1:{server.server_port}")
    assert_told(done, "does not speak TLS", "HF_ENDPOINT")


def test_the_environment_is_as_it_was() -> None:
    """Variables are changed for the moment in which the client is made only."""
    script = (
        "import os; from internvl_gguf.models.hub.network import configured_client; before = dict(os.environ);"
        "configured_client('https://hub.example'); print(before == dict(os.environ))"
    )
    settings = {"ALL_PROXY": "socks://127.0.0.1:1", "REQUESTS_CA_BUNDLE": ssl.get_default_verify_paths().cafile or ""}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SSL_CERT")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**inherited, **settings}, check=True
    )
    assert done.stdout.strip() == "True"
