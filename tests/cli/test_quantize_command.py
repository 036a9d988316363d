"""`internvl quantize` as people run it: real processes, real exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.models.local_files import demo_files
from internvl_gguf.quantizing import TYPES, read_matrix, write_matrix
from tests.cli.test_commands import assert_two_lines, run
from tests.quantizing.test_quantizer import even_matrix
from tests.support.loopback_hub import LoopbackHub
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

DEMO = demo_files()
EXAMPLE = DEMO.text.with_name("example.png")


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Two chunks of text."""
    path = tmp_path / "text.txt"
    path.write_text("There is a red circle above the blue square. " * 60, encoding="utf-8")
    return path


def test_the_command_makes_several_types(tmp_path: Path) -> None:
    done = run("quantize", "demo", "Q8_0,Q4_K_M", tmp_path, "-t", 1)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        str(tmp_path / f"demo-text-{label}.gguf") for label in ("Q8_0", "Q4_K_M")
    ]
    assert re.search(r": 3\.58 MiB of 6\.68 MiB, 8\.54 bits a weight, [\d.]+ s$", lines[0])
    assert "internvl ask" in done.stderr
    command = done.stderr.split("Try it: internvl ")[1].split()
    assert command[:2] == ["ask", str(tmp_path / "demo-text-Q8_0.gguf")]
    assert command[-2:] == ["--mmproj", str(DEMO.mmproj)]


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_the_output_may_be_an_option(tmp_path: Path, option: str) -> None:
    """People write -o by habit, and were told that there is no such option."""
    target = tmp_path / "mine.gguf"
    done = run("quantize", "demo", "Q8_0", option, target, "-t", 1)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{target}: ")
    assert target.is_file()
    same = run("quantize", "demo", "Q8_0", target, option, target, "-t", 1, "--force")
    assert same.returncode == 0
    assert_two_lines(run("quantize", "demo", "Q8_0", target, option, tmp_path / "other.gguf"), code=2)
    assert not (tmp_path / "other.gguf").exists()


def test_the_command_calibrates_with_text_and_pictures(tmp_path: Path, text_file: Path) -> None:
    kept = tmp_path / "kept.gguf"
    calibrated = ["--calibrate", text_file, "--calibrate", EXAMPLE]
    done = run("quantize", "demo", "Q2_K_S", tmp_path, *calibrated, "--save-imatrix", kept, "--json", "-t", 1)
    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert shown["imatrix"] | {"positions": 0} == {
        "tensors": 35, "positions": 0, "chunks": 2, "questions": 1, "visual_tokens": 360, "skipped": 0
    }  # fmt: skip
    (made,) = shown["files"]
    assert (made["path"], made["type"], made["imatrix"]) == (str(tmp_path / "demo-text-Q2_K_S.gguf"), "Q2_K_S", True)
    assert made["bytes"] == Path(made["path"]).stat().st_size
    assert read_matrix(kept).positions == shown["imatrix"]["positions"]
    again = run("quantize", "demo", "--imatrix", kept, *calibrated, "--save-imatrix", tmp_path / "twice.gguf", "-t", 1)
    assert again.returncode == 0, again.stderr
    assert read_matrix(tmp_path / "twice.gguf").positions == 2 * shown["imatrix"]["positions"]
    assert again.stdout == ""


def test_without_a_type_all_are_listed(tmp_path: Path) -> None:
    listed = run("quantize", DEMO.mmproj)
    assert listed.returncode == 0
    shown = {line.split()[0]: line for line in listed.stdout.splitlines() if line.strip()}
    assert {kind.label for kind in TYPES if kind.for_mmproj} <= shown.keys()
    assert "15 of 20 matrices fell back, 15 to Q5_0" in shown["Q4_K_S"]
    sizes = [float(size) for size in re.findall(r"~([\d.]+) MiB", listed.stdout)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) >= 5
    document = json.loads(run("quantize", "demo", "Q4_K_M,IQ1_S", "--dry-run", "--json").stdout)
    assert [(each["label"], each["needs_matrix"]) for each in document["types"]] == [
        ("Q4_K_M", False),
        ("IQ1_S", True),
    ]


def test_a_model_of_the_hub_is_quantised_from_its_bf16(tmp_path: Path) -> None:
    """Of several quants the whole one is fetched; one that lost something already is refused before it is."""
    here = tmp_path / "here"
    here.mkdir()
    with LoopbackHub() as hub:
        files = {"Demo-BF16.gguf": DEMO.text, "Demo-Q8_0.gguf": DEMO.text, "mmproj-F16.gguf": DEMO.mmproj}
        hub.add_repo("owner/demo", files)
        at: dict[str, Any] = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        }
        assert_two_lines(run("quantize", "owner/demo:Q8_0", "Q4_0", here, **at))
        assert not hub.requests
        done = run("quantize", "owner/demo", "Q4_0", here, "-t", 1, **at)
    assert done.returncode == 0, done.stderr
    assert "Took BF16" in done.stderr
    assert [path.name for path in here.iterdir()] == ["Demo-Q4_0.gguf"]
    assert "--mmproj" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["missing.gguf", "Q8_0"], 1),
        (["demo", "IQ1_S", "FOLDER"], 1),
        (["TEXT", "Q8_0", "--calibrate", "PICTURE"], 1),
        (["MMPROJ", "Q8_0", "--imatrix", "PICTURE"], 1),
        (["TEXT", "Q4_Z"], 2),
        (["TEXT", "Q8_0", "--save-imatrix", "x.gguf"], 2),
    ],
)
def test_the_command_refuses_in_two_lines(tmp_path: Path, arguments: list[str], code: int) -> None:
    names = {
        "TEXT": write_tiny_text(tmp_path / "tiny-F32.gguf"),
        "MMPROJ": write_tiny_mmproj(tmp_path / "mmproj.F32.gguf").rename(tmp_path / "vision.gguf"),
        "PICTURE": EXAMPLE,
        "FOLDER": tmp_path,
    }
    before = sorted(tmp_path.iterdir())
    assert_two_lines(run("quantize", *(names.get(argument, argument) for argument in arguments)), code)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name == "nt", reason="SIGINT")
def test_ctrl_c_ends_the_command_with_130(tmp_path: Path) -> None:
    write_matrix(tmp_path / "m.gguf", even_matrix(DEMO.text))
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "internvl_gguf", "quantize", "demo", "IQ1_M", tmp_path / "out"]
    command += ["--imatrix", tmp_path / "m.gguf", "-t", "1"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "Making" in process.stderr.readline()
        while not list((tmp_path / "out").iterdir()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert said.strip().splitlines()[-1].startswith("Interrupted; ")
    assert "was not written" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").iterdir())
