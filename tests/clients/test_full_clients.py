"""Programs that people use: what some of them sent once, word for word, and one that is run as it is.

`data/recorded_requests.json` has the bodies that these sent to the server for a question about its picture and a second
turn, recorded on 2026-11-30 by a proxy between: llm 0.36, aider 0.86.2 (the picture was added to the chat, in `ask`
mode), LiteLLM 1.110.2 (its `completion`, by OpenAI's interface and by Anthropic's) and langchain-openai 1.7.4
(ChatOpenAI, by chat completions and by responses). Only the picture's data were taken out. Versions that come later may
send something else; `llm` is light enough to be run here.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.served import EXAMPLE, Served, events

RECORDED = json.loads((Path(__file__).parent / "data" / "recorded_requests.json").read_text())


def name_of(recorded: dict[str, Any]) -> str:
    return f"{recorded['client']} {recorded['path']}"


def send(server: Served, path: str, body: dict[str, Any], picture: bytes) -> None:
    """Send a recorded body, which may ask for a stream, and read the whole answer."""
    text = json.dumps(body).replace("{example.png}", base64.b64encode(picture).decode())
    with (
        server.client(**{"content-type": "application/json"}) as client,
        client.stream("POST", path, content=text) as response,
    ):
        assert response.status_code == 200, response.read()
        if not body.get("stream"):
            assert json.loads(response.read())["usage"]["tiles"] == 10
            return
        *told, (name, last) = events(response)
    assert told
    assert last == "[DONE]" or name in ("response.completed", "message_stop")


@pytest.mark.parametrize("recorded", RECORDED, ids=name_of)
def test_recorded_requests(demo: Served, example: bytes, recorded: dict[str, Any]) -> None:
    first, second = recorded["bodies"]
    before = demo.gauges
    send(demo, recorded["path"], first, example)
    between = demo.gauges
    send(demo, recorded["path"], second, example)
    after = demo.gauges
    tiles, encoded, cached = "internvl_tiles_total", "internvl_tiles_encoded_total", "internvl_cached_tokens_total"
    assert between[tiles] == before[tiles] + 10
    assert after[tiles] == between[tiles] + 10
    assert after[encoded] == between[encoded]
    assert after[cached] >= between[cached] + 360


@pytest.fixture
def llm(demo: Served, tmp_path: Path) -> Any:
    """The program llm, whose only model is the server's: takes arguments, returns what it says."""
    pytest.importorskip("llm", reason="llm is not installed: make test-clients")
    model = {"model_id": "demo", "model_name": "demo", "api_base": f"{demo.url}/v1", "vision": True}
    model |= {"supports_schema": True, "supports_tools": True}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML

    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("llm")), *arguments]
        environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                             env=environment)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    return run


@pytest.mark.parametrize("more", [(), ("--no-stream",)], ids=["streamed", "whole"])
def test_llm(llm: Any, demo: Served, more: tuple[str, ...]) -> None:
    assert llm("-m", "demo", *more, "What number is written?", "-a", EXAMPLE) == "98"
    encoded = demo.gauges["internvl_tiles_encoded_total"]
    assert llm("-c", *more, "What is in the picture?")
    assert demo.gauges["internvl_tiles_encoded_total"] == encoded
    (first, second) = json.loads(llm("logs", "--json"))
    assert first["conversation_id"] == second["conversation_id"]


@pytest.mark.parametrize("more", [(), ("--no-stream",)], ids=["streamed", "whole"])
def test_llm_with_a_schema(llm: Any, more: tuple[str, ...]) -> None:
    answer = json.loads(llm("-m", "demo", *more, "--schema", "exact bool, sure bool", "Is a shape red?", "-a", EXAMPLE))
    assert set(answer) == {"exact", "sure"}
    assert all(isinstance(value, bool) for value in answer.values())


@pytest.mark.parametrize("more", [(), ("--no-stream",)], ids=["streamed", "whole"])
def test_llm_with_a_tool(llm: Any, more: tuple[str, ...]) -> None:
    """llm leaves the model the choice, so the tool is called or not."""
    tool = 'def look(exact: bool) -> str:\n    "Looks at shapes."\n    return "three"\n'
    llm("-m", "demo", *more, "--functions", tool, "--chain-limit", "2", "Which shapes are red?")
    (first, *_) = json.loads(llm("logs", "--json"))
    assert [each["name"] for each in first["tools"]] == ["look"]
