"""A server's life: loading, models that die, idle ones, several of them, and the end."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.server.test_many_at_once import CHAT, Stream
from tests.support.served import SECONDS, events, long, served, user

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def endless_server(files: ModelFiles, *options: str) -> Any:
    return served([str(files.text)], "--mmproj", str(files.mmproj), "-c", "32768", *options)


def test_health_answers_while_the_model_is_loaded(cache_folder: Path) -> None:
    with served(["demo"], ready=False) as server:
        first = server.get("/health")
        assert first.status_code in (200, 503)
        assert first.json()["status"] in ("ok", "loading")
        assert server.chat("What is red?")["choices"]  # waited for the model
        assert server.get("/health").json()["status"] == "ok"


@posix
def test_a_model_that_dies_is_an_error_event_and_comes_back(cache_folder: Path, endless_files: ModelFiles) -> None:
    with endless_server(endless_files) as server, ExitStack() as stack:
        stream = Stream(server, stack, **long())
        stream.until_text()
        server.worker.kill()
        *_, (_, last) = stream.events
        assert last["error"]["code"] == "model_process_ended"
        assert "SIGKILL" in last["error"]["message"]
        assert server.chat("Again.", max_tokens=2)["usage"]["completion_tokens"] == 2
        assert server.gauges["internvl_model_restarts"] == 1
        assert server.get("/health").json()["status"] == "ok"


@posix
def test_a_whole_answer_whose_model_dies_is_a_503(cache_folder: Path, endless_files: ModelFiles) -> None:
    with endless_server(endless_files) as server:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(server.post(CHAT, long())))
        thread.start()
        server.wait_for_gauge("internvl_requests_running", 1)
        server.worker.kill()
        thread.join()
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "model_process_ended"
        assert "retry-after" in answers[0].headers


@posix
def test_a_model_that_dies_unasked_comes_back_unasked(cache_folder: Path, endless_files: ModelFiles) -> None:
    with endless_server(endless_files) as server:
        before = server.worker
        before.kill()
        server.wait_for_line("loaded again")
        server.wait_for_gauge("internvl_model_loaded", 1)
        assert server.worker.pid != before.pid
        assert server.chat("Again.", max_tokens=2)["choices"]


@posix
def test_waiting_requests_survive_the_death_of_their_model(cache_folder: Path, endless_files: ModelFiles) -> None:
    with endless_server(endless_files) as server, ExitStack() as stack:
        Stream(server, stack, **long()).until_text()
        answers: list[Any] = []
        body = {"messages": [user("Wait.")], "max_tokens": 2}
        thread = threading.Thread(target=lambda: answers.append(server.post(CHAT, body)))
        thread.start()
        server.wait_for_gauge("internvl_requests_waiting", 1)
        server.worker.kill()
        thread.join()
        assert answers[0].status_code == 200


@posix
def test_a_signal_lets_answers_finish(cache_folder: Path, endless_files: ModelFiles) -> None:
    with endless_server(endless_files) as server, ExitStack() as stack:
        stream = Stream(server, stack, **long(max_tokens=4000))
        stream.until_text()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_line("Stopping")
        late = server.post(CHAT, long())
        assert (late.status_code, late.json()["error"]["code"]) == (503, "stopping")
        assert server.get("/health").status_code == 503
        *_, (_, last) = stream.events
        assert last == "[DONE]"
        assert server.process.wait(SECONDS) == 0


@posix
@pytest.mark.parametrize("way", ["no grace", "a second signal"])
def test_answers_that_take_too_long_are_ended(cache_folder: Path, endless_files: ModelFiles, way: str) -> None:
    with (
        endless_server(endless_files, *(["--grace", "0"] if way == "no grace" else [])) as server,
        ExitStack() as stack,
    ):
        body = long()
        client = stack.enter_context(server.client())
        response = stack.enter_context(client.stream("POST", CHAT, json={**body, "stream": True}))
        found = events(response)
        next(found)
        waiting = threading.Thread(target=server.post, args=(CHAT, body))
        waiting.start()
        server.wait_for_gauge("internvl_requests_waiting", 1)
        server.process.send_signal(signal.SIGTERM)
        if way == "a second signal":
            server.wait_for_line("Stopping")
            server.process.send_signal(signal.SIGTERM)
        *_, (_, last) = found
        assert last["error"]["code"] == "stopping"
        waiting.join()
        assert server.process.wait(SECONDS) == 0


@posix
def test_ctrl_c_without_work_ends_at_once(cache_folder: Path, endless_files: ModelFiles) -> None:
    with endless_server(endless_files) as server:
        worker = server.worker
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(SECONDS) == 0
        worker.wait(SECONDS)


def test_an_idle_model_is_unloaded_and_loaded_on_demand(cache_folder: Path, endless_files: ModelFiles) -> None:
    with endless_server(endless_files, "--idle-unload", "0.001") as server:
        server.wait_for_line("unloaded")
        server.wait_for_gauge("internvl_model_loaded", 0)
        assert server.get("/health").status_code == 200
        assert server.get("/v1/models").json()["data"][0]["context_length"] == 32_768
        assert server.chat("Go on.", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_several_models_are_loaded_when_asked_for(cache_folder: Path, endless_files: ModelFiles) -> None:
    folder = endless_files.text.parent / "second"
    folder.mkdir(exist_ok=True)
    shutil.copy(endless_files.text, folder / "second.gguf")
    shutil.copy(endless_files.mmproj, folder / "mmproj.gguf")
    with served(["demo", str(folder)], "--alias", "gpt-4o") as server:
        names = [model["id"] for model in server.get("/v1/models").json()["data"]]
        assert names == ["demo", "second"]
        assert [model["status"] for model in server.get("/v1/models").json()["data"]] == ["ready", "unloaded"]
        assert server.chat("What is red?", model="SECOND", max_tokens=2)["model"] == "second"
        assert server.chat("What is red?", model="gpt-4o", max_tokens=2)["model"] == "demo"
        assert server.chat("What is red?", max_tokens=2)["model"] == "demo"
        assert server.get("/v1/models/second").json()["status"] == "ready"
        assert server.get("/v1/models/third").status_code == 404


def test_a_model_that_cannot_be_loaded_is_said_without_a_path(cache_folder: Path, tmp_path: Path) -> None:
    from internvl_gguf.models.local_files import demo_files

    files = demo_files()
    text, mmproj = tmp_path / "cut.gguf", tmp_path / "mmproj.gguf"
    data = files.text.read_bytes()
    text.write_bytes(data[: len(data) // 2])
    shutil.copy(files.mmproj, mmproj)
    with served([str(text)], "--mmproj", str(mmproj)) as server:
        assert "cut.gguf" in "".join(server.lines)
        refused = server.post(CHAT, {"messages": [user("x")]})
        assert refused.status_code == 503
        assert str(tmp_path) not in refused.text
        assert server.get("/health").json()["status"] == "failed"


def test_a_request_line_is_shown_without_what_it_says(cache_folder: Path) -> None:
    with served(["demo"], "-v", "--api-key", "very-secret") as server:
        server.post(CHAT, {"messages": [user("a private question")]}, authorization="Bearer very-secret")
        server.wait_for_line(f"POST {CHAT} 200")
        assert server.post(CHAT, {}).status_code == 401
        said = "".join(server.lines)
        metrics = server.get("/metrics", authorization="Bearer very-secret").text
        assert "private" not in said + metrics
        assert "very-secret" not in said + metrics


@posix
def test_the_parent_decides_when_a_model_ends(cache_folder: Path, endless_files: ModelFiles) -> None:
    """systemd, and `timeout`, signal all processes of a service; the model died, and answers had no time to finish."""
    with endless_server(endless_files) as server, ExitStack() as stack:
        stream = Stream(server, stack, **long(max_tokens=3000))
        stream.until_text()
        server.worker.terminate()
        server.process.terminate()
        *_, (_, last) = stream.events
        assert last == "[DONE]"
        assert server.process.wait(SECONDS) == 0
        assert not any("loaded again" in line for line in server.lines)
