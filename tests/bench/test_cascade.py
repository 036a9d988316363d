"""`bench --cascade`: what a threshold saves and loses, and that it is told of questions it was not fitted to."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import InvalidRequestError, Session
from internvl_gguf.bench.cascade.advice import advise, recommend
from internvl_gguf.bench.cascade.answers import ModelAnswer, ModelAnswers, answer_all
from internvl_gguf.bench.cascade.chart import cascade_chart
from internvl_gguf.bench.cascade.fit import FOLDS, cross_validated, fitted, folds, frontier
from internvl_gguf.bench.cascade.intervals import gained_accuracy, saved_time, separation
from internvl_gguf.bench.cascade.policy import Ladder, cascade, oracle, single
from internvl_gguf.bench.cascade.report import HEAD, from_json, render, table_of, to_json, to_page
from internvl_gguf.bench.cascade.results import CascadeResults
from internvl_gguf.bench.cascade.rows import rows_of
from internvl_gguf.bench.quality.sets import read_task
from internvl_gguf.bench.report.figures import chart_as_svg
from tests.support.pictures import noise

SMALL, LARGE, ENCODE = 1.0, 4.0, 0.5


@st.composite
def ladders(draw: st.DrawFn, n_models: int = 2) -> Ladder:
    """Any answers of some models to 10 to 40 questions about some pictures."""
    n, chance = draw(st.integers(10, 40)), np.random.default_rng(draw(st.integers(0, 2**32)))
    right = chance.random((n_models, n)) < draw(st.floats(0, 1))
    sure = np.round(chance.random((n_models, n)), draw(st.integers(1, 3)))
    alone = np.array([[SMALL * 2**place] * n for place in range(n_models)])
    return Ladder(right, sure, alone, alone - ENCODE / 2, chance.integers(0, draw(st.integers(1, 20)), n))


def answers(right: list[bool], sure: list[float], seconds: float, encoder: str = "same") -> ModelAnswers:
    rows = zip(right, sure, strict=True)
    return ModelAnswers(encoder, tuple(ModelAnswer(at, "", *row, seconds, ENCODE) for at, row in enumerate(rows)))


@pytest.fixture
def knowing() -> list[ModelAnswers]:
    """A small model that knows when it is right, in every other of 100 questions; the large one is always right."""
    is_right = [place % 2 == 0 for place in range(100)]
    small = answers(is_right, [0.9 if right else 0.3 for right in is_right], SMALL)
    return [small, answers([True] * 100, [0.99] * 100, LARGE)]


def results_of(models: list[ModelAnswers], votes: list[ModelAnswers] | None = None) -> CascadeResults:
    names = tuple(f"model{place}" for place in range(len(models)))
    rows, curves = rows_of(names, {1: models, **({4: votes} if votes else {})}, list(range(100)))
    recommended = recommend(rows, len(names))
    return CascadeResults(
        names,
        "a | task",
        rows,
        curves,
        recommended,
        advise(rows, names),
        True,
        "here",
        "b1",
        "0",
        "now",
        "internvl bench",
    )


@given(ladders(3))
def test_the_ends_of_a_threshold_are_the_models_themselves(ladder: Ladder) -> None:
    """0 asks nobody else; one that no confidence reaches asks all, and takes the time of all."""
    assert np.array_equal(cascade(ladder, (0.0, 0.0)).right, single(ladder, 0).right)
    assert np.array_equal(cascade(ladder, (0.0, 0.0)).seconds, single(ladder, 0).seconds)
    last = cascade(ladder, (1.1, 1.1))
    assert np.array_equal(last.right, single(ladder, 2).right)
    assert np.allclose(last.seconds, ladder.alone[0] + ladder.after[1] + ladder.after[2])


@given(ladders(), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_asks_more_questions_on(ladder: Ladder, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert np.all(cascade(ladder, (low,)).answered_by <= cascade(ladder, (high,)).answered_by)


@given(ladders(3), st.floats(0, 1), st.floats(0, 1))
def test_no_cascade_beats_the_oracle(ladder: Ladder, first: float, second: float) -> None:
    assert oracle(ladder).right.sum() >= cascade(ladder, (first, second)).right.sum()
    assert np.array_equal(oracle(ladder).right, ladder.right.any(axis=0))


@given(ladders())
def test_the_fit_loses_nothing_on_its_own_questions_and_no_threshold_is_faster(ladder: Ladder) -> None:
    found, target = cascade(ladder, fitted(ladder)), single(ladder, 1).right.sum()
    others = [outcome for _, outcome in frontier(ladder)]
    if found.right.sum() < target:  # where the last one is certain of what a lower confidence would have kept
        assert found.right.sum() == max(outcome.right.sum() for outcome in others)
    else:
        assert all(
            outcome.right.sum() < target or outcome.seconds.sum() >= found.seconds.sum() - 1e-9 for outcome in others
        )


@given(ladders())
def test_the_frontier_rises(ladder: Ladder) -> None:
    outcomes = [outcome for _, outcome in frontier(ladder)]
    assert all(one.accuracy < two.accuracy for one, two in itertools.pairwise(outcomes))
    assert all(one.mean_seconds <= two.mean_seconds for one, two in itertools.pairwise(outcomes))


@given(st.lists(st.integers(0, 30), min_size=2 * FOLDS, max_size=60))
def test_each_question_is_in_one_part_and_a_picture_never_in_two(pictures: list[int]) -> None:
    parts = folds(np.array(pictures))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(pictures)))
    if len(set(pictures)) >= FOLDS:
        of_parts = [{pictures[place] for place in part} for part in parts]
        assert sum(map(len, of_parts)) == len(set(pictures))


@given(ladders(), st.data())
def test_who_answers_a_question_does_not_depend_on_what_is_right_in_its_part(
    ladder: Ladder, data: st.DataObject
) -> None:
    """Else the number told of the cascade would have seen the answers that it is measured by."""
    part = data.draw(st.sampled_from(folds(ladder.pictures)))
    right = ladder.right.copy()
    right[:, part] = ~right[:, part]
    turned = cross_validated(replace(ladder, right=right))
    assert np.array_equal(turned.answered_by[part], cross_validated(ladder).answered_by[part])


def test_a_model_that_knows_when_it_is_wrong_saves_what_it_keeps(knowing: list[ModelAnswers]) -> None:
    """Half the questions cost 1 and the others 1 + 4 - 0.5 for the shared encoder, against 4."""
    results = results_of(knowing)
    row = results.rows[results.recommended]
    assert (row.kind, row.right, row.shares) == ("cascade", 100, (0.5, 0.5))
    assert row.seconds == pytest.approx((1 + 1 + 3.5) / 2)
    assert row.saved is not None
    assert row.saved.value == pytest.approx(1 - 2.75 / 4)
    assert row.saved.low < row.saved.value < row.saved.high
    assert row.gained is not None
    assert row.gained.low < row.gained.value == 0 < row.gained.high
    assert row.thresholds == (0.6,)
    assert results.advice == (
        "Take model0 with --escalate model1 --threshold 0.6: it takes 31% less time than model1 alone (95% interval "
        f"{100 * row.saved.low:.0f} to {100 * row.saved.high:.0f}), and as many are right (95% interval "
        f"{100 * row.gained.low:+.1f} to {100 * row.gained.high:+.1f}), on questions that the threshold was not fitted "
        "to."
    )


def test_another_encoder_is_paid_for(knowing: list[ModelAnswers]) -> None:
    other = [knowing[0], replace(knowing[1], encoder="another")]
    seconds = [cascade(Ladder.of(models, list(range(100))), (0.6,)).mean_seconds for models in (knowing, other)]
    assert seconds[1] - seconds[0] == pytest.approx(ENCODE / 2)


def test_where_confidence_says_nothing_no_cascade_is_recommended() -> None:
    """A small model that is as sure of wrong answers, and not faster."""
    is_right = [place % 3 == 0 for place in range(100)]
    sure = [0.5 + (7 * place % 100) / 250 for place in range(100)]
    results = results_of([answers(is_right, sure, LARGE), answers([True] * 100, [0.9] * 100, LARGE)])
    assert results.rows[results.recommended].name == "model1"
    assert results.advice == (
        "Ask model1 alone: on these 100 questions no cascade certainly takes less time than model1 alone."
    )
    assert results.rows[0].separation == pytest.approx(0.5, abs=0.1)


def test_where_the_small_one_is_as_good_it_is_recommended(knowing: list[ModelAnswers]) -> None:
    results = results_of([answers([True] * 100, [0.5] * 100, SMALL), knowing[1]])
    assert results.rows[results.recommended].name == "model0"


def test_an_interval_does_not_shrink_to_a_point_where_both_are_right_on_the_same() -> None:
    right = np.ones(20, dtype=bool)
    found = gained_accuracy(right, right)
    assert found.low < found.value == 0 < found.high
    worse = gained_accuracy(~right, right)
    assert worse.value == -1
    assert -1 <= worse.low <= worse.high < 0


@given(st.lists(st.booleans(), min_size=5, max_size=50), st.lists(st.booleans(), min_size=50, max_size=50))
def test_a_gain_turned_around_is_a_loss(one: list[bool], other: list[bool]) -> None:
    now, before = np.array(one), np.array(other[: len(one)])
    there, back = gained_accuracy(now, before), gained_accuracy(before, now)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_saved_time_is_told_over_pictures() -> None:
    """Ten questions about one picture are one case, not ten."""
    now, before = np.array([1.0] * 10 + [4.0]), np.array([4.0] * 11)
    apart = saved_time(now, before, np.arange(11))
    together = saved_time(now, before, np.array([0] * 10 + [1]))
    assert apart.value == together.value == pytest.approx(1 - 14 / 44)
    assert together.high - together.low > apart.high - apart.low


def test_separation_is_that_of_chance_where_confidence_is_constant() -> None:
    right = np.array([True, False, True])
    assert separation(np.array([0.5, 0.5, 0.5]), right) == 0.5
    assert separation(np.array([0.9, 0.1, 0.8]), right) == 1
    assert separation(np.array([0.9, 0.1, 0.8]), np.ones(3, dtype=bool)) is None


def test_too_few_questions_are_refused() -> None:
    few = answers([True] * 5, [0.5] * 5, SMALL)
    with pytest.raises(InvalidRequestError, match="5 questions were answered: too few") as refused:
        rows_of(("a", "b"), {1: [few, few]}, list(range(5)))
    assert refused.value.hint == "Give 10 or more; a hundred are few."


def test_a_question_that_one_model_could_not_be_asked_counts_for_none(knowing: list[ModelAnswers]) -> None:
    fewer = replace(knowing[1], answers=knowing[1].answers[1:])
    assert Ladder.of([knowing[0], fewer], list(range(100))).n_questions == 99


def test_every_form_of_the_report_has_every_row(knowing: list[ModelAnswers]) -> None:
    results = results_of(knowing, votes=knowing)
    names = [row.name for row in results.rows]
    assert [row.kind for row in results.rows] == ["model"] * 2 + ["vote"] * 2 + ["cascade"] * 2 + ["oracle"]
    assert all(len(line) == len(HEAD) for line in table_of(results))
    assert from_json(json.loads(render(results, "json"))) == results
    for form in ("md", "csv"):
        assert all(name in render(results, form) for name in names)
    assert "a \\| task" in render(results, "md")
    page = to_page(results)
    assert all(name in page for name in names)
    assert "<script" not in page
    assert "oracle" in chart_as_svg(cascade_chart(results))


@pytest.mark.parametrize(
    ("document", "said"),
    [([], "there is no 'format'"), ({"format": 9}, "are in format 9"), ({"format": 1}, "models is missing")],
)
def test_a_damaged_document_is_an_error(document: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        from_json(document)


def test_to_json_is_plain(knowing: list[ModelAnswers]) -> None:
    assert json.loads(json.dumps(to_json(results_of(knowing)))) == to_json(results_of(knowing))


def test_questions_are_asked_of_a_real_model(session: Session, tmp_path: Path) -> None:
    """One whose picture is gone is told of; the others are in the order of the file."""
    for number in range(3):
        noise(number).save(tmp_path / f"{number}.png")
    lines = [{"image": f"{number}.png", "prompt": "What?", "answer": "x", "max_tokens": 2} for number in range(3)]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    questions = read_task(str(path))
    (tmp_path / "1.png").unlink()
    told: list[str] = []
    found = answer_all(session, questions, 1, on_notice=told.append)
    assert [answer.item for answer in found.answers] == [0, 2]
    assert told
    assert told[0].startswith("questions, line 2: ")
    assert found.encoder == session.runtime.encoder_identity.hex()
    for answer in found.answers:
        assert 0 < answer.confidence < 1
        assert 0 < answer.encode < answer.seconds
    assert len(session.messages) == 1
    again = answer_all(session, questions, 2, on_notice=told.append)
    assert all(0 < answer.confidence <= 1 for answer in again.answers)
