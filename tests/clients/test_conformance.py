"""Suites of others that check an interface: llm-comply sends what clients send, schemathesis what nobody should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.served import Served

pytest.importorskip("llm_comply", reason="llm-comply is not installed: make test-clients")
pytest.importorskip("schemathesis", reason="schemathesis is not installed: make test-clients")

ENDLESS = "the demo model does not end the free text that is an argument of the test's tool"
NO_MODEL_NEEDED = "a request without a model is answered by the first model, for there may be only one"
NOT_SENT = "it is sent to models with the names of those that think before they answer"

REFUSED = {
    "anth-tool-calling": ENDLESS,
    "chat-error-handling": NO_MODEL_NEEDED,
    "error-handling": NO_MODEL_NEEDED,
}
"""Tests of llm-comply that fail here, and why."""

SKIPPED = {
    "chat-reasoning-summary": NOT_SENT,
    "anth-thinking-display": NOT_SENT,
    "reasoning-summary": NOT_SENT,
}
"""Tests that llm-comply leaves out by itself, and why."""

# JSON schema cannot say that a conversation has a question, nor that data are a picture: schemathesis sends none.
LEFT_OUT = "positive_data_acceptance"

PATHS = {
    "chat": "^/v1/chat/",
    "responses": "^/v1/responses",
    "messages": "^/v1/messages",
    "the rest": "^/(health|metrics|v1/models)",
}


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that was installed beside this Python, with a folder for what it leaves behind."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=540)


@pytest.mark.parametrize("style", ["openai-chat", "anthropic", "open-responses"])
def test_what_clients_rely_on(demo: Served, style: str, tmp_path: Path) -> None:
    options = ["--json", "--format", style, "-u", f"{demo.url}/v1", "-m", "demo", "-k", "x"]
    ran = run(tmp_path, "llm-comply", *options)
    results = {each["id"]: each for each in json.loads(ran.stdout)["results"]}
    assert len(results) >= 9, ran.stderr
    expected = {name: "failed" if name in REFUSED else "skipped" if name in SKIPPED else "passed" for name in results}
    surprises = {name: each for name, each in results.items() if each["status"] != expected[name]}
    assert surprises == {}


@pytest.mark.parametrize("part", PATHS)
def test_the_description_holds_for_requests_of_all_kinds(demo: Served, part: str, tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        "schemathesis",
        "run",
        f"{demo.url}/openapi.json",
        *("--include-path-regex", PATHS[part], "--exclude-checks", LEFT_OUT),
        *("--seed", "1", "--max-examples", "20", "--phases", "examples,coverage,fuzzing"),
        *("--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off", "--no-color"),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Coverage" in ran.stdout
    assert demo.get("/health").json()["status"] == "ok"


def test_every_path_is_tried_once(demo: Served) -> None:
    for path in demo.get("/openapi.json").json()["paths"]:
        assert sum(bool(re.search(pattern, path)) for pattern in PATHS.values()) == 1, path
