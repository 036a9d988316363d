"""An option is declared once: a new one is on every surface at once, and the tables in docs/ are those of the code."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import internvl_gguf

PACKAGE = Path(internvl_gguf.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
GENERATE = DOCS / "generate.py"

NEW_FIELD = """\
    top_n_sigma: float = option(
        0.0,
        "Keep tokens within so many standard deviations of the largest logit; 0 keeps all.",
        allows=at_least(0),
        hint="Use 0 (keep all) or more.",
    )
"""
NEW_USE = """\
        if params.top_n_sigma:
            self._add(llama_cpp.llama_sampler_init_top_n_sigma(params.top_n_sigma))
"""
SURFACES = """
import json, runpy, sys
from internvl_gguf.chat.settings import Settings, setting_names
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.cli.completion import answer
from internvl_gguf.config import SamplingParams
from internvl_gguf.llama.library import llama_cpp
from internvl_gguf.llama.sampler import SamplerChain

def length(**params):
    with SamplerChain(SamplingParams(temperature=1.0, **params), n_vocab=100) as chain:
        return llama_cpp.llama_sampler_chain_n(chain.handle)

line = Line(1, b'{"prompt": "Hello?", "top_n_sigma": 1.5}')
print(json.dumps({
    "set": Settings().changed("top-n-sigma", "0.5").sampling.top_n_sigma,
    "set completes": "top_n_sigma" in setting_names(),
    "batch": Common().question_of(line).options["sampling"].top_n_sigma,
    "shell completes": answer(["zsh", "ask", "--top-n"]).split("\\t")[0],
    "docs": [line for line in runpy.run_path(sys.argv[1])["TABLES"]["sampling"]().splitlines() if "sigma" in line],
    "samplers more": length(top_n_sigma=1.0) - length(),
}))
"""


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """The folder of a copy of the package in which somebody added a sampling option, with two edits."""
    target = tmp_path / "copy" / PACKAGE.name
    shutil.copytree(PACKAGE, target, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__"))
    for name, place, new in (
        ("config.py", "    seed: int | None = option(\n", NEW_FIELD),
        ("llama/sampler.py", "        self._add(llama_cpp.llama_sampler_init_temp(", NEW_USE),
    ):
        text = (PACKAGE / name).read_text(encoding="utf-8")
        assert text.count(place) == 1
        (target / name).unlink()
        (target / name).write_text(text.replace(place, new + place), encoding="utf-8")
    return target.parent


def run(package: Path, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package), "COLUMNS": "120", **variables}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stderr
    return done


def test_a_new_sampling_option_is_two_edits(edited: Path) -> None:
    """A field in config.py and its use in the sampler; it took eight edits in five files."""
    found: dict[str, Any] = json.loads(run(edited, "-c", SURFACES, str(GENERATE)).stdout)
    assert found["set"] == 0.5
    assert found["set completes"]
    assert found["batch"] == 1.5
    assert found["shell completes"] == "--top-n-sigma"
    assert found["docs"] == [
        "| `top_n_sigma` | `0.0` | Keep tokens within so many standard deviations of the largest logit; 0 keeps all. |"
    ]
    assert found["samplers more"] == 1


def test_the_command_line_knows_the_new_option_wherever_it_comes_from(edited: Path, tmp_path: Path) -> None:
    ask = ("-m", "internvl_gguf", "ask", "demo", "Hello?")
    assert "--top-n-sigma" in run(edited, *ask[:3], "--help").stdout
    (tmp_path / "config.toml").write_text("top_n_sigma = -3.0\n")
    of_file = {"INTERNVL_CONFIG": str(tmp_path)}
    assert f"In {tmp_path / 'config.toml'}: top_n_sigma is -3.0." in run(edited, *ask, code=2, **of_file).stderr
    of_variable = {**of_file, "INTERNVL_TOP_N_SIGMA": "-2"}
    assert "INTERNVL_TOP_N_SIGMA is -2.0." in run(edited, *ask, code=2, **of_variable).stderr
    of_flag = run(edited, *ask, "--top-n-sigma", "-1", code=2, **of_variable).stderr
    assert "--top-n-sigma is -1.0." in of_flag
    assert "Use 0 (keep all) or more." in of_flag


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_the_tables_in_the_documents_are_those_of_the_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == runpy.run_path(str(GENERATE))["updated"](text), "run `make docs`"


def test_the_documents_have_every_table() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    for name in runpy.run_path(str(GENERATE))["TABLES"]:
        assert f"<!-- table: {name} -->" in text
