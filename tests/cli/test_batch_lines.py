"""`internvl ask --batch`: lines in, records out, in order, whatever is wrong with some; a later run goes on."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pexpect
import pytest

from internvl_gguf import (
    ContextOverflowError,
    InvalidRequestError,
    PictureError,
    Question,
    Reply,
    SamplingParams,
)
from internvl_gguf.bulk.answerer import LoadedFacts
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line, read_lines
from internvl_gguf.bulk.records import RecordWriter, record_of
from internvl_gguf.cli import main
from internvl_gguf.cli.batch_report import Tally, estimate
from internvl_gguf.cli.batch_work import Work
from internvl_gguf.hardware.device_speed import Range
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.planning.speed_estimate import SpeedEstimate
from internvl_gguf.types import Timings, Usage
from tests.cli.test_commands import FAST, INTERNVL, assert_two_lines
from tests.support.pictures import noise

DEFAULTS = Common(sampling=SamplingParams(max_tokens=7))


class Run(Protocol):
    """Runs the command in this process, which takes a tenth of the time of a new one."""

    def __call__(self, *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    def command(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["internvl", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        printed = capsysbinary.readouterr()
        return subprocess.CompletedProcess([], ended.value.code, printed.out.decode(), printed.err.decode())

    return command


def question(**fields: Any) -> Any:
    return DEFAULTS.question_of(Line(2, json.dumps({"prompt": "?", **fields}).encode()))


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_a_question() -> None:
    asked = question(
        images=["a.png"], id=5, system="", max_tiles=2, layout="frames", temperature=1, stop="x", seed=None
    )
    assert (asked.prompt, asked.images, asked.system) == ("?", ("a.png",), "")
    sampling = SamplingParams(max_tokens=7, temperature=1, stop=("x",))
    assert asked.options == {"max_tiles": 2, "layout": "frames", "sampling": sampling}


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"[1]",
        b'"text"',
        b"{}",
        b'{"images": []}',
        b'{"prompt": 5}',
        b'{"prompt": "?", "image": "a.png"}',
        b'{"prompt": "?", "max_new_tokens": 5}',
        b'{"prompt": "?", "images": [5]}',
        b'{"prompt": "?", "temperature": "hot"}',
        b'{"prompt": "?", "temperature": -1}',
        b'{"prompt": "?", "temperature": NaN}',
        b'{"prompt": "?", "max_tokens": 1.5}',
        b'{"prompt": "?", "max_tokens": true}',
        b'{"prompt": "?", "thumbnail": 1}',
        b'{"prompt": "?", "stop": [1]}',
        b'{"prompt": "?", "tempreature": 1}',
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"prompt": "?", "seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_line_that_is_no_question_says_why(data: bytes) -> None:
    line = Line(3, data)
    with pytest.raises(InvalidRequestError) as caught:
        DEFAULTS.question_of(line)
    record = record_of(line, caught.value, DEFAULTS)
    assert record["line"] == 3
    assert "\n" not in record["error"]
    assert record["hint"]


def test_one_picture_of_a_line_needs_no_list() -> None:
    assert question(images="a.png") == question(images=["a.png"])


def test_blank_lines_are_no_questions_and_count() -> None:
    assert [(line.number, line.data) for line in read_lines([b"a\r\n", b"\n", b"  \n", b"b"])] == [(1, b"a"), (4, b"b")]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert DEFAULTS.question_of(Line(1, b'\xef\xbb\xbf{"prompt": "?"}')).prompt == "?"


@pytest.mark.parametrize("seed", range(5))
def test_records_are_written_as_soon_as_order_permits(seed: int) -> None:
    places = list(range(20))
    random.Random(seed).shuffle(places)
    file = io.BytesIO()
    writer = RecordWriter(file.write)
    for count, place in enumerate(places, 1):
        writer.put(place, {"place": place})
        done = set(places[:count])
        in_a_row = next(number for number in range(21) if number not in done)
        assert [record["place"] for record in records(file.getvalue().decode())] == list(range(in_a_row))


def test_what_is_done_is_written_where_a_run_ends_early() -> None:
    file = io.BytesIO()
    writer = RecordWriter(file.write)
    for place in (0, 4, 2):
        writer.put(place, {"id": "\ud800", "place": place})
    writer.close()
    assert [record["place"] for record in records(file.getvalue().decode())] == [0, 2, 4]
    assert records(file.getvalue().decode())[0]["id"] == "\ud800"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Six questions, three of which cannot be answered."""
    noise(1).save(tmp_path / "a picture.png")
    path = tmp_path / "questions.jsonl"
    asked: list[object] = [
        {"prompt": "What is it?", "images": [str(tmp_path / "a picture.png")], "id": "first", "max_tiles": 2},
        {"prompt": "Who are you?", "system": ""},
        {"prompt": "What?", "images": ["missing.png"], "id": [3]},
        {"prompt": "Where?", "max_tokens": 0},
        {"prompt": "When?"},
    ]
    path.write_text("\n".join([*map(json.dumps, asked), "", "no JSON\n"]))
    return path


