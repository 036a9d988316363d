"""A pair in the shape of InternVL3.5 through every command, as a stranger would: planned, pulled, asked, quantised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import Reply, Session
from internvl_gguf.demo import __file__ as demo_door
from tests.support.chain_model import THINKING, write_chain_model
from tests.support.chat_terminal import ChatTerminal
from tests.support.kept_trial import copy_trial
from tests.support.loopback_hub import LoopbackHub

REPO = "bartowski/OpenGVLab_InternVL3_5-1B-GGUF"
TEXT, MMPROJ = "OpenGVLab_InternVL3_5-1B-bf16.gguf", "mmproj-OpenGVLab_InternVL3_5-1B-f16.gguf"
THOUGHT, ANSWER = "Hm, red? No.", "Blue."
EXAMPLE = Path(demo_door).with_name("example.png")
KINDS: dict[str, dict[str, Any]] = {"qwen3": THINKING, "qwen3moe": {**THINKING, "kind": "qwen3moe"}}


@pytest.fixture(params=sorted(KINDS))
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A hub with such a repository."""
    chain = ("<think>", "\t", THOUGHT, "\r", "</think>", " ", "Blue", ".")
    files = write_chain_model(tmp_path, chain, "internvl", **KINDS[request.param])
    with LoopbackHub() as running:
        running.add_repo(REPO, {TEXT: files.text.read_bytes(), MMPROJ: files.mmproj.read_bytes()})
        yield running


@pytest.fixture
def environment(hub: LoopbackHub, tmp_path: Path) -> dict[str, str]:
    """Variables under which commands ask that hub and keep their files in the test's folder."""
    cache = tmp_path / "cache"
    copy_trial(cache)
    places = {"HF_HOME": tmp_path / "hf", "INTERNVL_CACHE": cache, "INTERNVL_DATA": tmp_path / "data"}
    return {"HF_ENDPOINT": hub.url, "COLUMNS": "100", "NO_COLOR": "1", **{name: str(at) for name, at in places.items()}}


def internvl(environment: dict[str, str], *arguments: object) -> str:
    """What a command writes to stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "internvl_gguf", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_pair_of_the_newer_family_goes_through_every_command(
    environment: dict[str, str], hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{REPO}:BF16"
    picked = json.loads(internvl(environment, "pick", REPO, "--vram", "2GiB", "--json"))
    assert REPO in json.dumps(picked)
    internvl(environment, "pull", name)
    hub.__exit__(None, None, None)  # nothing below asks for a file again
    assert "BF16" in internvl(environment, "list")
    shown = json.loads(internvl(environment, "show", name, "--json"))
    assert shown["text"]["architecture"] in KINDS
    options = ["-t", 1, "--n-ctx", 1024, "--temp", 0]
    asked = json.loads(internvl(environment, "ask", name, "What color?", "-i", EXAMPLE, "--think", "--json", *options))
    assert (asked["text"], asked["thinking"]) == (ANSWER, THOUGHT)
    quant = tmp_path / "quants" / "internvl-Q8_0.gguf"
    quant.parent.mkdir()
    internvl(environment, "quantize", name, "Q8_0", quant, "-t", 1)
    mmproj = tmp_path / "mmproj-internvl.gguf"
    speed = ["--only", "speed", "-r", 1, "-p", 32, "-n", 8, "-t", 1, "-c", 512]
    benched = internvl(environment, "bench", quant, "--mmproj", mmproj, *speed, "--output-format", "json")
    assert "Q8_0" in benched
    variables: dict[str, Any] = {**environment}
    with ChatTerminal(quant, "--mmproj", mmproj, *options, folder=tmp_path, **variables) as chat:
        chat.do("What color?", rf"^\s*{ANSWER}")
        chat.wait(r"of them a thought")
        assert chat.leave() == 0
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with Session.open(quant, mmproj, worker=True, n_ctx=1024, n_threads=1) as session:
        (reply,) = session.batch(["What color?"], thinking=True, temperature=0.0)
        assert isinstance(reply, Reply)
        assert (reply.text, reply.thinking) == (ANSWER, THOUGHT)
