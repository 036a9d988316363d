"""`internvl bench` as people run it: real processes, small models, a hub on the loopback device."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from internvl_gguf.bench.report.formats import results_from_json
from internvl_gguf.cli import main
from internvl_gguf.models.catalog import load_catalog
from internvl_gguf.models.local_files import demo_files
from internvl_gguf.quantizing import make_ladder
from tests.support.kept_trial import copy_trial
from tests.support.loopback_hub import LoopbackHub, Repo
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

BENCH = [sys.executable, "-m", "internvl_gguf", "bench"]
FAST = ["--only", "speed", "-r", "1", "-p", "32", "-n", "8", "-t", "1", "-c", "512"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quants")
    for seed, name in enumerate(("BF16", "Q8_0")):
        write_tiny_text(path / f"tiny-{name}.gguf", seed=seed, n_ctx=1024)
    write_tiny_mmproj(path / "mmproj-F16.gguf")
    Image.new("RGB", (64, 64), "red").save(path / "red.png")
    (path / "open.jsonl").write_text('{"image": "red.png", "prompt": "What is it?"}\n')
    return path


def bench(*arguments: object, code: int = 0, **environment: object) -> subprocess.CompletedProcess[str]:
    others = {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [*BENCH, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **others},
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def refused(*arguments: object, code: int = 1, **environment: object) -> str:
    """What is said, in two lines, of what cannot be done; nothing was measured."""
    done = bench(*arguments, code=code, **environment)
    assert done.stdout == ""
    return two_lines(done.stderr)


def two_lines(said: str) -> str:
    """What happened and what to do, below a table of memory where that is the matter."""
    lines = said.strip().splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("Error: "))
    assert len(lines) == place + 2, said
    assert place == 0 or "together" in said
    return said


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """The command in this process, for what many new ones would cost; what measures is a process all the same.

    Gives stdout and stderr.
    """

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["internvl", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            main()
        done = capsys.readouterr()
        assert ending.value.code == code, done.err
        return done.out, done.err

    return run


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that nothing was measured into."""
    copy_trial(tmp_path / "cache")
    monkeypatch.setenv("INTERNVL_CACHE", str(tmp_path / "cache"))