def test_every_line_has_a_record_in_order_and_bad_ones_end_nothing(run: Run, tiny: ModelFiles, lines: Path) -> None:
    done = run("ask", tiny.text, "--batch", lines, "--parallel", "2", "-c", "256", *FAST)
    assert done.returncode == 1
    speed, failures = done.stderr.splitlines()
    assert re.fullmatch(r"Answered 3 lines in [\d.]+ s: [\d,.]+ pictures an hour\.", speed)
    assert failures == (
        "3 of 6 lines failed (2 lines that cannot be asked, 1 missing file); the output says why. "
        "The first is line 3 (missing.png): there is no such file."
    )
    found = records(done.stdout)
    assert [record["line"] for record in found] == [1, 2, 3, 4, 5, 7]
    assert ["text" in record for record in found] == [True, True, False, False, True, False]
    assert [record.get("id") for record in found] == ["first", None, [3], None, None, None]
    assert found[0]["usage"]["tiles"] == 1
    assert all(record["error"] and record["hint"] for record in found if "text" not in record)
    piped = run("ask", tiny.text, "--batch", "-", "-c", "256", *FAST, stdin=lines.read_bytes())
    assert [record.get("text") for record in records(piped.stdout)] == [record.get("text") for record in found]


def test_a_run_goes_on_where_an_earlier_one_ended(run: Run, tiny: ModelFiles, lines: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    arguments = ["ask", tiny.text, "--batch", lines, "--output", output, "-c", "256", *FAST]
    whole = run(*arguments)
    assert whole.returncode == 1
    assert whole.stdout == ""
    first = records(output.read_text())
    # The second line's answer is lost, a new picture is there, and one question is another now.
    output.write_text("".join(json.dumps(record) + "\n" for record in first if record["line"] != 2))
    noise(2).save(tmp_path / "missing.png")
    text = lines.read_text().replace('"missing.png"', json.dumps(str(tmp_path / "missing.png")))
    lines.write_text(text.replace('"max_tokens": 0', '"max_tokens": 1').replace("no JSON", '{"prompt": "Now?"}'))
    again = run(*arguments)
    assert again.stderr.splitlines()[0] == "2 of 6 lines were answered before."
    assert re.fullmatch(r"Answered 4 lines in .* pictures an hour\.", again.stderr.splitlines()[1])
    assert again.returncode == 0
    second = records(output.read_text())
    assert [record["line"] for record in second] == [1, 2, 3, 4, 5, 7]
    assert second[0] == first[0]
    assert second[1]["text"] == first[1]["text"]
    nothing_left = run(*arguments)
    assert nothing_left.returncode == 0
    assert nothing_left.stderr.splitlines() == ["6 of 6 lines were answered before."]


def test_ctrl_c_keeps_what_is_done(tiny: ModelFiles) -> None:
    endless = {"prompt": "Tell me.", "max_tokens": 10**6, "temperature": 3.0, "top_k": 0, "top_p": 1.0}
    short = {"prompt": "Short?", "max_tokens": 1}
    asked = [short, *[{**endless, "seed": seed} for seed in range(2000)], short]
    with subprocess.Popen(
        [*INTERNVL, "ask", str(tiny.text), "--batch", "-", "--parallel", "2", "-t", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n".join(map(json.dumps, asked)).encode())
        child.stdin.close()
        first = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        found = records((first + child.stdout.read()).decode())
        assert child.wait() == 130
        assert found[0]["line"] == 1
        assert [record["line"] for record in found] == sorted({record["line"] for record in found})
        assert len(found) < len(asked)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch", "q.jsonl", "-i", "a.png"],
        ["--output", "o.jsonl", "A question?"],
        ["--parallel", "2", "A question?"],
        ["--workers", "2", "A question?"],
        ["--drop-others", "A question?"],
        ["--batch", "q.jsonl", "--drop-others"],
        ["--batch", "q.jsonl", "--json"],
        ["--batch", "q.jsonl", "-v"],
        ["--batch", "q.jsonl", "--parallel", "0"],
        ["--batch", "q.jsonl", "--parallel", "1000"],
        ["--batch", "q.jsonl", "--workers", "0"],
        ["--batch", "q.jsonl", "--workers", "1000"],
        ["--batch", "q.jsonl", "--workers", "many"],
    ],
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    assert run("ask", "demo", *arguments).returncode == 2


def test_files_that_cannot_be_used_are_told_in_two_lines(run: Run, lines: Path, tmp_path: Path) -> None:
    assert_two_lines(run("ask", "demo", "--batch", tmp_path / "missing.jsonl"))
    assert_two_lines(run("ask", "demo", "--batch", lines, "--output", tmp_path))
    assert_two_lines(run("ask", "demo", "--batch", lines, "--output", lines))
    assert_two_lines(run("ask", "demo", "--batch", lines, "--output", tmp_path / "no" / "such" / "folder.jsonl"))


def test_no_lines_are_no_work(run: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    done = run("ask", "no-such-model", "--batch", empty)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "There are no lines: nothing is asked.\n")


SPEED = SpeedEstimate(
    decode=Range(20, 40),
    prefill=Range(1000, 2000),
    tile_seconds=Range(0.1, 0.2),
    picture_seconds=None,
    measured=True,
    assumed=(),
)


def told(speed: SpeedEstimate, count: int, questions: list[Question], reading: float = 0) -> str | None:
    """The estimate where the pictures of a question take `reading` seconds to read."""
    clock = itertools.count(0, reading)
    return estimate(LoadedFacts(speed, 256, 448, 4, TileLimits()), 1, count, questions, lambda: next(clock))


def asked(*images: Path, **options: Any) -> Question:
    return Question("Describe it.", tuple(map(str, images)), {"sampling": SamplingParams(max_tokens=100), **options})


def test_a_run_is_estimated_by_its_pictures_and_names_what_makes_it_shorter(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    noise(1, 1600, 1200).save(path)
    line = told(SPEED, 10_000, [asked(path)] * 3)
    assert line is not None
    # 13 tiles: 1.3 to 2.6 s, 3,428 tokens read in 1.7 to 3.4 s, 100 tokens said in 2.5 / 4 to 5 s.
    assert line.startswith(
        "10,000 questions (about 13 tiles a picture) will take 10 to 31 hours (330 to 990 pictures an hour) by"
    )
    assert "--max-tiles 4 takes" in line
    fewer = told(SPEED, 10_000, [asked(path, max_tiles=4)] * 3)
    assert fewer is not None
    assert "--max-tiles" not in fewer
    sooner = fewer.partition(" will take ")[2].partition(" (")[0]
    assert line.endswith(f"--max-tiles 4 takes {sooner}.")


def test_an_estimate_counts_pictures_and_each_lines_own_answer(tmp_path: Path) -> None:
    """The estimate counted questions an hour and the summary pictures; `max_tokens` of a line was ignored."""
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        noise(1, 300, 300).save(path)
    line = told(SPEED, 3600, [asked(*paths, sampling=SamplingParams(max_tokens=1))])
    assert line is not None
    assert "(about 1 tile a picture)" in line
    assert "pictures an hour" in line
    assert line.endswith("answers of 1 token.")
    words = told(SPEED, 3600, [asked()])
    assert words is not None
    assert "questions an hour" in words
    assert "tile" not in words


def test_an_estimate_looks_at_lines_from_all_over_the_file() -> None:
    """It knew the first eight lines only, and a file may begin with its smallest pictures."""
    lines = [Line(number, b'{"prompt": "%d"}' % number) for number in range(1, 1001)]
    work = Work(lambda: iter(lines), DEFAULTS, frozenset({1}), None, 999, 0, None)
    seen = [int(each.prompt) for each in work.sample({"layout": "frames", "sampling": DEFAULTS.sampling})]
    assert (seen[0], len(seen)) == (2, 16)
    assert all(50 < later - earlier < 70 for earlier, later in itertools.pairwise(seen))


def test_reading_pictures_takes_its_time_in_the_estimate(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise(1, 300, 300).save(path)
    slow = told(SPEED, 24, [asked(path)], reading=3600)
    assert slow is not None
    assert "will take 12 to 24 hours" in slow  # two at a time, or one after the other


def test_nothing_is_estimated_of_what_is_not_known(tmp_path: Path) -> None:
    assert told(SPEED, 10_000, [asked()]) is not None
    assert told(SPEED, 5, [asked()]) is None
    assert told(SPEED, 10_000, []) is None
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    assert told(SPEED, 10_000, [asked(broken), asked(tmp_path / "missing.png")]) is None
    unmeasured = replace(SPEED, measured=False)
    line = told(unmeasured, 10_000, [asked()])
    assert line is not None
    assert "internvl doctor --measure" in line
    assert told(unmeasured, 5, [asked()]) is None


def test_failures_are_counted_by_their_kinds_and_listed_by_a_command(tmp_path: Path) -> None:
    """36 damaged pictures among 50,000 were "36 of 50000 lines failed", and nothing said which."""
    tally = Tally(tmp_path / "my answers.jsonl")
    missing = PictureError("Cannot use a.png: there is no such file.", "Check the path.", is_missing=True)
    for number in range(1, 1825):
        tally.add(number, missing if number % 2 else PictureError("Cannot use b.png: it is damaged.", "Export it."))
    tally.add(1825, ContextOverflowError("Too long.", "Use less.", needed=2, available=1))
    (line,) = tally.summary()
    assert line.startswith(
        "1,825 of 1,825 lines failed (912 missing files, 912 unusable pictures, 1 too long for the context); "
    )
    assert f"`grep '\"error\"' '{tmp_path}/my answers.jsonl'` lists them." in line


def test_answers_without_a_value_are_told_apart(tmp_path: Path) -> None:
    """Answers that --max-tokens cut before their JSON was whole counted as any others, and the run as done."""
    tally = Tally(tmp_path / "answers.jsonl")
    cut = replace(reply(tiles_encoded=0), finish_reason="length")
    for number, is_bound in ((9, True), (1, False), (7, True)):
        tally.add(number, cut, is_bound=is_bound)
    tally.add(2, reply(tiles_encoded=0), is_bound=True)
    assert (tally.answered, tally.cut_off, tally.failed) == (4, 2, 0)
    _, line = tally.summary()
    assert line == (
        "2 of 4 answers ended at the limit before the form was complete, without a value; "
        f"`grep '\"length\"' {tmp_path}/answers.jsonl` lists what was cut. "
        "Give more max_tokens to these lines, or --max-tokens to all. The first is line 7."
    )


def test_one_line_is_no_lines(tmp_path: Path) -> None:
    """It said "1 of 1 lines failed"."""
    wrong = InvalidRequestError("The line has no prompt.", "Write one.")
    tally = Tally()
    tally.add(1, wrong)
    (line,) = tally.summary()
    assert line.startswith("1 of 1 line failed (1 line that cannot be asked); the output says why.")
    tally = Tally(tmp_path / "a.jsonl")
    tally.add(1, wrong)
    tally.add(2, replace(reply(tiles_encoded=1), finish_reason="length"), is_bound=True)
    _, cut, failed = tally.summary()
    assert "Give more max_tokens to this line, or" in cut
    assert "a.jsonl` lists it. " in failed
    assert (tally.all_of(9) or "").startswith("These were 2 of 9 lines: ")
    tally = Tally()
    tally.add(1, reply(tiles_encoded=1))
    assert (tally.all_of(9) or "").startswith("This was 1 of 9 lines: ")


def test_a_rerun_of_known_pictures_tells_no_speed_of_new_ones() -> None:
    tally = Tally()
    tally.add(1, reply(tiles_encoded=0))
    (line,) = tally.summary()
    assert "no picture was encoded, all were known from before." in line


def reply(tiles_encoded: int) -> Reply:
    usage = Usage(prompt_tokens=9, cached_tokens=0, completion_tokens=1, images=1, tiles=2, tiles_encoded=tiles_encoded)
    return Reply("It.", "stop", usage, Timings(0.123456789, 0, 0, 0, 0, 0))


def test_a_record_has_its_pictures_its_model_and_sensible_digits() -> None:
    data = {"prompt": "?", "images": ["a.png", "data:image/png;base64,AAAA"], "id": 7}
    common = replace(DEFAULTS, model="model-Q4_K_M.gguf")
    record = record_of(Line(3, json.dumps(data).encode()), reply(tiles_encoded=2), common)
    assert (record["line"], record["id"], record["model"]) == (3, 7, "model-Q4_K_M.gguf")
    assert record["images"] == ["a.png", "data:image/png;base64,..."]
    assert record["timings"]["preprocess"] == 0.1235
    assert record["prompt"] == "?"


def test_a_path_alone_is_answered_with_the_line_that_it_should_be() -> None:
    with pytest.raises(InvalidRequestError, match="not JSON") as caught:
        DEFAULTS.question_of(Line(1, b"photos/a b.jpg"))
    assert caught.value.hint.endswith('write {"prompt": "What is it?", "images": ["photos/a b.jpg"]}.')


def test_a_prompt_beside_the_batch_is_that_of_lines_without(run: Run, tiny: ModelFiles, tmp_path: Path) -> None:
    """`-p` beside --batch was ignored."""
    path = tmp_path / "questions.jsonl"
    path.write_text('{"max_tokens": 1}\n{"prompt": "Who?", "max_tokens": 1}\n')
    assert run("ask", tiny.text, "--batch", path, "-p", "What is it?", *FAST).returncode == 0
    assert run("ask", tiny.text, "--batch", path, *FAST).returncode == 1
    line = Line(1, b"{}")
    assert replace(DEFAULTS, prompt="What is it?").question_of(line).prompt == "What is it?"
    assert replace(DEFAULTS, prompt="a").hash_of(line) != replace(DEFAULTS, prompt="b").hash_of(line)


def test_other_options_are_told_and_other_lines_refused(run: Run, tiny: ModelFiles, tmp_path: Path) -> None:
    """Both were silent: the first kept the old answers, the second threw them away."""
    path, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    path.write_text('{"prompt": "Who?"}\n{"prompt": "When?"}\n')
    arguments = ["ask", tiny.text, "--batch", path, "--output", output, "-c", "256", *FAST]
    assert run(*arguments).returncode == 0
    told = run(*arguments, "--system", "Be brief.").stderr.splitlines()
    assert told[0] == "2 lines were answered with another model, other options or other words, and are asked again."
    before = output.read_text()
    path.write_text('{"prompt": "Who?"}\n')
    refused = run("ask", "no-such-model", *arguments[2:])
    assert_two_lines(refused)
    assert "has 1 answer to a line that is not in the input" in refused.stderr
    assert "--drop-others" in refused.stderr
    assert output.read_text() == before
    assert run(*arguments, "--system", "Be brief.", "--drop-others").returncode == 0
    assert [record["line"] for record in records(output.read_text())] == [1]
    assert run(*arguments, "--system", "Be brief.").stderr.splitlines() == ["1 of 1 line was answered before."]


def test_the_bar_is_on_the_terminal_where_answers_go_to_a_file(tiny: ModelFiles, tmp_path: Path) -> None:
    """`--batch --output FILE` showed nothing in a terminal, whose stdout it does not write to."""
    lines = tmp_path / "questions.jsonl"
    lines.write_text('{"prompt": "Who?"}\n' * 3)
    output = tmp_path / "answers.jsonl"
    arguments = ["ask", str(tiny.text), "--batch", str(lines), "--output", str(output), *FAST]
    child = pexpect.spawn(
        INTERNVL[0], [*INTERNVL[1:], *arguments], env={**os.environ, "TERM": "xterm-256color"}, timeout=60
    )
    shown = child.read().decode()
    child.close()
    assert child.exitstatus == 0
    assert "3/3" in shown
    assert "Answered 3 lines in" in shown
    assert len(output.read_text().splitlines()) == 3
