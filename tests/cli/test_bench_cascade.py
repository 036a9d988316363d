"""`internvl bench --cascade` as people run it: real processes, small models, a file of questions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_gguf.bench.cascade.report import from_json
from tests.cli.test_bench_command import here, own_cache, two_lines
from tests.support.chain_model import write_chain_model
from tests.support.pictures import noise
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

__all__ = ["here", "own_cache"]

Bench = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows nothing, one that is sure of "Blue.", and twelve questions whose answer that is."""
    folder = tmp_path_factory.mktemp("cascade")
    (folder / "unsure").mkdir()
    write_tiny_text(folder / "unsure" / "unsure-Q2_K.gguf", n_ctx=1024)
    write_tiny_mmproj(folder / "unsure" / "mmproj-F16.gguf")
    (folder / "sure").mkdir()
    write_chain_model(folder / "sure", ("Blue", "."))
    lines = []
    for number in range(12):
        noise(number).save(folder / f"{number}.png")
        lines.append({"image": f"{number}.png", "prompt": "What color?", "answer": "Blue.", "max_tokens": 4})
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, lines[:5])), "utf-8")
    return folder


@pytest.fixture
def cascade(folder: Path) -> tuple[str, ...]:
    models = f"{folder}/unsure,{folder}/sure/chain.gguf"
    return ("--cascade", models, "--task", f"{folder}/questions.jsonl", "-t", "1", "-c", "512")


def test_every_form_of_the_report(cascade: tuple[str, ...], own_cache: None, here: Bench, tmp_path: Path) -> None:
    """What was measured once serves every form of it."""
    results = from_json(json.loads(here(*cascade, "--best-of", "2", "--json")[0]))
    assert [row.kind for row in results.rows] == ["model"] * 2 + ["vote"] * 2 + ["cascade"] * 2 + ["oracle"]
    unsure, chain = results.rows[:2]
    assert (unsure.right, chain.right, chain.questions) == (0, 12, 12)
    assert results.rows[4].right == 12, "the one that is not sure is always asked on"
    assert not results.shares_encoder
    assert results.rows[results.recommended].name == results.models[1]
    report, page, chart = (tmp_path / name for name in ("report.csv", "report.html", "chart.png"))
    answer, said = here(*cascade, "-o", report, "--html", page, "--plot", chart)
    assert answer == ""
    assert "kept from an earlier run" in said
    assert results.advice.split(":")[0] in said
    rows = list(csv.DictReader(io.StringIO(report.read_text("utf-8"))))
    assert [float(row["seconds"]) for row in rows[:2]] == [unsure.seconds, chain.seconds]
    assert [row["kind"] for row in rows] == ["model", "model", "cascade", "oracle"]
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in page.read_text("utf-8")
    shown, _ = here(*cascade)
    assert "oracle" in shown
    assert "Ask " in shown


@pytest.mark.parametrize(
    ("given", "said", "code"),
    [
        (["{unsure}"], "--cascade names one model", 2),
        (["{unsure},"], "A model is missing in --cascade", 2),
        (["{unsure},{unsure}"], "is in the cascade twice", 2),
        (["{unsure},{chain}"], "--cascade needs questions with their right answers", 2),
        (["{unsure},{chain}", "--task", "{few}"], "few has 5 questions, too few", 1),
        (["{unsure},{chain}", "--task", "{task}", "--task", "{few}"], "fitted to one file of questions", 2),
        (["{unsure},{chain}", "--task", "{task}", "-t", "1,2"], "--cascade takes one value of --threads", 2),
        (["{unsure},{chain}", "--task", "{task}", "--best-of", "0"], "--best-of is '0'", 2),
        (["{unsure},{chain}", "--task", "{task}", "--best-of", "two"], "--best-of is 'two'", 2),
        (["{unsure},{chain}", "--task", "{task}", "--only", "speed"], "together with --only", 2),
        (["{unsure},{chain}", "--task", "{task}", "--all"], "together with --all", 2),
        (["{unsure},InternVL9-1B", "--task", "{task}"], "There is no model 'InternVL9-1B'", 1),
        (["{unsure},{missing}", "--task", "{task}"], "missing.gguf", 1),
    ],
)
def test_what_cannot_be_measured_is_two_lines(
    folder: Path, here: Bench, given: list[str], said: str, code: int
) -> None:
    names = {
        "unsure": folder / "unsure",
        "chain": folder / "sure" / "chain.gguf",
        "missing": folder / "missing.gguf",
        "task": folder / "questions.jsonl",
        "few": folder / "few.jsonl",
    }
    answer, error = here("--cascade", *(word.format(**names) for word in given), code=code)
    assert answer == ""
    assert said in two_lines(error)


def test_a_model_that_cannot_be_loaded_is_named(folder: Path, here: Bench, own_cache: None, tmp_path: Path) -> None:
    """Its header is whole, and its weights are cut off."""
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes((folder / "sure" / "chain.gguf").read_bytes()[:-100])
    (tmp_path / "mmproj.gguf").write_bytes((folder / "sure" / "mmproj-chain.gguf").read_bytes())
    arguments = ("--cascade", f"{folder}/unsure,{damaged}", "--task", folder / "questions.jsonl")
    answer, error = here(*arguments, code=1)
    assert answer == ""
    assert "damaged.gguf" in error.splitlines()[-2]
