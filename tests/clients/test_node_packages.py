"""Packages for JavaScript ask the server: OpenAI's, and Vercel's AI SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.served import DESCRIPTION, EXAMPLE, Served
from tests.support.wishes import fits_tool

FOLDER = Path(__file__).with_name("node")


@pytest.fixture(scope="module")
def node() -> str:
    """The program that runs the scripts."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node.js is not installed")
    if not (FOLDER / "node_modules").is_dir():
        pytest.skip("the packages are not installed: `make test-clients` installs them where npm is")
    return found


def told(node: str, script: str, server: Served) -> dict[str, Any]:
    """Run a script; what it found."""
    command = [node, str(FOLDER / script), server.url, EXAMPLE]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_openai(node: str, demo: Served) -> None:
    found = told(node, "openai.mjs", demo)
    assert found["whole"] == found["streamed"] == found["response"] == DESCRIPTION
    assert found["tokens"][0] == found["tokens"][1] > 0
    assert found["refused"] == ["NotFoundError", 404, "model_not_found"]


def test_ai_sdk(node: str, demo: Served) -> None:
    found = told(node, "ai_sdk.mjs", demo)
    assert found["whole"] == found["streamed"] == DESCRIPTION
    assert found["reason"] == "stop"
    assert found["tokens"][0] == found["tokens"][1] > 0
    assert found["second"] == "98"
    assert found["refused"] == ["AI_APICallError", 404]


def test_ai_sdk_with_schemas_and_tools(node: str, demo: Served) -> None:
    found = told(node, "ai_sdk_tools.mjs", demo)
    assert found["object"] == found["partial"]
    assert found["calls"]
    assert all(map(fits_tool, [found["object"], *found["calls"]]))
    assert found["steps"] == ["tool-calls", "tool-calls"]
    assert found["cached"] > found["read"] - 40  # the new turn alone
    assert found["reason"] == "tool-calls"
    assert all(name == "look" and fits_tool(given) and not invalid for name, given, invalid in found["streamed"])
    assert found["refused"] == ["AI_APICallError", 400]


def test_the_lock_file_names_no_host() -> None:
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    assert len(packages) > 3
    assert [name for name, package in packages.items() if "resolved" in package] == []
