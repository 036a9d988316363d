"""Requests beside each other: the queue, clients that leave at any moment, and readers that are slow."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.support.pictures import encoded, noise
from tests.support.served import Served, events, long, served, user

CHAT = "/v1/chat/completions"
RUNNING, WAITING = "internvl_requests_running", "internvl_requests_waiting"


class Stream:
    """A streamed answer that is being read."""

    def __init__(self, server: Served, stack: ExitStack, **body: Any) -> None:
        client = stack.enter_context(server.client())
        self.response = stack.enter_context(client.stream("POST", CHAT, json={"stream": True, **body}))
        self.events = events(self.response)
        stack.callback(id, self)  # kept: the connection is closed with the last reference to its events

    def until_text(self) -> None:
        """Read until the answer has begun."""
        for _, data in self.events:
            if data["choices"] and data["choices"][0]["delta"].get("content"):
                return
        raise AssertionError("the answer has ended")


@pytest.fixture
def idle(endless: Served) -> Iterator[Served]:
    """The endless server, which has nothing to do before and after."""
    endless.wait_for_gauge(RUNNING, 0)
    yield endless
    endless.wait_for_gauge(RUNNING, 0)
    endless.wait_for_gauge(WAITING, 0)


def test_beyond_the_queue_requests_are_told_when_to_come_back(idle: Served) -> None:
    with ExitStack() as stack:
        Stream(idle, stack, **long()).until_text()
        for number in (1, 2):
            threading.Thread(target=ask_and_forget, args=(idle, stack), daemon=True).start()
            idle.wait_for_gauge(WAITING, number)
        refused = idle.post(CHAT, long())
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert idle.get("/health").status_code == 200


def ask_and_forget(server: Served, stack: ExitStack) -> None:
    try:
        Stream(server, stack, **long()).until_text()
    except Exception:  # the test has ended and closed the connection
        return


def test_a_request_that_waits_is_told_its_place(idle: Served) -> None:
    with ExitStack() as stack:
        Stream(idle, stack, **long()).until_text()
        waiting = Stream(idle, stack, **long("Wait."), return_progress=True)
        assert any(data.get("progress", {}).get("phase") == "queued" for _, data in waiting.events)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_answer(idle: Served, stream: bool) -> None:
    before = idle.gauges["internvl_requests_cancelled_total"]
    with ExitStack() as stack:
        if stream:
            Stream(idle, stack, **long()).until_text()
        else:
            leave_after_asking(idle, long())
    idle.wait_for_gauge(RUNNING, 0)
    idle.wait_for_gauge("internvl_requests_cancelled_total", before + 1)
    assert idle.chat("Again.", max_tokens=2)["usage"]["completion_tokens"] == 2


def leave_after_asking(server: Served, body: dict[str, Any]) -> None:
    """Ask, wait until the request runs or waits, and close the connection."""
    gauges = server.gauges
    count = gauges[RUNNING] + gauges[WAITING]
    request = httpx2.Request("POST", f"{server.url}{CHAT}", json=body)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(request.content)}\r\n\r\n".encode() + request.content)
        for _ in range(3000):
            gauges = server.gauges
            if gauges[RUNNING] + gauges[WAITING] > count:
                return
        raise AssertionError("the request did not begin")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue_disturbs_nobody(idle: Served, stream: bool) -> None:
    """A flag for the whole process ended the answer of another client (ik_llama.cpp #1929)."""
    with ExitStack() as stack:
        first = Stream(idle, stack, **long())
        first.until_text()
        leave_after_asking(idle, {**long("Leave."), "stream": stream})
        idle.wait_for_gauge(WAITING, 0)
        first.until_text()
        assert idle.gauges[RUNNING] == 1


def test_a_client_that_leaves_while_its_picture_is_encoded(cache_folder: Path) -> None:
    picture = encoded(noise(81, 480, 480), "PNG")
    with served(["demo"]) as server:
        for detail in ("high", "low"):
            leave_after_asking(server, {"messages": [user("What is it?", picture, detail=detail)]})
            server.wait_for_gauge(RUNNING, 0)
        assert server.chat("What is red?")["choices"][0]["message"]["content"]


def test_a_slow_reader_stalls_nobody(idle: Served) -> None:
    """Its answer is made at the model's pace; what it has not read yet waits for it, and its place is free."""
    body = {**long(max_tokens=3000), "logprobs": True, "top_logprobs": 20}  # more than sockets hold
    with ExitStack() as stack:
        slow = Stream(idle, stack, **body)
        slow.until_text()
        idle.wait_for_gauge(RUNNING, 0)
        assert idle.chat("Quick.", max_tokens=3)["usage"]["completion_tokens"] == 3
        *_, (_, last) = slow.events
        assert last == "[DONE]"


def test_clients_take_turns(cache_folder: Path, endless_files: ModelFiles) -> None:
    order: list[str] = []
    options = ["--mmproj", str(endless_files.mmproj), "-c", "32768", "--api-key", "a", "--api-key", "b"]
    with served([str(endless_files.text)], *options) as server, ExitStack() as stack:

        def ask(key: str) -> None:
            body = long(f"Go on, {key}.", max_tokens=500)
            server.post(CHAT, body, authorization=f"Bearer {key}")
            order.append(key)

        client = stack.enter_context(server.client(authorization="Bearer a"))
        first = stack.enter_context(client.stream("POST", CHAT, json={**long(), "stream": True}))
        assert first.status_code == 200
        threads = []
        for number, key in enumerate("aaab", 1):
            threads.append(threading.Thread(target=ask, args=(key,)))
            threads[-1].start()
            wait_for_waiting(client, number)
        first.close()
        for thread in threads:
            thread.join()
    assert order.index("b") <= 1


def wait_for_waiting(client: httpx2.Client, number: int) -> None:
    for _ in range(3000):
        if f'{WAITING}{{model="text"}} {number}.0' in client.get("/metrics").text:
            return
    raise AssertionError(f"{number} do not wait")


def test_answers_beside_each_other_are_as_alone(cache_folder: Path) -> None:
    """With four at once in shared batches; the pictures are different ones, of one size."""
    pictures = [encoded(noise(90 + number, 300, 300), "PNG") for number in range(4)]
    with served(["demo"], "--parallel", "4") as server:
        alone = [server.chat([user("What is it?", picture)])["choices"] for picture in pictures]
        together: list[Any] = [None] * 4

        def ask(number: int) -> None:
            together[number] = server.chat([user("What is it?", pictures[number])])["choices"]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert together == alone
