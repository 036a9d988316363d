"""Accuracy: what counts as right, how sure that is, and the demo model's exam."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import InvalidRequestError, LibraryError, Session
from internvl_gguf.bench.quality.accuracy import measure_accuracy, wilson_interval
from internvl_gguf.bench.quality.matching import is_exact, is_relaxed
from internvl_gguf.llama.context import Context
from internvl_gguf.models.resolve import ModelFiles
from tests.support.exam_questions import EXAM, some_of_the_exam
from tests.support.pictures import noise
from training.words import TEST_WORDS


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "relaxed"),
    [
        ("Red.", "Red.", True, True),
        (" red.\n", "RED.", True, True),
        ("at the  top left", "At the top left", True, True),
        ("Red", "Red.", False, True),
        ("“Red!”", "red", False, True),
        ("a cat", "cat", False, True),
        ("The cat sat on a mat.", "cat sat on mat", False, True),
        ("cats", "cat", False, False),
        ("a black cat", "cat", False, False),
        ("A", "A.", False, True),
        ("A", "B", False, False),
        ("the", "a", False, False),
        ("three", "3", False, True),
        ("Three.", "3", False, True),
        ("None.", "0", False, True),
        ("twenty", "20", False, True),
        ("ninety", "90", False, True),
        ("two cats", "2 cats", False, True),
        ("1,234", "1234", False, True),
        ("1,234,567.5", "1234567.5", False, True),
        ("1,23", "123", False, False),
        ("$12.50", "12.5", False, True),
        ("45 %", "45", False, True),
        ("0.45", "45%", False, False),
        ("104", "100", False, True),
        ("105", "100", False, True),
        ("106", "100", False, False),
        ("95", "100", False, True),
        ("94", "100", False, False),
        ("-5", "5", False, False),
        ("−5", "-5", False, True),
        (".5", "0.5", False, True),
        ("0", "0.01", False, False),
        ("0.01", "0", False, False),
        ("12 apples", "12 pears", False, False),
        ("2024-05-01", "2024/05/01", False, True),
        ("well-known", "well known", False, True),
        ("3:40", "3.40", False, False),
        ("don't", "dont", False, False),
        ("红色。", "红色", False, True),
        ("４２", "42", False, True),
        ("Straße", "STRASSE", True, True),
        ("", "x", False, False),
        ("...", "?", False, False),
        ("?", "?", True, True),
        ("9" * 400, "8" * 400, False, False),
    ],
)
def test_what_is_right(answer: str, accepted: str, exact: bool, relaxed: bool) -> None:
    assert is_exact(answer, [accepted]) is exact
    assert is_relaxed(answer, [accepted]) is relaxed
    assert is_relaxed(answer, ["something else", accepted, "third"]) is relaxed


def test_how_far_off_a_number_may_be_is_the_questions_choice() -> None:
    """To read 3663 for 3653 is wrong, though it is less than 5% off."""
    assert is_relaxed("3663", ["3653"])
    assert not is_relaxed("3663", ["3653"], tolerance=0)
    assert is_relaxed("3,653.0", ["3653"], tolerance=0)
    assert is_relaxed("140", ["100"], tolerance=0.5)


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=3))
def test_what_is_exact_is_relaxed_too(answer: str, accepted: list[str]) -> None:
    assert is_exact(answer, [*accepted, answer])
    assert is_relaxed(answer, [*accepted, answer.upper().lower(), answer])
    if is_exact(answer, accepted):
        assert is_relaxed(answer, accepted)


@pytest.mark.parametrize(
    ("right", "questions", "low", "high"),
    [(9, 10, 0.5958, 0.9821), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (0, 0, 0, 1)],
)
def test_the_interval_is_wilsons(right: int, questions: int, low: float, high: float) -> None:
    assert wilson_interval(right, questions) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_holds_the_fraction(right: int, wrong: int) -> None:
    low, high = wilson_interval(right, right + wrong)
    assert 0 <= low <= high <= 1
    if right + wrong:
        assert low <= right / (right + wrong) + 1e-12
        assert high >= right / (right + wrong) - 1e-12


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_the_demo_passes_its_exam(tmp_path: Path, n_parallel: int) -> None:
    noise(1).save(tmp_path / "noise.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "noise.png").read_bytes()[:60])
    more = (
        {"image": "broken.png", "prompt": "What is it?", "answer": "x"},
        {"image": "noise.png", "prompt": "What number is written?", "answer": "three", "tolerance": 0},
        {"image": "noise.png", "prompt": "What is it?"},
        {"image": "gone.png", "prompt": "What is it?", "answer": "x"},
    )
    task = some_of_the_exam(tmp_path / "some questions.jsonl", 6, *more)
    told, notices = list[tuple[str, float]](), list[str]()
    with Session.open("demo", n_threads=1, n_parallel=n_parallel) as session:
        session.ask("Hello")
        found = measure_accuracy(session, task, lambda what, done: told.append((what, done)), notices.append)
        assert len(session.messages) == 1  # what was said before it has no part in it
    asked = len(range(0, 210, 6)) + 1
    assert (found.task, found.questions, found.skipped) == ("some questions", asked, 3)
    assert 0.75 < found.fraction < 1
    assert found.exact == found.relaxed
    assert found.low < found.fraction < found.high
    assert told[-1] == ("some questions", 1.0)
    assert len(told) == asked + 1
    assert [line.split(":")[0] for line in notices] == [f"some questions, line {asked}"]


def test_the_words_of_the_exam_were_kept_from_training() -> None:
    lines = [json.loads(line) for line in (EXAM / "questions.jsonl").read_text("utf-8").splitlines()]
    read = {line["answer"] for line in lines if line["id"] in ("words", "small print")}
    words = {word for word in read if word.isalpha()}
    assert len(words) > 20
    assert words <= set(TEST_WORDS)
    assert {line["tolerance"] for line in lines} == {0}


def test_the_exam_comes_with_the_package() -> None:
    told = list[tuple[str, float]]()

    class EnoughError(Exception):
        pass

    def tell(what: str, done: float) -> None:
        told.append((what, done))
        raise EnoughError

    with Session.open("demo", n_threads=1) as session, pytest.raises(EnoughError):
        measure_accuracy(session, None, tell)
    assert told == [("demo exam", 1 / 230)]


def test_a_model_that_computes_nonsense_is_an_error(
    tiny: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a question that could not be asked: a row of zeros would look like a measurement."""

    def fail(*arguments: Any) -> Any:
        raise LibraryError("The model computed something that is not a number.", "Fetch it again.")

    noise(1).save(tmp_path / "a.png")
    (tmp_path / "asked.jsonl").write_text('{"image": "a.png", "prompt": "?", "answer": "x"}\n' * 3)
    monkeypatch.setattr(Context, "logits", fail)
    with (
        Session.open(tiny.text, tiny.mmproj, n_threads=1, n_ctx=256) as session,
        pytest.raises(LibraryError, match="not a number"),
    ):
        measure_accuracy(session, str(tmp_path / "asked.jsonl"))


def test_a_task_without_answers(tmp_path: Path) -> None:
    noise(1).save(tmp_path / "a.png")
    (tmp_path / "asked.jsonl").write_text('{"image": "a.png", "prompt": "?"}\n')
    with (
        Session.open("demo", n_threads=1) as session,
        pytest.raises(InvalidRequestError, match="has no line with an answer"),
    ):
        measure_accuracy(session, str(tmp_path / "asked.jsonl"))
