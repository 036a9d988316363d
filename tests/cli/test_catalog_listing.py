"""`internvl list --catalog`: the family by release, with what cannot be fetched by name and what does not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from internvl_gguf.models.catalog import load_catalog

OWN = '[[model]]\nname = "Mine"\nrepo = "me/Mine-GGUF"\n[[model]]\nname = "InternVL3-8B-Tuned"\n'


def listed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "INTERNVL_CONFIG": str(folder)}
    command = [sys.executable, "-m", "internvl_gguf", "list", "--catalog", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)


def test_models_stand_by_release_the_newest_first_and_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(OWN, encoding="utf-8")
    done = listed(tmp_path)
    lines = [line.split("  ")[0] if not line.startswith(" ") else line.split()[0] for line in done.stdout.splitlines()]
    heads = [lines.index(head) for head in ("InternVL3.5", "InternVL3", "InternVL2.5", "Others")]
    assert heads == sorted(heads)
    assert heads[0] < lines.index("InternVL3_5-8B") < heads[1] < lines.index("InternVL3-8B") < heads[2]
    assert lines.index("Mine") > heads[3]
    told = " ".join(done.stderr.split())
    for spec in load_catalog():
        short = spec.name.partition("-")[2]
        assert spec.name in lines if spec.repo else f" {short}," in told or f" {short}." in told
        assert not spec.unsupported or spec.unsupported in told
    assert "InternVL3, no GGUF repository known: " in told
    assert "8B-Tuned" in told


def test_a_mistake_in_the_file_is_told_in_its_own_words(tmp_path: Path) -> None:
    """`max_tiles`, a key of the file, was told as `--max-tiles`."""
    (tmp_path / "models.toml").write_text('[critics.mine]\nfirst_step = "{pictures}{question}{step}"\nfoo = 3\n')
    environment = {**os.environ, "INTERNVL_CONFIG": str(tmp_path)}
    command = [sys.executable, "-m", "internvl_gguf", "ask", "demo", "What?", "--best-of", "2", "--judge", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1
    assert "max_tiles, threshold" in done.stderr
    assert "--max-tiles" not in done.stderr


def test_json_has_the_release_and_the_scores_with_their_source(tmp_path: Path) -> None:
    found = {each["name"]: each for each in json.loads(listed(tmp_path, "--json").stdout)}
    model = found["InternVL3_5-30B-A3B"]
    assert model["generation"] == "InternVL3.5"
    assert model["text"]["experts"] == 128
    assert model["text"]["head_width"] == 128
    assert model["scores"]["ocrbench"] == 880
    assert "2508.18265" in model["scores"]["source"]
    assert found["InternVL3-8B-Instruct"]["scores"] is None
    assert found["InternVL3-8B-Instruct"]["scores_of"] == "InternVL3-8B"


@pytest.mark.parametrize("columns", [40, 60])
def test_a_narrow_terminal_has_no_empty_rows(columns: int, tmp_path: Path) -> None:
    import pty

    ours, its = pty.openpty()
    own = {"INTERNVL_CONFIG": str(tmp_path), "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": str(columns)}
    environment = {**os.environ, **own}
    command = [sys.executable, "-m", "internvl_gguf", "list", "--catalog"]
    with subprocess.Popen(command, stdout=its, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(its)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            written += part
    os.close(ours)
    assert process.returncode == 0
    lines = written.decode().splitlines()
    assert all(line.strip() for line in lines)
    assert max(map(len, map(str.rstrip, lines))) <= columns
