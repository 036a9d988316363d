"""`--best-of` and `--judge` of `ask` and `--batch`: what is shown, what Ctrl-C keeps, and what is refused."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest
from rich.console import Console
from rich.status import Status

from internvl_gguf import Session
from internvl_gguf.cli.ask_progress import AskProgress
from internvl_gguf.cli.asking_options import asking_options, asking_types
from internvl_gguf.cli.completion import answer
from internvl_gguf.cli.output.progress import StatusLine
from internvl_gguf.cli.several_answers import interrupts_keep_the_best
from internvl_gguf.models.resolve import ModelFiles
from tests.cli.test_batch_lines import Run, records, run
from tests.cli.test_commands import INTERNVL, assert_two_lines
from tests.cli.test_options import given
from tests.support.served import DESCRIPTION, EXAMPLE

__all__ = ["run"]

COUNT = ["ask", "demo", "How many shapes are there?", "-i", EXAMPLE, "-t", 1]
DESCRIBE = ["ask", "demo", "What is in the picture?", "-i", EXAMPLE, "-t", 1]
WILD = ["--temp", 1.5, "--top-p", 1, "--seed", 3]


def test_the_answer_goes_to_stdout_and_why_it_was_chosen_to_stderr(run: Run) -> None:
    done = run(*COUNT, "--best-of", 3)
    assert (done.returncode, done.stdout) == (0, "Two.\n")
    assert re.fullmatch(r"(3 of 3 agree|2 of 3 agree \(1 unfinished\))\n", done.stderr)  # two decide it


def test_all_candidates_are_listed_on_demand(run: Run) -> None:
    done = run(*DESCRIBE, *WILD, "--best-of", 3, "--judge", "certainty", "-v")
    assert done.returncode == 0
    *listed, reason, _ = done.stderr.splitlines()
    assert reason.startswith("certainty ")
    assert [f"seed {seed}" in line for seed, line in zip((3, 4, 5), listed, strict=True)] == [True] * 3
    assert sum(line.startswith("*") for line in listed) == 1
    assert all("score" in line for line in listed)


def test_a_text_is_listed_in_full_once(run: Run) -> None:
    done = run(*DESCRIBE, "--best-of", 6, "--judge", "certainty", "--seed", 1, "-v")
    told = " ".join(done.stderr.split())
    shown = re.findall(r" score [^:]+: (.+?)(?= (?:\* )?\d+ score | certainty )", told)
    texts = [text for text in shown if not text.startswith("the text of ")]
    assert len(shown) == 6
    assert len(set(texts)) == len(texts)
    assert done.stdout.strip() in texts
    assert "(0 cached" in told  # nothing was: whichever answer was chosen, the question was read


def test_json_says_how_it_was_chosen(run: Run) -> None:
    found = json.loads(run(*DESCRIBE, "--best-of", 2, "--seed", 7, "--json").stdout)
    first, second = found["selection"]["candidates"]
    assert (first["seed"], second["seed"]) == (None, 8)
    assert found["text"] == (first, second)[found["selection"]["best"]]["text"]
    assert json.loads(run(*COUNT, "--json").stdout)["selection"] is None


def test_forms_and_boxes_are_those_of_the_chosen_answer(run: Run, tmp_path: Path) -> None:
    chosen = run(*COUNT, "--best-of", 3, "--choices", "one,two,three", "--json")
    assert json.loads(chosen.stdout)["parsed"] == "two"
    of_schema = json.loads(run(*COUNT, "--best-of", 3, "--schema", "shapes int", "--json").stdout)
    assert of_schema["parsed"] == {"shapes": 2}
    drawn = tmp_path / "boxes.png"
    locate = ["ask", "demo", "Locate the red circle", "-i", EXAMPLE, "-t", 1]
    found = json.loads(run(*locate, "--best-of", 3, "--boxes", drawn, "--json").stdout)
    assert found["boxes"]
    assert found["saved"] == [str(drawn)]
    assert drawn.exists()


def test_the_demos_critic_judges_by_its_name(run: Run) -> None:
    done = run(*DESCRIBE, *WILD, "--best-of", 3, "--judge", "demo-critic")
    assert re.search(r"critic [01]\.\d\d", done.stderr)
    assert "not known as a critic" not in done.stderr


def test_a_critic_is_loaded_by_the_name_of_its_model(run: Run, tiny: ModelFiles, photo: Path) -> None:
    """Random weights judge by nothing, but they judge."""
    model = [tiny.text, "--mmproj", tiny.mmproj, "-t", 1, "-c", 512]
    done = run("ask", *model, "-p", "What?", "-i", photo, *WILD, "-n", 6, "--best-of", 3, "--judge", tiny.text)
    assert done.returncode == 0
    assert re.search(r"critic [01]\.\d\d", done.stderr)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--best-of", 0], "--best-of is 0."),
        (["--best-of", 1000], "--best-of is 1000."),
        (["--best-of", "many"], "'many'"),
        (["--best-of", 4, "--temp", 0], "With --temperature 0 all 4 answers would be equal."),
        (["--best-of", 4, "--top-k", 1], "With --top-k 1 all 4 answers would be equal."),
        (["--best-of", 4, "--judge", ""], "--judge is ''."),
    ],
)
def test_what_cannot_be_is_two_lines(run: Run, options: list[Any], said: str) -> None:
    done = run(*COUNT, *options)
    assert_two_lines(done, code=2)
    assert said in done.stderr


def test_a_judge_that_is_no_text_model_is_two_lines(run: Run, tiny: ModelFiles, tmp_path: Path) -> None:
    done = run(*COUNT, "--best-of", 2, "--judge", tiny.mmproj)
    assert_two_lines(done)
    assert "no mmproj" not in done.stderr
    alone = tmp_path / "critic.gguf"
    alone.write_bytes(tiny.text.read_bytes())
    done = run(*COUNT, "--best-of", 2, "--judge", alone)
    assert_two_lines(done)
    assert "Put the mmproj of the critic into the same folder." in done.stderr
    done = run(*COUNT, "--best-of", 2, "--judge", "Vote")
    assert_two_lines(done)
    assert "Did you mean vote?" in done.stderr


def test_an_unknown_judge_is_two_lines(run: Run) -> None:
    done = run(*COUNT, "--best-of", 4, "--judge", "jury")
    assert_two_lines(done)
    assert "jury is no judge: There is no model 'jury'." in done.stderr
    assert "vote and certainty are judges" in done.stderr


def test_a_judge_of_one_answer_is_said_to_have_nothing_to_do(run: Run) -> None:
    done = run(*COUNT, "--judge", "certainty")
    assert (done.returncode, done.stdout) == (0, "Two.\n")
    assert "--best-of 8 asks for several" in done.stderr


def test_answers_that_were_all_cut_are_said_to_be(run: Run) -> None:
    done = run(*DESCRIBE, "-n", 4, "--best-of", 3)
    assert done.returncode == 0
    assert done.stderr.startswith("All 3 answers were cut at their limit; more --max-tokens lets them end.\n")


def test_answers_without_room_for_all_wait_and_a_line_says_so(run: Run, tiny: ModelFiles) -> None:
    model = [tiny.text, "--mmproj", tiny.mmproj, "-t", 1, "-c", 256]
    done = run("ask", *model, "-p", "What?", *WILD, "-n", 100, "--best-of", 12, "--judge", "certainty", "--json")
    (notice,) = [line for line in done.stderr.splitlines() if "waited for others" in line]
    assert "larger --n-ctx" in notice
    assert len(json.loads(done.stdout)["selection"]["candidates"]) == 12


def test_as_many_answers_are_written_at_once_as_are_asked_for() -> None:
    def at_once(*options: str) -> int:
        values = given("ask", "demo", "Hello?", *options)
        return asking_options({name: values[name] for name in asking_types()}).engine.n_candidates

    assert [at_once(), at_once("--best-of", "3"), at_once("--best-of", "20")] == [8, 8, 20]
    assert at_once("--best-of", "128") == 64


def test_the_progress_counts_one_token_as_one() -> None:
    """ "0 of 128 answers, 1 tokens" was shown."""
    status = Status("", console=Console(file=io.StringIO()))
    progress, shown = AskProgress(StatusLine(status), "picture"), []
    for ended, tokens in ((0, 1), (3, 1200), (128, 2000)):
        progress.candidates(ended, 128, tokens)
        shown.append(str(status.status))
    assert shown == ["0 of 128 answers, 1 token", "3 of 128 answers, 1,200 tokens", "Judging the answers"]


def test_judges_are_completed() -> None:
    found = [line.split("\t")[0] for line in answer(["zsh", "ask", "--judge", ""]).splitlines()]
    assert found[:2] == ["vote", "certainty"]
    assert "demo" in found


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_keeps_the_best_of_the_answers_that_have_ended(tmp_path: Path) -> None:
    arguments = [*DESCRIBE, *WILD, "-c", 4096, "--best-of", 128, "--judge", "certainty"]
    child = pexpect.spawn(INTERNVL[0], [*INTERNVL[1:], *map(str, arguments)], dimensions=(24, 200), timeout=60)
    child.expect(r"[1-9]\d* of 128 answers, [\d,]+ tokens")
    child.sendintr()
    child.expect(r"Stopped: this is the best of the \d+ of 128 answers that had ended\.")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130  # so that a script sees that answers are missing


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_before_any_answer_has_ended_is_an_interruption(endless_files: ModelFiles) -> None:
    """What was said before is likelier than any other token, so that no answer ends."""
    model = [endless_files.text, "--mmproj", endless_files.mmproj, "-t", 1, "-c", 32768, "-n", 30000]
    options = ["--best-of", 3, "--temp", 1, "--presence-penalty", -100, "--json"]
    arguments = ["ask", *map(str, model), "-p", "Go on.", *map(str, options)]
    child = pexpect.spawn(INTERNVL[0], [*INTERNVL[1:], *arguments], dimensions=(24, 200), timeout=60)
    child.expect(r"0 of 3 answers, [1-9]")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert b"selection" not in child.before


def test_ctrl_c_twice_leaves(session: Session) -> None:
    def press_twice() -> None:
        with interrupts_keep_the_best(session) as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert interrupts.count == 1
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_lines_of_a_batch_have_several_answers_and_judges(run: Run, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    asked = {"prompt": "How many shapes are there?", "images": EXAMPLE}
    more: list[dict[str, Any]] = [
        {},
        {"best_of": 3},
        {"best_of": 3, "judge": "certainty"},
        {"judge": "certainty"},
        {"best_of": 0},
        {"best_of": 1000},
        {"best_of": "many"},
        {"best_of": 3, "temperature": 0},
        {"best_of": 3, "judge": "jury"},
    ]
    lines.write_text("".join(json.dumps({**asked, **each}) + "\n" for each in more))
    done = run("ask", "demo", "--batch", lines, "-t", 1)
    one, voted, certain, lonely, *refused = records(done.stdout)
    assert one["selection"] is None
    assert re.match(r"[23] of 3 agree", voted["selection"]["reason"])
    assert certain["selection"]["reason"].startswith("certainty ")
    assert "nothing to choose from" in lonely["notices"][0]
    assert [each["error"] for each in refused] == [
        "best_of is 0.",
        "best_of is 1000.",
        'best_of is "many".',
        'With "temperature": 0 all 3 answers would be equal.',
        'judge is "jury".',
    ]
    assert all(each["hint"] for each in refused)


def test_one_critic_judges_the_lines_that_name_no_other_judge(run: Run, tiny: ModelFiles, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"prompt": "What?", "best_of": 2}\n{"prompt": "Why?", "best_of": 2, "judge": "certainty"}\n')
    options = ["--mmproj", tiny.mmproj, "-t", 1, "-c", 512, *WILD, "-n", 6, "--judge", tiny.text]
    first, second = records(run("ask", tiny.text, "--batch", lines, *options).stdout)
    assert first["selection"]["reason"].startswith("critic ")
    assert second["selection"]["reason"].startswith("certainty ")


def test_a_run_that_goes_on_asks_again_where_answers_or_judge_are_others(run: Run, tmp_path: Path) -> None:
    lines, output = tmp_path / "lines.jsonl", tmp_path / "answers.jsonl"
    lines.write_text(json.dumps({"prompt": "What is red?"}) + "\n")
    batch = ["ask", "demo", "--batch", lines, "-o", output, "-t", 1, "-n", 8]

    def is_asked_again(*options: object) -> bool:
        return "asked again" in run(*batch, *options).stderr

    run(*batch, "--best-of", 2)
    assert not is_asked_again("--best-of", 2)
    assert is_asked_again("--best-of", 3)
    assert is_asked_again("--best-of", 3, "--judge", "certainty")
    assert not is_asked_again("--best-of", 3, "--judge", "certainty")


def test_the_greedy_answer_is_the_first_candidate(run: Run) -> None:
    found = json.loads(run(*DESCRIBE, "--best-of", 2, "--json").stdout)
    assert found["selection"]["candidates"][0]["text"] == DESCRIPTION
