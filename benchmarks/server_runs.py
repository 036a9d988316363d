"""Servers of both sides for the benchmarks, and a client that notes when each piece of an answer comes."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil

from peers import LOOPBACK, START_PATIENCE

WORKER = "internvl_gguf.session.worker.child_main"
CHAT = "/v1/chat/completions"
STOP_PATIENCE = 40.0  # seconds until a server has ended: it lets requests under way finish for 30
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP: to read the system's certificates would take longer than many an answer."""
ANSWER_PATIENCE = 3600.0  # seconds for one answer


class OurServer:
    """An `internvl serve` on a free port of the loopback device, in a process of its own; ended on leaving.

    Args:
        arguments: of the command.
        cache: folder of what it computes; one of its own if None, so that no run finds the pictures of the last one.

    Attributes:
        url: of its root.
        process: the server; the model runs in a child of it.
        ready: seconds from its start until it could be asked.

    Raises:
        SystemExit: it does not start.
    """

    def __init__(self, *arguments: str, cache: Path | None = None) -> None:
        with socket.socket() as free:
            free.bind((LOOPBACK, 0))
            port = free.getsockname()[1]
        self.url = f"http://{LOOPBACK}:{port}"
        self._folder = tempfile.TemporaryDirectory(prefix="internvl-server-", ignore_cleanup_errors=True)
        self._log = Path(self._folder.name) / "log"
        command = [sys.executable, "-m", "internvl_gguf", "serve", *arguments, "--port", str(port)]
        environment = {**os.environ, "INTERNVL_CACHE": str(cache or Path(self._folder.name) / "cache")}
        started = time.perf_counter()
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.process = psutil.Process(self._child.pid)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self.ready = time.perf_counter() - started

    def workers(self) -> list[psutil.Process]:
        """Processes of the model at this moment."""
        try:
            return [child for child in self.process.children() if WORKER in child.cmdline()]
        except psutil.Error:
            return []

    def memory(self) -> tuple[float, float]:
        """MiB that the server has in memory, and that its worker has."""
        sizes = [0, 0]
        for place, processes in enumerate(([self.process], self.workers())):
            for process in processes:
                try:
                    sizes[place] += process.memory_info().rss
                except psutil.Error:  # it has just ended
                    continue
        return sizes[0] / 2**20, sizes[1] / 2**20

    def gauge(self, name: str) -> float:
        """A number of /metrics, of all models together."""
        text = httpx2.get(f"{self.url}/metrics", timeout=30, trust_env=False, verify=NO_TLS).text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE)
        if not found:
            raise SystemExit(f"The server's /metrics has no {name}.")
        return sum(map(float, found))

    def log_text(self) -> str:
        """What the server has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End the server; closing twice is harmless."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            print(f"internvl serve said:\n{self.log_text()[-2000:]}", file=sys.stderr)
        self.close()

    def _wait_until_ready(self) -> None:
        gives_up = time.perf_counter() + START_PATIENCE
        while not self._is_healthy():
            if self._child.poll() is not None or time.perf_counter() > gives_up:
                raise SystemExit(f"internvl serve did not start:\n{self.log_text()[-2000:]}")
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        try:
            return (
                httpx2.get(f"{self.url}/health", timeout=1, trust_env=False, verify=NO_TLS).status_code == HTTPStatus.OK
            )
        except httpx2.HTTPError:
            return False


@dataclass(frozen=True)
class Served:
    """An answer as a client saw it.

    Attributes:
        status: of HTTP; 0 if there was none.
        first: seconds from the question to the first text; NaN if there was none.
        seconds: to the end.
        tokens: of the answer, as the server counted them.
        text: the answer.
        error: the server's words, or what broke; "" if nothing did.
        is_whole: whether it came to its end.
        is_in_words: whether it did, or the server said why it does not.
    """

    status: int
    first: float = math.nan
    seconds: float = 0.0
    tokens: int = 0
    text: str = ""
    error: str = ""
    is_whole: bool = False
    is_in_words: bool = False


def client_of(url: str, connections: int = 100) -> httpx2.AsyncClient:
    """A client of a server; the environment's proxies are not asked."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(base_url=url, timeout=ANSWER_PATIENCE, limits=limits, trust_env=False, verify=NO_TLS)


def question(text: str, picture: str | None = None, **fields: Any) -> dict[str, Any]:
    """A request: a text, and a picture as a data URI; `fields` are those of the interface."""
    content: Any = text
    if picture:
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": f"\n{text}"}]
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, **fields}


def streamed(body: dict[str, Any]) -> bytes:
    """A request as it is sent, for an answer piece by piece that ends with the number of its tokens."""
    return json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()


async def ask(
    client: httpx2.AsyncClient,
    body: dict[str, Any] | bytes,
    patience: float = ANSWER_PATIENCE,
    saw: Callable[[dict[str, Any]], None] = lambda _event: None,
) -> Served:
    """Have a request answered piece by piece; never raises what a server or the network does.

    Args:
        client: of the server.
        body: a request without its streaming options, or one as `streamed` makes it.
        patience: seconds after which the answer is given up.
        saw: is shown every event of the stream.
    """
    content = body if isinstance(body, bytes) else streamed(body)
    started, status, first, tokens = time.perf_counter(), 0, math.nan, 0
    pieces: list[str] = []
    error, is_done = "", False
    try:
        async with (
            asyncio.timeout(patience),
            client.stream("POST", CHAT, content=content, headers={"Content-Type": "application/json"}) as response,
        ):
            status = response.status_code
            if status != HTTPStatus.OK:
                error = words_of(await response.aread())
            else:
                async for line in response.aiter_lines():
                    event = event_of(line)
                    is_done = is_done or line == "data: [DONE]"
                    saw(event)
                    if "error" in event:
                        error = str(event["error"].get("message", ""))
                    if piece := text_of(event):
                        first = time.perf_counter() - started if math.isnan(first) else first
                        pieces.append(piece)
                    tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    except (httpx2.HTTPError, OSError) as broken:
        broke = str(broken) or type(broken).__name__
        return Served(status, first, time.perf_counter() - started, tokens, "".join(pieces), broke)
    whole = is_done and not error
    words = whole or (bool(error) and (status == HTTPStatus.OK or status >= 400))
    return Served(status, first, time.perf_counter() - started, tokens, "".join(pieces), error, whole, words)


def event_of(line: str) -> dict[str, Any]:
    """An event in a line of a stream; {} if it has none."""
    data = line.removeprefix("data: ")
    found = json.loads(data) if data.startswith("{") else {}
    return found if isinstance(found, dict) else {}


def text_of(event: dict[str, Any]) -> str:
    """The text of the answer in an event."""
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))


def words_of(body: bytes) -> str:
    """The message of an error that has one."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""


async def together(url: str, bodies: Sequence[bytes]) -> tuple[list[Served], float]:
    """Ask all at once, each from a client of its own; the answers, and seconds until the last has ended.

    Raises:
        SystemExit: one was not answered.
    """
    clients = [client_of(url) for _ in bodies]
    try:
        started = time.perf_counter()
        found = await asyncio.gather(*(ask(client, body) for client, body in zip(clients, bodies, strict=True)))
        seconds = time.perf_counter() - started
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))
    for each in found:
        if not each.is_whole or math.isnan(each.first):
            raise SystemExit(f"{url} gave no answer: {each.error or each}")
    return found, seconds
