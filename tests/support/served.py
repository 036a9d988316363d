"""A server of `internvl serve` in a process of its own, and requests to it."""

from __future__ import annotations

import base64
import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psutil

from internvl_gguf.demo import __file__ as demo_door

EXAMPLE = demo_door.replace("__init__.py", "example.png")
DESCRIPTION = "A red circle at the top left, a blue square at the top right and a blue square at the bottom right."
"""All that the demo model says of that picture in its tiles. The last part is its own mistake: a number is there."""
SECONDS = 60.0


@dataclass
class Served:
    """A running server.

    Attributes:
        url: where it listens.
        process: its process.
        lines: what it wrote to stderr so far.
    """

    url: str
    process: subprocess.Popen[str]
    lines: list[str]
    _news: queue.Queue[str] = field(repr=False)

    def client(self, **headers: str) -> httpx2.Client:
        """A client of it."""
        return httpx2.Client(base_url=self.url, timeout=SECONDS, headers=headers, trust_env=False)

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """The response to a JSON body."""
        with self.client(**headers) as client:
            return client.post(path, json=body)

    def get(self, path: str, **headers: str) -> httpx2.Response:
        """The response to a GET."""
        with self.client(**headers) as client:
            return client.get(path)

    def chat(self, messages: Any, **fields: Any) -> dict[str, Any]:
        """The completion of a conversation; a text is a question."""
        messages = [user(messages)] if isinstance(messages, str) else messages
        response = self.post("/v1/chat/completions", {"messages": messages, **fields})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def wait_for_line(self, pattern: str) -> str:
        """The next line of stderr that a pattern is found in."""
        while not re.search(pattern, line := self._news.get(timeout=SECONDS)):
            pass
        return line

    @property
    def gauges(self) -> dict[str, float]:
        """Its counters, without labels."""
        rows = (line.rsplit(" ", 1) for line in self.get("/metrics").text.splitlines() if not line.startswith("#"))
        found: dict[str, float] = {}
        for name, value in rows:
            short = name.partition("{")[0]
            found[short] = found.get(short, 0) + float(value)
        return found

    def wait_for_gauge(self, name: str, value: float) -> None:
        """Ask until a counter has a value."""
        for _ in range(int(SECONDS * 50)):
            if self.gauges[name] == value:
                return
            threading.Event().wait(0.02)
        raise AssertionError(f"{name} is {self.gauges[name]}")

    @property
    def worker(self) -> psutil.Process:
        """The process of its model."""
        children = psutil.Process(self.process.pid).children()
        (found,) = [each for each in children if "child_main" in " ".join(each.cmdline())]
        return found


@contextmanager
def served(models: Sequence[str], *options: str, ready: bool = True) -> Iterator[Served]:
    """Run a server on a free port; it is ended with the `with` statement.

    Args:
        models: names or paths.
        *options: of the command.
        ready: whether to wait until the first model is loaded.
    """
    command = [sys.executable, "-m", "internvl_gguf", "serve", *models, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    lines: list[str] = []
    news: queue.Queue[str] = queue.Queue()
    assert process.stderr is not None
    stderr = process.stderr

    def read() -> None:
        for line in stderr:
            lines.append(line)
            news.put(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    found = Served("", process, lines, news)
    try:
        address = re.search(r"https?://\S+:\d+", found.wait_for_line("Serving on"))
        assert address is not None
        found.url = address[0]
        if ready:
            found.wait_for_line("is loaded|cannot be loaded")
        yield found
    finally:
        process.kill()
        process.wait()
        reader.join()
        stderr.close()


def user(text: str, *pictures: bytes, detail: str | None = None) -> dict[str, Any]:
    """A message of the user, its pictures as data URIs before its text."""
    if not pictures:
        return {"role": "user", "content": text}
    more = {} if detail is None else {"detail": detail}
    parts = [{"type": "image_url", "image_url": {"url": data_uri(each), **more}} for each in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def long(text: str = "Go on.", max_tokens: int = 30_000) -> dict[str, Any]:
    """A request whose answer ends at `max_tokens` only: tokens that were said before are likelier than any other."""
    return {"messages": [user(text)], "max_tokens": max_tokens, "presence_penalty": -100}


def assistant(text: str) -> dict[str, Any]:
    """A message of the assistant."""
    return {"role": "assistant", "content": text}


def data_uri(picture: bytes) -> str:
    """A picture's file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def events(response: httpx2.Response) -> Iterator[tuple[str | None, Any]]:
    """Name and data of each server-sent event; data that is no JSON is a text. Comments are left out."""
    name: str | None = None
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield name, json.loads(data) if data.startswith("{") else data
            name = None


def assert_refused(server: Served, path: str, body: dict[str, Any], param: str) -> None:
    """A request is refused by the name of the field that cannot be used, in OpenAI's shape."""
    response = server.post(path, body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["code"]
    assert param in error["message"]


def streamed(server: Served, path: str, body: dict[str, Any]) -> list[tuple[str | None, Any]]:
    """All events of a streamed answer."""
    with server.client() as client, client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))
