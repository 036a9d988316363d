"""`internvl ask --escalate`: who answered, and what is said of a cascade that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_batch_lines import Run, run
from tests.cli.test_commands import assert_two_lines
from tests.support.chain_model import write_chain_model
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

__all__ = ["run"]

EXACT = ["-t", 1, "--n-ctx", 1024, "--temp", 0, "-n", 8]


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, whose tokens are all about as likely."""
    folder = tmp_path_factory.mktemp("unsure")
    write_tiny_mmproj(folder / "mmproj.gguf")
    return write_tiny_text(folder / "unsure.gguf", n_ctx=2048)


@pytest.fixture(scope="module")
def certain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says one thing, and is sure of it."""
    return write_chain_model(tmp_path_factory.mktemp("certain"), ("Blue", ".")).text


@pytest.fixture
def damaged(certain: Path, tmp_path: Path) -> Path:
    """The same, cut off."""
    path = tmp_path / "damaged.gguf"
    path.write_bytes(certain.read_bytes()[:-1000])
    return path


def test_the_bigger_one_answers_where_the_smaller_is_not_sure(
    run: Run, unsure: Path, certain: Path, photo: Path
) -> None:
    done = run("ask", unsure, "What color?", "-i", photo, "--escalate", certain, *EXACT)
    assert (done.returncode, done.stdout) == (0, "Blue.\n")
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"Answered by {certain}: {unsure} was 0.")
    assert said.endswith("sure, below 0.8.")


def test_the_smaller_one_answers_where_it_is_sure(run: Run, unsure: Path, certain: Path) -> None:
    done = run("ask", certain, "What color?", "--escalate", unsure, "--threshold", 0.7, *EXACT)
    assert (done.returncode, done.stdout) == (0, "Blue.\n")
    assert done.stderr.splitlines()[-1].startswith(f"Answered by {certain}: it is ")
    assert done.stderr.splitlines()[-1].endswith(" sure, at least 0.7.")


def test_json_has_every_step(run: Run, unsure: Path, certain: Path) -> None:
    done = run("ask", unsure, "What color?", "--escalate", certain, "--best-of", 2, "--json", "-t", 1, "-n", 8)
    found = json.loads(done.stdout)
    assert (found["text"], found["answered_by"]) == ("Blue.", str(certain))
    assert found["why"].startswith(f"{unsure} was ")
    first, second = found["steps"]
    assert (first["model"], first["error"]) == (str(unsure), "")
    assert 0 < first["confidence"] < 0.8 <= second["confidence"]
    assert second["text"] == "Blue."
    assert found["confidence"] == second["confidence"]
    assert len(found["selection"]["candidates"]) == 2


def test_a_bigger_one_that_cannot_be_loaded_leaves_the_answer(run: Run, unsure: Path, damaged: Path) -> None:
    done = run("ask", unsure, "What color?", "--escalate", damaged, "--mmproj", unsure.parent / "mmproj.gguf", *EXACT)
    alone = run("ask", unsure, "What color?", *EXACT)
    assert (done.returncode, done.stdout) == (0, alone.stdout)
    (line,) = [line for line in done.stderr.splitlines() if "stays" in line]
    assert line.startswith(f"{damaged} could not be asked, so the answer of {unsure} stays: ")
    (why,) = [line for line in done.stderr.splitlines() if line.startswith(f"Answered by {unsure}")]
    assert why.endswith(f"sure, below 0.8; {damaged} could not be asked.")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("--escalate", "InternVL9-1B"), "There is no model 'InternVL9-1B'", 1),
        (("--escalate", "missing/large.gguf"), "There is no file missing/large.gguf", 1),
        (("--escalate", "demo,Demo"), "Demo is in the cascade twice", 2),
        (("--escalate", "demo,"), "A model is missing in --escalate 'demo,'", 2),
        (("--escalate", "demo", "--threshold", "1.5"), "threshold is 1.5", 2),
        (("--escalate", "demo", "--threshold", "-1"), "threshold is -1", 2),
        (("--escalate", "demo", "--threshold", "half"), "--threshold has 'half'", 2),
        (("--escalate", "demo", "--threshold", "0.5,0.6"), "There are 2 thresholds for 2 models", 2),
        (("--threshold", "0.5"), "goes with --escalate only", 2),
        (("--escalate", "demo", "--best-of", "2", "--judge", "x.gguf"), "judges the answers of one model", 2),
    ],
)
def test_what_is_no_cascade_is_two_lines(
    run: Run, unsure: Path, arguments: tuple[str, ...], said: str, code: int
) -> None:
    done = run("ask", unsure, "What color?", *arguments)
    assert_two_lines(done, code)
    assert said in done.stderr
    assert done.stdout == ""


def test_a_batch_is_asked_of_one_model(run: Run, unsure: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"prompt": "What color?"}\n')
    done = run("ask", unsure, "--batch", lines, "--escalate", "demo")
    assert_two_lines(done, 2)
    assert "--escalate" in done.stderr