def test_every_form_of_the_report(
    folder: Path, own_cache: None, here: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    """The report alone is on stdout; what was measured once serves every form of it."""
    models = (f"{folder}:BF16,Q8_0", *FAST)
    done = bench(*models, "--json")
    results = results_from_json(json.loads(done.stdout))
    assert [row.configuration.quant for row in results.rows] == ["BF16", "Q8_0"]
    assert [row.status for row in results.rows] == ["measured", "measured"]
    assert results.reference is None
    assert results.rows[0].configuration.settings["n_threads"] == 1
    assert results.command.startswith(f"internvl bench {folder}:BF16,Q8_0 --only speed")
    assert done.stderr.splitlines()[0] == "1 of 2: BF16 with mmproj F16"
    assert any("left" in line for line in done.stderr.splitlines())
    answer, said = here(*models, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(answer)))
    decode = [row.speed.decode.median for row in results.rows if row.speed]
    assert [float(row["decode_tokens_per_second_median"]) for row in rows] == decode
    assert "kept from an earlier run" in said
    report = tmp_path / "report.json"
    assert here(*models, "-o", report)[0] == ""
    assert [row["status"] for row in json.loads(report.read_text("utf-8"))["rows"]] == ["measured"] * 2
    assert "tok/s" in here(*models)[0]
    here(*models, "-o", tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text("utf-8").startswith("## ")
    here(*models, "-o", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_advice_stands_on_the_terminal_where_the_report_goes_to_a_file(
    folder: Path, here: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    done = here(f"{folder}:BF16,Q8_0", *FAST, "-o", tmp_path / "report.md")
    assert "Quality was not measured" in done[1]
    assert "no report has that ending" in refused(folder, *FAST, "-o", tmp_path / "report.txt", code=2)


def test_a_sweep_has_a_row_for_each_point_and_fresh_measures_anew(
    folder: Path, own_cache: None, here: Callable[..., tuple[str, str]]
) -> None:
    text = folder / "tiny-Q8_0.gguf"
    arguments = [text, "--only", "speed", "-r", "1", "-n", "4", "-t", "1", "-c", "512"]
    first = results_from_json(json.loads(here(*arguments, "-p", "16,32", "--json")[0]))
    assert [row.speed.prompt_tokens for row in first.rows if row.speed] == [16, 32]
    fresh = results_from_json(json.loads(here(*arguments, "-p", "32", "--fresh", "--json")[0]))
    assert fresh.rows[0].speed != first.rows[1].speed
    assert fresh.notices == ()
    kept = results_from_json(json.loads(here(*arguments, "-p", "16,32", "--json")[0]))
    assert kept.rows == (first.rows[0], fresh.rows[0])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to all processes of a console")
def test_ctrl_c_reports_what_is_done(folder: Path, own_cache: None) -> None:
    """The report of the first row is printed, exit code 130, and the process that measured is gone."""
    with subprocess.Popen(
        [*BENCH, f"{folder}:BF16,Q8_0", *FAST, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if line.startswith("2 of 2"):
                break
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, errors = process.stdout.read(), process.stderr.read()
        assert process.wait() == 130, errors
        assert "Traceback" not in errors
        rows = json.loads(output)["rows"]
        assert [row["status"] for row in rows] == ["measured", "not run"]
        assert psutil.wait_procs(below, timeout=10)[1] == []


def test_where_nothing_could_be_measured_the_report_says_why_and_the_exit_code_is_1(
    folder: Path, own_cache: None, here: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    long = write_tiny_text(tmp_path / "long-F16.gguf", n_ctx=2**27)
    answer, said = here(long, "--mmproj", folder / "mmproj-F16.gguf", *FAST[:-1], "134217728", code=1)
    assert "out of memory. " in said
    assert "Nothing was measured" in answer


def test_what_fits_is_found_with_the_encoder_that_was_named(
    folder: Path, own_cache: None, here: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    """It said that the folder had no mmproj, and to name one."""
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "tiny-Q8_0.gguf").write_bytes((folder / "tiny-Q8_0.gguf").read_bytes())
    answer, _ = here(alone, "--mmproj", folder / "mmproj-F16.gguf", "--fits", "4GiB", *FAST, "--json")
    document = json.loads(answer)
    assert [row["status"] for row in document["rows"]] == ["measured"]
    assert document["fits_bytes"] == 4 * 2**30
    assert document["advice"].startswith("Quality was not measured")


def test_a_picture_that_cannot_be_used_is_told_of_once(
    folder: Path, own_cache: None, here: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    pictures = tmp_path / "mine"
    pictures.mkdir()
    Image.new("RGB", (64, 64), "red").save(pictures / "a.png")
    (pictures / "b.png").write_text("no picture")
    sets = ("--only", "quality", "--text", "off", "--pictures", pictures, "-t", "1", "-c", "1024")
    answer, said = here(folder / "tiny-Q8_0.gguf", *sets, "--json")
    assert said.count("b.png") == 1, said
    assert "mine, picture 2: " in said
    results = results_from_json(json.loads(answer))
    assert sum("b.png" in line for line in results.notices) == 1
    assert results.rows[0].quality
    assert results.rows[0].quality.skipped == 1


def test_several_answers_are_measured_alone_and_once(
    folder: Path, own_cache: None, here: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    task = folder / "closed.jsonl"
    task.write_text('{"image": "red.png", "prompt": "What is it?", "answer": "red", "max_tokens": 4}\n')
    asked = (folder / "tiny-Q8_0.gguf", "--best-of", "2,4", "--task", task, "-t", "1", "-c", "1024")
    (row,) = results_from_json(json.loads(here(*asked, "--json")[0])).rows
    (found,) = row.best_of
    assert (found.task, found.questions, found.counts) == ("closed", 1, (1, 2, 4))
    assert found.judges == ("vote", "certainty", "pass")
    assert [row.speed, row.memory, row.quality, row.accuracy] == [None, None, None, ()]
    answer, said = here(*asked, "-o", tmp_path / "report.html")
    assert "kept from an earlier run" in said
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "several answers, closed" in page
    assert "No judge is surely better" in page
    answer, said = here(*asked, "--seed", "7", "--judge", "vote")
    assert "measured in" in said
    assert "Q8_0: several answers, closed" in answer
    assert "seeds from 7" in " ".join(answer.split())
    assert "certainty" not in answer


def test_a_critic_judges_beside_the_vote_and_its_answers_are_kept_by_its_content(
    folder: Path, own_cache: None, here: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    """Random weights judge by nothing, but they judge."""
    task = folder / "closed-critic.jsonl"
    lines = [{"image": "red.png", "prompt": f"{number}?", "answer": "a", "max_tokens": 3} for number in range(2)]
    task.write_text("".join(json.dumps(line) + "\n" for line in lines))
    critic = tmp_path / "critic"
    critic.mkdir()
    text, mmproj = write_tiny_text(critic / "my-critic.gguf", seed=5, n_ctx=1024), critic / "mmproj-F16.gguf"
    write_tiny_mmproj(mmproj)
    asked = (folder / "tiny-Q8_0.gguf", "--best-of", "2,4", "--task", task, "-t", "1", "-c", "1024", "--temp", "2")
    judged = (*asked, "--judge", "vote", "--judge", text)
    answer, said = here(*judged, "--json")
    assert "my-critic.gguf is not known as a critic" in said
    (row,) = results_from_json(json.loads(answer)).rows
    (found,) = row.best_of
    assert found.judges == ("vote", "my-critic.gguf", "pass")
    assert [each.count for each in found.judged if each.judge == "my-critic.gguf"] == [1, 2, 4]
    answer, said = here(*judged, "-o", tmp_path / "report.html")
    assert "kept from an earlier run" in said
    assert "my-critic.gguf" in (tmp_path / "report.html").read_text("utf-8")
    write_tiny_text(text, seed=6, n_ctx=1024)
    assert "measured in" in here(*judged)[1]


def test_a_critic_that_cannot_judge_is_told_before_anything_is_measured(folder: Path, tmp_path: Path) -> None:
    write_tiny_mmproj(tmp_path / "mmproj-F16.gguf")
    wide = write_tiny_text(tmp_path / "wide.gguf", width=128)
    said = refused(folder / "tiny-Q8_0.gguf", "--best-of", "4", "--task", folder / "open.jsonl", "--judge", wide)
    assert "does not belong to" in said
    assert "64 wide, the text model takes 128" in said


BAD: list[tuple[list[str], list[str], int]] = [
    (["FOLDER:Q8_0,Q8_1"], ["no quant 'Q8_1'", "nearest", "Q8_0"], 1),
    (["InternVL3-14B-Instruct"], ["Which quants", "--all or --fits", "UD-Q4_K_XL"], 1),
    (["FOLDER", "--reference", "BF16", "--reference", "Q8_0"], ["2 references", "BF16, Q8_0"], 2),
    (["FOLDER", "-p", "512,x"], ["-p is '512,x'"], 2),
    (["FOLDER", "-p", "2000"], ["2,000 tokens (-p)", "room for 1,024"], 2),
    (["FOLDER", "--output", "/no/such/folder/report.md"], ["/no/such/folder/report.md"], 1),
]
MORE_BAD: list[tuple[list[str], list[str], int]] = [
    (["FOLDER", "-o", "xlsx"], ["neither a form nor a file", "md, json, csv", "report.md"], 2),
    (["FOLDER", "-o", "md", "--json"], ["-o says md", "json"], 2),
    (["FOLDER:Q8_0,"], ["A quant is missing"], 1),
    (["FOLDER", "--fits", "1KiB"], ["No quant", "fits"], 1),
    (["InternVL3-14B-Instruct:Q4_K_M,Q4_K_N"], ["nearest", "Q4_K_M"], 1),
    (["demo:Q4_K_N"], ["no type 'Q4_K_N'", "Q4_K_M"], 1),
    (["nonsense:Q4_K_M"], ["no model 'nonsense'"], 1),
    (["FOLDER/none.gguf"], ["none.gguf"], 1),
    (["FOLDER", "--fits", "12"], ["no unit"], 2),
    (["FOLDER", "--budget", "much"], ["'much'"], 2),
    (["FOLDER", "-c", "2000"], ["2,000", "1,024"], 2),
    (["FOLDER", "-ctk", "f16", "-ctv", "q8_0"], ["one type"], 2),
    (["FOLDER", "--reference", "BF16,Q8_0"], ["2 references"], 2),
    (["FOLDER", "--reference", "Q6_K"], ["'Q6_K' is not among", "BF16, Q8_0"], 2),
    (["FOLDER", "--only", "speed,quantity"], ["'quantity'"], 2),
    (["FOLDER", "--only", "speed", "--no-quality"], ["together"], 2),
    (["FOLDER", "--mmproj", "F16,,"], ["missing"], 2),
    (["FOLDER", "--mmproj", "Q8_0"], ["no mmproj Q8_0"], 1),
    (["FOLDER", "--text", "none.txt"], ["none.txt cannot be read"], 1),
    (["FOLDER", "--pictures", "none"], ["none"], 1),
    (["FOLDER", "--task", "none.jsonl"], ["none.jsonl"], 1),
    (["FOLDER", "--text", "off", "--pictures", "off"], ["Neither text nor pictures"], 2),
    (["FOLDER", "--html", "FOLDER"], ["is a folder"], 1),
    (["demo", "--best-of", "1,x"], ["'x' is no whole number", "1,2,4,8"], 2),
    (["demo", "--best-of", "0,2"], ["--best-of has 0", "1 to 128"], 2),
    (["demo", "--best-of", "1000"], ["--best-of has 1000", "1 to 128"], 2),
    (["demo", "--best-of", "2,4,2"], ["2 twice", "once"], 2),
    (["demo", "--best-of", "1"], ["nothing to choose"], 2),
    (["demo", "--best-of", "4", "--temperature", "0"], ["all 4 answers would be equal"], 2),
    (["demo", "--best-of", "4", "--seed", "-1"], ["seed"], 2),
    (["demo", "--best-of", "4", "--judge", "jury"], ["jury is no judge", "vote and certainty are judges"], 2),
    (["demo", "--best-of", "4", "--judge", "FOLDER/tiny-Q8_0.gguf"], ["cannot judge", "tiles of", "Take a critic"], 2),
    (["demo", "--judge", "vote"], ["--judge is for --best-of"], 2),
    (["demo", "--best-of", "4", "--task", "FOLDER/open.jsonl"], ["no line with an answer"], 1),
    (["FOLDER", "--html", "same.html", "--plot", "same.html"], ["two things"], 1),
]


@pytest.mark.parametrize(("arguments", "words", "code"), BAD)
def test_what_cannot_be_measured_is_told_before_anything_is(
    folder: Path, tmp_path: Path, arguments: list[str], words: list[str], code: int
) -> None:
    said = refused(*named(arguments, folder), code=code, HF_HUB_OFFLINE="1", HF_HOME=tmp_path)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(("arguments", "words", "code"), MORE_BAD)
def test_what_else_cannot_be_measured(
    folder: Path, here: Callable[..., tuple[str, str]], arguments: list[str], words: list[str], code: int
) -> None:
    answer, said = here(*named(arguments, folder), code=code)
    assert answer == ""
    two_lines(said)
    assert all(word in said for word in words), said


def named(arguments: list[str], folder: Path) -> list[str]:
    return [argument.replace("FOLDER", str(folder)) for argument in arguments]


def test_charts_without_matplotlib_are_refused_before_anything_is_measured(folder: Path, tmp_path: Path) -> None:
    """matplotlib is an extra; a search that finds none of it stands for a machine without."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
    )
    said = refused(folder, *FAST, "--plot", tmp_path / "out.png", PYTHONPATH=tmp_path)
    assert "matplotlib" in said
    assert not (tmp_path / "out.png").exists()


# The hub.

REPO = "owner/InternVL3-14B-Instruct-GGUF"
NAME = "InternVL3-14B-Instruct"


@pytest.fixture
def hub() -> Iterator[tuple[LoopbackHub, Repo]]:
    """The demo model under published names."""
    quants = ("BF16", "Q8_0", "Q4_K_M")
    texts = {f"{NAME}-{label}.gguf": renamed(seed) for seed, label in enumerate(quants)}
    with LoopbackHub() as running:
        yield running, running.add_repo(REPO, {**texts, "mmproj-F16.gguf": demo_files().mmproj.read_bytes()})


def renamed(seed: int) -> bytes:
    """The demo model's text half under another name of the same length."""
    return demo_files().text.read_bytes().replace(b"InternVL demo", b"InternVL %04d" % seed)


def surroundings(hub: LoopbackHub, root: Path) -> dict[str, Any]:
    """A machine with nothing on it but this hub."""
    folders = {"HF_HOME": root / "hf", "INTERNVL_CACHE": root / "cache"}
    copy_trial(root / "cache")
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", **folders}


def test_models_of_the_hub_are_fetched_one_by_one_and_found_again_offline(
    hub: tuple[LoopbackHub, Repo], tmp_path: Path
) -> None:
    """One of them is another file than the hub announces: that is a row, and the others are measured."""
    running, repo = hub
    repo.listed_as(f"{NAME}-Q8_0.gguf", sha256="0" * 64)
    machine = surroundings(running, tmp_path)
    done = bench(f"{REPO}:q8_0,Q4_K_M", *FAST, "--json", **machine)
    results = results_from_json(json.loads(done.stdout))
    assert results.model == REPO
    assert [(row.configuration.quant, row.status) for row in results.rows] == [
        ("Q8_0", "failed"), ("Q4_K_M", "measured"),
    ]  # fmt: skip
    assert "Q8_0" in results.rows[0].error
    asked = len(running.requests)
    assert len([request for request in running.requests if "/api/models/" in request.path]) == 1
    fetched = {path.name for path in (tmp_path / "hf").rglob("*.gguf")}
    assert fetched == {f"{NAME}-Q4_K_M.gguf", "mmproj-F16.gguf"}
    again = bench(f"{REPO}:Q4_K_M", *FAST, "--json", **machine, HF_HUB_OFFLINE="1")
    assert results_from_json(json.loads(again.stdout)).rows == results.rows[1:]
    assert len(running.requests) == asked


def test_the_catalogues_name_is_measured_as_the_demo_is(tmp_path: Path) -> None:
    """Real quants under published names, at the revision that the catalogue pins."""
    spec = load_catalog().find(NAME)
    assert spec is not None
    assert spec.revision is not None
    demo = demo_files()
    made = make_ladder(demo.text, tmp_path / "made", ["Q6_K", "Q4_K_M", "Q2_K"], n_threads=1)
    files: dict[str, bytes | Path] = dict(
        zip([f"{NAME}-{kind}.gguf" for kind in ("Q6_K", "Q4_K_M", "UD-Q2_K_XL")], made, strict=True)
    )
    files |= {f"{NAME}-BF16.gguf": demo.text, "mmproj-F16.gguf": demo.mmproj}
    assert spec.repo is not None
    with LoopbackHub() as running:
        repo = running.add_repo(spec.repo, files)
        repo.branches[spec.revision] = repo.commit
        repo.push({"README.md": b"Newer than what is pinned."})
        machine = surroundings(running, tmp_path)
        sets = ("--only", "quality,memory", "--chunks", "1", "--pictures", "off")
        done = bench(f"{NAME}:BF16,Q6_K,Q4_K_M,Q2_K_XL", *sets, "-t", "1", "-c", "1024", "--json", **machine)
    results = results_from_json(json.loads(done.stdout))
    assert results.model == NAME
    rows = {row.configuration.quant: row for row in results.rows}
    assert rows.keys() == {"BF16", "Q6_K", "Q4_K_M", "UD-Q2_K_XL"}
    assert results.rows[results.reference or 0] is rows["BF16"]
    loss = {name: row.quality.text.mean for name, row in rows.items() if row.quality and row.quality.text}
    assert loss["BF16"] < loss["Q6_K"] < loss["Q4_K_M"] < loss["UD-Q2_K_XL"]
    assert {row.quality.text.tokens for row in results.rows if row.quality and row.quality.text} == {255}
    assert {row.memory is not None for row in results.rows} == {True}
