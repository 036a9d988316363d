"""`internvl ask --batch` over folders, tables and archives: whatever ends a run, every picture is answered once."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import resource
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf.models.resolve import ModelFiles
from tests.bulk.test_sources import archive
from tests.cli.test_batch_lines import Run, records, run
from tests.cli.test_commands import FAST, INTERNVL, assert_two_lines
from tests.support.pictures import noise
from tests.video.test_animations import animation

__all__ = ["run"]

SHORT = (*FAST, "--max-tokens", "2", "-c", "256")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, two of them equal, one unreadable."""
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(3):
        noise(number).save(root / f"{number}.png")
    (root / "again.png").write_bytes((root / "1.png").read_bytes())
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return root


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_answered_into_a_table(run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    command = ("ask", tiny.text, "What is {name}?", "--batch", folder, "-o", output, *SHORT)
    done = run(*command)
    assert done.returncode == 1
    assert "1 of 5 lines failed (1 unusable picture)" in done.stderr
    rows = table(output)
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png", "again.png", "broken.png"]
    assert [bool(row["answer"]) for row in rows] == [True, True, True, True, False]
    assert "broken.png" in rows[4]["error"]
    before = output.read_bytes()
    again = run(*command)  # the broken one is tried again, nothing else
    assert again.stderr.splitlines()[0] == "4 of 5 lines were answered before."
    assert output.read_bytes() == before


def test_equal_pictures_are_answered_once_also_by_a_later_run(
    run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.png").unlink()
    output = tmp_path / "answers.jsonl"
    command = ("ask", tiny.text, "What is it?", "--batch", folder, "-o", output, *SHORT)
    done = run(*command)
    assert done.returncode == 0
    assert "1 line asked the same about equal pictures: answered once." in done.stderr
    found = {Path(record["images"][0]).name: record for record in records(output.read_text())}
    assert found["again.png"]["text"] == found["1.png"]["text"]
    assert found["again.png"]["same_as"] == found["1.png"]["images"]
    assert found["again.png"]["usage"]["tiles_encoded"] == 0
    assert [record["line"] for record in found.values()] == [1, 2, 3, 4]
    (folder / "third.png").write_bytes((folder / "1.png").read_bytes())
    later = run(*command)
    assert "1 line asked the same about equal pictures: answered once." in later.stderr
    third = records(output.read_text())[-1]
    assert (third["same_as"], third["text"]) == (found["1.png"]["images"], found["1.png"]["text"])


@pytest.mark.parametrize("is_kept", [True, False], ids=["file", "stdout"])
def test_an_equal_picture_long_after_its_twin_has_the_answer_of_that(
    run: Run, tiny: ModelFiles, tmp_path: Path, *, is_kept: bool
) -> None:
    root, output = tmp_path / "pictures", tmp_path / "answers.jsonl"
    root.mkdir()
    for number in range(24):
        noise(number).save(root / f"{number:02}.bmp")  # all of equal size: each may be another's twin
    (root / "24.bmp").write_bytes((root / "00.bmp").read_bytes())
    command = ("ask", tiny.text, "What is it?", "--batch", root, "--parallel", "1", *SHORT)
    done = run(*command, *(("-o", output) if is_kept else ()))
    first, *_, last = records(output.read_text() if is_kept else done.stdout)
    assert (last["line"], last["same_as"], last["text"]) == (25, first["images"], first["text"])
    assert done.stderr.count("answered once") == 1


def test_those_that_waited_for_an_equal_one_that_failed_are_asked(
    run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path
) -> None:
    (folder / "worse.png").write_bytes((folder / "broken.png").read_bytes())
    done = run("ask", tiny.text, "What is it?", "--batch", folder, *SHORT)
    errors = [record["error"] for record in records(done.stdout) if "error" in record]
    assert ["broken.png" in error or "worse.png" in error for error in errors] == [True, True]
    assert errors[0] != errors[1]  # each names its own file
    assert [record["line"] for record in records(done.stdout)] == [1, 2, 3, 4, 5, 6]


def test_a_sample_is_shown_and_not_asked_again(run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").unlink()
    output = tmp_path / "answers.jsonl"
    command = ("ask", tiny.text, "What is it?", "--batch", folder, "-o", output, *SHORT)
    sample = run(*command, "--sample", "2")
    assert sample.returncode == 0
    first = records(output.read_text())
    assert len(first) == 2
    for record in first:
        assert f"{record['images'][0]}: {record['text']}".split("\n")[0][:40] in sample.stderr
    assert "These were 2 of 4 lines: at this pace all of them take" in sample.stderr
    again = run(*command, "--sample", "2").stderr  # which showed nothing, as nothing was asked
    assert all(f"{record['images'][0]}: " in again for record in first)
    whole = run(*command)
    assert whole.stderr.splitlines()[0] == "2 of 4 lines were answered before."
    assert {record["line"]: record["text"] for record in first}.items() <= {
        record["line"]: record["text"] for record in records(output.read_text())
    }.items()


def test_pictures_in_an_archive_and_rows_of_a_table_are_asked(
    run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path
) -> None:
    members = {f"{number}.png": (folder / f"{number}.png").read_bytes() for number in range(3)}
    packed = archive(tmp_path / "p.zip", {**members, "1.json": b'{"label": "noise"}', "2.json": b'{"label": 2}'})
    done = run("ask", tiny.text, "Is it {label}?", "--batch", packed, "--unordered", *SHORT)
    found = {record["line"]: record for record in records(done.stdout)}
    assert "place for {label}" in found[1]["error"]  # which lies alone
    assert found[2]["columns"] == {"label": "noise"}
    assert found[2]["text"]
    rows = tmp_path / "rows.csv"
    rows.write_text("file,label\npictures/0.png,x\npictures/none.png,y\n")
    done = run("ask", tiny.text, "Is it {label}?", "--batch", rows, "--image-column", "file", *SHORT)
    first, second = records(done.stdout)
    assert first["columns"] == {"label": "x"}
    assert first["text"]
    assert "no such file" in second["error"]
    assert second["hint"].startswith("Check the path; a relative one starts at the current folder, or at the table's")


def test_animations_are_said_to_be_ones(run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path) -> None:
    """Their first frames were asked about, and nothing said so."""
    (folder / "broken.png").unlink()
    (folder / "moves.gif").write_bytes(animation("GIF"))
    (folder / "moves.png").write_bytes(animation("PNG"))
    output = tmp_path / "answers.jsonl"
    done = run("ask", tiny.text, "What is it?", "--batch", folder, "-o", output, *SHORT)
    assert "2 pictures are animated, and the first frames were shown; `grep 'is animated, and" in done.stderr
    found = {Path(record["images"][0]).name: record["notices"] for record in records(output.read_text())}
    assert [name for name, notices in found.items() if notices] == ["moves.gif", "moves.png"]
    said = f'{folder}/moves.gif is animated, and its first frame is shown; "video" in a line of JSON shows its frames.'
    assert found["moves.gif"] == [said]
    packed = archive(tmp_path / "p.zip", {"1.webp": animation("WebP"), "2.png": (folder / "0.png").read_bytes()})
    done = run("ask", tiny.text, "What is it?", "--batch", packed, "--workers", "2", *SHORT)
    assert "1 picture is animated, and the first frame was shown." in done.stderr
    assert [len(record["notices"]) for record in records(done.stdout)] == [1, 0]


def test_a_source_that_is_forgotten_is_asked_for(run: Run, tmp_path: Path) -> None:
    """The library takes the next option for it, and then that one's value for a word of the question."""
    for wrong, name, taken in (
        (("--batch", "-o", tmp_path / "a.csv"), "--batch", "-o"),
        (("--batch", f"--output={tmp_path}/a.csv"), "--batch", "--output="),
        (("--batch", tmp_path, "-o", "--sample", "3"), "--output", "--sample"),
        (("-i", "--json"), "--image", "--json"),
    ):
        done = run("ask", "demo", "What?", *wrong)
        told = " ".join(done.stderr.replace("│", " ").split())
        assert done.returncode == 2
        assert f"Invalid value for {name}: its value is missing: behind it comes {taken}" in told


def test_what_cannot_be_used_is_told_before_a_model_is_loaded(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.csv").write_text("image,label\na.png,x\n")
    (tmp_path / "old.csv").write_text("my,work\n")
    for arguments in (
        ("What?", "--batch", tmp_path / "empty"),
        ("What?", "--batch", f"{tmp_path}/*.jpg"),
        ("Is it {labl}?", "--batch", folder),
        ("Is it {labl}?", "--batch", tmp_path / "rows.csv"),
        ("What?", "--batch", tmp_path / "rows.csv", "--image-column", "photo"),
        ("What?", "--batch", folder, "--image-column", "photo"),
        ("--batch", folder),
        ("What?", "--batch", folder / "0.png"),
        ("What?", "--batch", folder, "-o", tmp_path / "old.csv"),
    ):
        assert_two_lines(run("ask", "demo", *arguments))
    assert (tmp_path / "old.csv").read_text() == "my,work\n"
    sample = ("--sample", "2", "--drop-others", "-o", tmp_path / "x.jsonl")
    outputs = [("-o", tmp_path / name) for name in ("a.xlsx", "a.txt", "a.json", "answers")]
    for wrong in (*outputs, ("--sample", "0"), ("--sample", "x"), sample):
        assert run("ask", "demo", "What?", "--batch", folder, *wrong).returncode == 2
    assert run("ask", "demo", " ", "--batch", folder).returncode == 2
    shell_glob = (folder / "0.png", folder / "1.png")
    done = run("ask", "demo", "What?", "--batch", *shell_glob)
    assert done.returncode == 2
    assert "put the glob in quotes" in " ".join(done.stderr.replace("│", " ").split())


def test_answers_without_a_value_are_told_by_later_runs_too(
    run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path
) -> None:
    """A run that went on with such answers ended with exit code 0 and without a word."""
    (folder / "broken.png").unlink()
    output = tmp_path / "answers.jsonl"
    schema = '{"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}'
    command = ("ask", tiny.text, "What is it?", "--batch", folder, "-o", output, "--schema", schema, *SHORT)
    done = run(*command)
    assert done.returncode == 1
    assert "ended at the limit before the form was complete" in done.stderr
    before = output.read_bytes()
    again = run(*command)
    assert again.returncode == 1
    assert "4 answers of before ended at the limit before the form was complete, without a value" in again.stderr
    assert output.read_bytes() == before
    free = run("ask", tiny.text, "What is it?", "--batch", folder, "-o", tmp_path / "free.jsonl", *SHORT)
    assert free.returncode == 0  # an answer without a form may end at its limit
    assert "answers of before" not in run(*command[:6], tmp_path / "free.jsonl", *SHORT).stderr


def test_an_empty_file_is_an_output(run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").unlink()
    for name in ("made.csv", "made.jsonl"):
        (tmp_path / name).touch()
        done = run("ask", tiny.text, "What is it?", "--batch", folder, "-o", tmp_path / name, *SHORT)
        assert done.returncode == 0
        assert (tmp_path / name).stat().st_size


def test_answers_to_other_lines_are_dropped_with_a_word(
    run: Run, tiny: ModelFiles, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.csv"
    command = ("ask", tiny.text, "What is it?", "--batch", folder, "-o", output, *SHORT)
    run(*command)
    (folder / "0.png").unlink()
    assert_two_lines(run(*command))
    assert len(table(output)) == 5
    done = run(*command, "--drop-others")
    assert "1 answer to lines that are not in the input: dropped." in done.stderr
    assert len(table(output)) == 4


def test_sigterm_ends_a_run_as_ctrl_c_does(tiny: ModelFiles, folder: Path, tmp_path: Path) -> None:
    """The table was as old as the last run that ended by itself."""
    output = tmp_path / "answers.csv"
    (folder / "broken.png").unlink()
    lines = tmp_path / "lines.jsonl"
    endless = {"max_tokens": 10**6, "temperature": 3.0, "top_k": 0, "top_p": 1.0}
    asked = [{"prompt": "Short?", "max_tokens": 1}, *({"prompt": "Tell.", "seed": n, **endless} for n in range(2000))]
    lines.write_text("\n".join(map(json.dumps, asked)))
    command = [*INTERNVL, "ask", str(tiny.text), "--batch", str(lines), "-o", str(output), "-t", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        written = tmp_path / "answers.csv.jsonl"
        while child.poll() is None and not (written.exists() and written.read_bytes().count(b"\n")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.02)
        child.send_signal(signal.SIGTERM)
        _, told = child.communicate()
    assert child.returncode == 130
    assert "the same command goes on with the rest" in told
    assert table(output)[0]["line"] == "1"


def test_a_full_disk_loses_nothing(tiny: ModelFiles, folder: Path, tmp_path: Path) -> None:
    """The file may have so many bytes, as on a disk with so much room; then there is room again."""
    output = tmp_path / "answers.csv"
    command = [*INTERNVL, "ask", str(tiny.text), "What is it?", "--batch", str(folder), "-o", str(output), *SHORT]
    command += ["--no-cache"]
    asked_once = [*INTERNVL, "ask", str(tiny.text), "What is it?", *SHORT]
    subprocess.run(asked_once, check=True, capture_output=True)  # the corrected vision encoder is kept from now on

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))

    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert full.returncode == 1
    assert "answers.csv.jsonl cannot be written: File too large." in full.stderr
    assert "the same command goes on with the rest" in full.stderr
    assert "Traceback" not in full.stderr
    kept = records((tmp_path / "answers.csv.jsonl").read_text())
    assert 0 < len(kept) < 5
    rest = subprocess.run(command, capture_output=True, text=True)
    answered = sum("text" in record for record in kept)
    assert f"{answered} of 5 lines {'was' if answered == 1 else 'were'} answered before." in rest.stderr
    assert len(table(output)) == 5


def test_runs_that_are_killed_answer_every_picture_once(tiny: ModelFiles, tmp_path: Path) -> None:
    root, output = tmp_path / "pictures", tmp_path / "answers.csv"
    root.mkdir()
    count = 40
    for number in range(count):
        noise(number).save(root / f"{number:03}.png")
    command = [*INTERNVL, "ask", str(tiny.text), "What is {name}?", "--batch", str(root), "-o", str(output)]
    command += ["--max-tokens", "20", "-c", "256", "-t", "1"]
    rng, written = random.Random(1), tmp_path / "answers.csv.jsonl"
    for _ in range(4):
        before = written.read_bytes().count(b"\n") if written.exists() else 0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            wanted = before + rng.randrange(1, 6)
            while child.poll() is None and (not written.exists() or written.read_bytes().count(b"\n") < wanted):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.02)
            child.send_signal(signal.SIGKILL)
        lines = Counter(record["line"] for record in whole_records(written))
        assert max(lines.values()) == 1  # nothing was done twice
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "lines were answered before" in done.stderr
    assert [row["line"] for row in table(output)] == [str(number) for number in range(1, count + 1)]
    assert all(row["answer"] or row["finish_reason"] for row in table(output))


def whole_records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
