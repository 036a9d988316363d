"""The file of `internvl ask --batch --output`: whatever happens to the input or to a run, no answer is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from internvl_gguf import InternVLError, InvalidRequestError, Reply, SamplingParams
from internvl_gguf.bulk.answer_file import AnswerFile, Kept, hold_answers
from internvl_gguf.bulk.common import Common
from internvl_gguf.bulk.lines import Line
from internvl_gguf.bulk.records import as_line, record_of
from internvl_gguf.types import FinishReason, Timings, Usage

COMMON = Common(model="a-Q4_K_M.gguf", sampling=SamplingParams(max_tokens=7))
USAGE = Usage(prompt_tokens=9, cached_tokens=0, completion_tokens=1, images=0, tiles=0, tiles_encoded=0)


class Batch:
    """An input and its output."""

    def __init__(self, path: Path, *asked: Any, common: Common = COMMON) -> None:
        self.path = path
        self.lines = [Line(number, json.dumps(each).encode()) for number, each in enumerate(asked, 1)]
        self.hash_of = common.hash_of
        self.common = common

    def __call__(self) -> Iterator[Line]:
        return iter(self.lines)

    def kept(self) -> Kept:
        return AnswerFile(self.path).kept(self, self.hash_of)

    def others(self) -> int:
        return AnswerFile(self.path).others(self())

    def answer(self, *numbers: int, word: str = "It.", finishes: bool = True, reason: FinishReason = "stop") -> None:
        """Answer some lines as a run does; one that crashes does not finish."""
        self._append([(number, Reply(word, reason, USAGE, Timings(0, 0, 0, 0, 0, 0))) for number in numbers])
        if finishes:
            self.finish()

    def fail(self, *numbers: int) -> None:
        self._append([(number, InternVLError("It failed.", "Try again.")) for number in numbers])
        self.finish()

    def finish(self, *, drop_others: bool = False) -> None:
        AnswerFile(self.path).finish(self, self.hash_of, drop_others=drop_others)

    def _append(self, outcomes: list[tuple[int, Any]]) -> None:
        with AnswerFile(self.path).appending() as append:
            for number, outcome in outcomes:
                append(as_line(record_of(self.lines[number - 1], outcome, self.common)))

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def texts(self) -> dict[int, str | None]:
        return {record["line"]: record.get("text") for record in self.records()}


QUESTIONS = [{"prompt": f"Question {number}?"} for number in range(1, 7)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.csv", "answers.parquet"])
def test_a_run_without_an_answer_leaves_no_file(name: str, tmp_path: Path) -> None:
    """A model that could not be loaded left a table with a header alone."""
    path = tmp_path / name
    batch = Batch(path, *QUESTIONS)
    with hold_answers(path) as answers:
        with pytest.raises(InternVLError), answers.appending():
            raise InternVLError("The model cannot be loaded.", "Take another.")
        answers.finish(batch, batch.hash_of, drop_others=False)
    assert list(tmp_path.iterdir()) == []
    path.touch()  # an empty file of the user's stays
    if name == "answers.jsonl":
        with hold_answers(path) as answers, answers.appending():
            pass
        assert path.read_bytes() == b""


def test_answers_stay_where_lines_were_inserted_and_sorted(path: Path) -> None:
    """A run went by the numbers of lines: 1,776 answers became 287 when the input was sorted."""
    Batch(path, *QUESTIONS[:4]).answer(1, 2, 3, 4)
    other = Batch(path, *reversed(QUESTIONS))
    assert other.others() == 0
    assert other.kept() == Kept(frozenset({3, 4, 5, 6}))
    other.finish()  # as Ctrl-C before the first answer does
    assert [record["line"] for record in other.records()] == [3, 4, 5, 6]
    other.answer(1, 2, word="New.")
    assert other.texts() == {1: "New.", 2: "New.", 3: "It.", 4: "It.", 5: "It.", 6: "It."}


def test_answers_to_lines_that_are_gone_are_counted_and_never_dropped_unasked(path: Path) -> None:
    """A shorter input cut the output down: 152 records became 5."""
    Batch(path, *QUESTIONS).answer(1, 2, 3, 4, 5, 6)
    shorter = Batch(path, *QUESTIONS[:2])
    assert shorter.others() == 4
    shorter.finish()
    assert len(shorter.records()) == 6
    shorter.finish(drop_others=True)
    assert [record["line"] for record in shorter.records()] == [1, 2]


def test_failures_of_lines_that_are_gone_are_no_answers(path: Path) -> None:
    batch = Batch(path, *QUESTIONS[:2])
    batch.answer(1)
    batch.fail(2)
    mended = Batch(path, QUESTIONS[0], {"prompt": "Better?"})
    assert mended.others() == 0
    assert mended.kept() == Kept(frozenset({1}))
    mended.answer(2)
    assert [(record["line"], "error" in record) for record in mended.records()] == [(1, False), (2, False)]


def test_a_failed_line_is_asked_again_and_its_newest_record_counts(path: Path) -> None:
    batch = Batch(path, *QUESTIONS[:2])
    batch.fail(1, 2)
    assert batch.kept() == Kept(frozenset())
    batch.answer(2)
    assert batch.texts() == {1: None, 2: "It."}


def test_a_line_that_is_worded_anew_is_known_by_its_id(path: Path) -> None:
    Batch(path, {"id": "a", "prompt": "What?"}).answer(1, word="Old.")
    anew = Batch(path, {"id": "b", "prompt": "Who?"}, {"id": "a", "prompt": "What is it?"})
    assert anew.others() == 0
    assert anew.kept() == Kept(frozenset(), frozenset({2}))
    anew.answer(1)
    assert anew.texts() == {1: "It.", 2: "Old."}  # until there is a newer one
    anew.answer(2, word="New.")
    assert anew.texts() == {1: "It.", 2: "New."}


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "a-Q8_0.gguf"},
        {"encoder": "mmproj-BF16.gguf"},
        {"system": "Be brief."},
        {"pictures": {"max_tiles": 4}},
        {"sampling": SamplingParams(max_tokens=8)},
        {"sampling": SamplingParams(max_tokens=7, temperature=0.5)},
    ],
)
def test_another_model_or_other_options_are_another_question(path: Path, changed: dict[str, Any]) -> None:
    """A rerun with another --system, --max-tiles or model kept the old answers without a word."""
    Batch(path, *QUESTIONS).answer(1, 2, 3, 4, 5, 6, word="Old.")
    batch = Batch(path, *QUESTIONS, common=replace(COMMON, **changed))
    assert batch.others() == 0
    assert batch.kept() == Kept(frozenset(), frozenset(range(1, 7)))
    batch.answer(2, word="New.")  # and then Ctrl-C
    assert batch.texts() == {1: "Old.", 2: "New.", 3: "Old.", 4: "Old.", 5: "Old.", 6: "Old."}
    assert batch.kept() == Kept(frozenset({2}), frozenset({1, 3, 4, 5, 6}))


def test_a_line_that_sets_an_option_itself_does_not_care_about_that_of_all_lines(path: Path) -> None:
    own = {"prompt": "What?", "max_tokens": 3, "system": ""}
    Batch(path, own).answer(1)
    changed = replace(COMMON, sampling=SamplingParams(max_tokens=9), system="Be brief.")
    assert Batch(path, own, common=changed).kept() == Kept(frozenset({1}))


def test_answers_that_ended_at_their_limit_are_known_as_such(path: Path) -> None:
    batch = Batch(path, *QUESTIONS[:3])
    batch.answer(1)
    batch.answer(3, reason="length")
    assert batch.kept() == Kept(frozenset({1, 3}), at_limit=frozenset({3}))
    changed = Batch(path, *QUESTIONS[:3], common=replace(COMMON, system="Be brief."))
    assert changed.kept() == Kept(frozenset(), frozenset({1, 3}))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="It needs a folder in which nobody can make a file.")
def test_a_file_is_refused_where_none_can_be_made_and_nobody_is_waited_for() -> None:
    """Of a folder that takes no files it said that another run was writing there."""
    with (
        pytest.raises(InternVLError, match=r"/proc/answers\.csv cannot be written: "),
        hold_answers(Path("/proc/answers.csv")),
    ):
        pass


def test_the_same_question_twice_has_two_answers(path: Path) -> None:
    batch = Batch(path, QUESTIONS[0], QUESTIONS[0])
    batch.answer(1)
    assert batch.kept() == Kept(frozenset({1}))
    batch.answer(2, word="Again.")
    assert batch.texts() == {1: "It.", 2: "Again."}


def test_a_crash_loses_the_record_being_written_and_no_other(path: Path) -> None:
    batch = Batch(path, *QUESTIONS)
    batch.answer(3, 1, finishes=False)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        batch.answer(6, finishes=False)
        complete = whole[: cut + 1].count(b"\n")  # one that lacks its line feed only is complete
        assert [record["line"] for record in batch.records()] == [*[3, 1][:complete], 6]
    path.write_bytes(whole.removesuffix(b"\n"))  # as an editor may leave it
    batch.answer(2)
    assert batch.texts() == dict.fromkeys((1, 2, 3), "It.")


def test_an_interrupt_while_the_file_is_put_in_order_leaves_it_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(path, *QUESTIONS)
    batch.answer(3, 1, finishes=False)
    before = path.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch.finish()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"holiday photos\n",
        b"holiday photos",
        b"{}\n",
        b'{"line": "1", "hash": "x"}\n',
        b'{"prompt": "?"}\n',
        b"\xff\xd8",
        b"[" * 100_000,
    ],
    ids=range(7),
)
def test_a_file_of_something_else_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match="something else"), hold_answers(path):
        pass
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_second_run_into_the_same_file_is_refused(path: Path) -> None:
    """Two runs at once mixed their records, and the later one dropped the answers of the other."""
    with hold_answers(path):
        with pytest.raises(InvalidRequestError, match="Another run is writing"), hold_answers(path):
            pass
        with pytest.raises(InvalidRequestError, match="Another run is writing"), hold_answers(path):
            pass
    with hold_answers(path):
        pass
    assert not list(path.parent.iterdir())
