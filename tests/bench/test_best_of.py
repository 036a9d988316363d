"""What several answers are worth: estimates that are those of every subset, and judges on the demo model's own exam."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import InvalidRequestError, Session
from internvl_gguf.bench.best_of import timing
from internvl_gguf.bench.best_of.estimators import MOST_SUBSETS, mean_sum, paired_gain, pass_at, subsets
from internvl_gguf.bench.best_of.judges import MeasuredJudge, named_judges
from internvl_gguf.bench.best_of.measure import measure_best_of
from internvl_gguf.bench.best_of.settings import BestOfSettings
from internvl_gguf.bench.best_of.timing import with_seconds
from internvl_gguf.bench.best_of.wording import advice_of
from internvl_gguf.bench.quality.accuracy import measure_accuracy
from internvl_gguf.bench.quality.matching import is_relaxed
from internvl_gguf.bench.quality.sets import read_task
from internvl_gguf.bench.report.advice import advise
from internvl_gguf.bench.results import ORACLE, BestOfResult
from internvl_gguf.config import MAX_BEST_OF
from internvl_gguf.judging import Candidate, JudgedQuestion
from tests.support.bench_samples import ladder_row, results_of, several_answers, with_several
from tests.support.exam_questions import some_of_the_exam
from tests.support.pictures import noise

FEW = BestOfSettings((1, 2, 4), seed=3, temperature=1.5)
"""Hot enough that the demo model is not sure of much."""


# Estimates


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.booleans(), st.data())
def test_pass_at_n_is_the_mean_over_all_subsets(right: list[bool], first_stays: bool, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(right)))
    chosen = [each for each in itertools.combinations(range(len(right)), n) if not first_stays or 0 in each]
    mean = sum(any(right[place] for place in each) for each in chosen) / len(chosen)
    assert pass_at(right, n, first_stays=first_stays) == pytest.approx(mean)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.booleans(), st.data())
def test_the_tokens_of_n_answers_are_the_mean_over_all_subsets(
    tokens: list[int], first_stays: bool, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, len(tokens)))
    chosen = [each for each in itertools.combinations(range(len(tokens)), n) if not first_stays or 0 in each]
    mean = sum(sum(tokens[place] for place in each) for each in chosen) / len(chosen)
    assert mean_sum(tokens, n, first_stays=first_stays) == pytest.approx(mean)


@given(st.integers(1, 40), st.booleans(), st.integers(), st.data())
def test_subsets_are_of_n_places_and_the_same_for_one_seed(
    count: int, first_stays: bool, seed: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, count))
    found = subsets(count, n, first_stays=first_stays, draw=random.Random(seed))
    assert found == subsets(count, n, first_stays=first_stays, draw=random.Random(seed))
    assert 1 <= len(found) <= MOST_SUBSETS
    for places in found:
        assert sorted(set(places)) == list(places)
        assert len(places) == n
        assert set(places) <= set(range(count))
        assert places[0] == 0 or not first_stays


def test_all_subsets_are_taken_where_there_are_few() -> None:
    draw = random.Random(0)
    assert subsets(4, 2, first_stays=False, draw=draw) == list(itertools.combinations(range(4), 2))
    assert subsets(4, 3, first_stays=True, draw=draw) == [(0, 1, 2), (0, 1, 3), (0, 2, 3)]
    assert subsets(9, 1, first_stays=True, draw=draw) == [(0,)]
    assert len(subsets(16, 8, first_stays=False, draw=draw)) == MOST_SUBSETS


def test_a_gain_is_compared_question_by_question() -> None:
    """Nine hard questions more on both sides make each share less certain, but not their difference less than none."""
    one, other = [0.0] * 90 + [1.0] * 110, [0.0] * 80 + [1.0] * 120
    gain, low, high = paired_gain(one, other)
    assert gain == pytest.approx(0.05)
    assert 0 < low < gain < high
    assert paired_gain(one, one) == (0, 0, 0)
    assert paired_gain([], []) == (0, -1, 1)
    assert paired_gain([0.0], [1.0]) == (1, -1, 1)


# What is asked for


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ("1,x", "'x' is no whole number"),
        ("2,,4", "'' is no whole number"),
        ("2.5", "'2.5' is no whole number"),
        ("0,2", "--best-of has 0"),
        ("-2", "--best-of has -2"),
        ("1,1000", "--best-of has 1000"),
        ("2,4,2", "--best-of has 2 twice"),
        ("1", "of one answer there is nothing to choose"),
    ],
)
def test_numbers_of_answers_that_cannot_be_compared(counts: str, said: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        BestOfSettings.parse(counts)
    assert said in error.value.message
    assert error.value.hint


def test_one_answer_is_always_among_them_and_the_numbers_ascend() -> None:
    assert BestOfSettings.parse("8, 2").counts == (1, 2, 8)
    assert BestOfSettings.parse(str(MAX_BEST_OF)).most == MAX_BEST_OF


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_at_which_all_would_be_equal_is_refused(temperature: float) -> None:
    with pytest.raises(InvalidRequestError):
        BestOfSettings.parse("1,4", temperature=temperature)


def test_a_judge_that_there_is_not_or_is_named_twice() -> None:
    with pytest.raises(InvalidRequestError, match="'jury'"):
        named_judges(["vote", "jury"])
    with pytest.raises(InvalidRequestError, match="vote twice"):
        BestOfSettings.parse("2", ("vote", "vote"))


# The demo model's exam


def measured(
    task: str, settings: BestOfSettings, judges: Sequence[MeasuredJudge] = named_judges(["vote", "certainty"])
) -> BestOfResult:
    with Session.open("demo", n_threads=1) as session:
        session.ask("Hello")
        found = measure_best_of(session, task, settings, judges).result
        assert len(session.messages) == 1  # what was said before it has no part in it
    return found


def knowing(task: str) -> MeasuredJudge:
    """A judge that knows the right answers."""
    items = {(item.prompt, str(item.images[0])): item for item in read_task(task).items}

    def judge(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        item = items[question.prompt, question.pictures[0].name]
        return [float(is_relaxed(each.reply.text, item.answers, item.tolerance)) for each in candidates]

    return MeasuredJudge("knowing", judge, scores_alone=True)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Questions of the exam that the demo model is not sure of: how many, and which word."""
    folder = tmp_path_factory.mktemp("task")
    path = Path(some_of_the_exam(folder / "all.jsonl", 1))
    lines = [line for line in path.read_text("utf-8").splitlines() if json.loads(line)["id"] in ("counts", "words")]
    (folder / "asked.jsonl").write_text("\n".join(lines[::4][-16:]), "utf-8")
    return str(folder / "asked.jsonl")


def test_a_judge_that_knows_finds_what_is_there_and_no_other_finds_more(task: str) -> None:
    judge = knowing(task)
    as_set = replace(judge, name="asked of each subset", scores_alone=False)
    found = measured(task, FEW, (*named_judges(["vote", "certainty"]), judge, as_set))
    assert (found.questions, found.counts, found.skipped) == (16, (1, 2, 4), 0)
    assert found.mixed > 0, "otherwise there is nothing to judge"
    for count in found.counts:
        oracle = found.of(ORACLE, count)
        assert oracle
        for name in ("knowing", "asked of each subset"):
            known = found.of(name, count)
            assert known
            assert (known.right, known.gain) == (pytest.approx(oracle.right), pytest.approx(oracle.gain))
        for name in ("vote", "certainty"):
            other = found.of(name, count)
            assert other
            assert 0 <= other.low <= found.fraction(other) <= other.high <= 1
            assert other.right <= oracle.right + 1e-9
    one, all_of_them = found.of(ORACLE, 1), found.of(ORACLE, 4)
    assert one
    assert all_of_them
    assert one.right == pytest.approx(found.pass1 * found.questions)  # all are sampled alike
    assert all_of_them.right > one.right
    assert found.tokens == pytest.approx([count * found.tokens[0] for count in found.counts])


def test_the_same_seed_counts_the_same_and_the_single_answer_is_that_of_the_accuracy(task: str) -> None:
    settings = BestOfSettings((1, 3), seed=5)
    first, second = measured(task, settings), measured(task, settings)
    assert first == second
    with Session.open("demo", n_threads=1) as session:
        alone = measure_accuracy(session, task)
    for judge in ("vote", "certainty", ORACLE):
        one = first.of(judge, 1)
        assert one
        assert (one.right, one.low, one.high) == (alone.relaxed, alone.low, alone.high)
    assert first.first_is_greedy
    assert (first.temperature, first.top_p) == (0.7, 0.95)


def test_judges_are_asked_only_where_they_matter(task: str) -> None:
    """But once in any case: a critic that was never asked would seem to take no time."""
    asked: list[str] = []

    def judge(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        asked.append(question.prompt + question.pictures[0].name)
        return [0.0] * len(candidates)

    found = measured(task, FEW, [MeasuredJudge("mine", judge, scores_alone=True)])
    assert len(asked) == len(set(asked))
    assert found.mixed <= len(asked) <= found.mixed + 1 < found.questions


def test_a_judge_that_raises_ends_the_measurement_in_its_name(task: str) -> None:
    def judge(question: JudgedQuestion, candidates: Sequence[Candidate]) -> list[float]:
        raise ValueError("no idea")

    with pytest.raises(InvalidRequestError, match="ValueError: no idea"):
        measured(task, FEW, [MeasuredJudge("mine", judge)])


def test_questions_that_cannot_be_asked_are_told_of_and_left_out(tmp_path: Path) -> None:
    noise(1).save(tmp_path / "noise.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "noise.png").read_bytes()[:60])
    lines = [
        {"image": "broken.png", "prompt": "What is it?", "answer": "x"},
        {"image": "noise.png", "prompt": "What is it?", "answer": "x"},
        {"image": "noise.png", "prompt": "What is it?"},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    notices = list[str]()
    judges = named_judges(["vote"])
    with Session.open("demo", n_threads=1) as session:
        found = measure_best_of(session, str(path), FEW, judges, on_notice=notices.append).result
        assert (found.questions, found.skipped) == (1, 2)
        assert [line.partition(":")[0] for line in notices] == ["mine, line 1"]
        path.write_text(json.dumps(lines[0]), "utf-8")
        with pytest.raises(InvalidRequestError, match="No question of mine can be asked"):
            measure_best_of(session, str(path), FEW, judges)
        path.write_text(json.dumps(lines[2]), "utf-8")
        with pytest.raises(InvalidRequestError, match="has no line with an answer"):
            measure_best_of(session, str(path), FEW, judges)


def test_every_judge_has_the_seconds_of_each_number_of_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_ENOUGH", 0.0)  # each question once
    task = some_of_the_exam(tmp_path / "few.jsonl", 80)
    told = list[tuple[str, float]]()
    with Session.open("demo", n_threads=1, embedding_cache_bytes=0, embedding_disk_bytes=0) as session:
        counted = measure_best_of(session, task, FEW, named_judges(["vote", "certainty"]))
        found = with_seconds(session, counted, FEW, lambda what, done: told.append((what, done)))
        assert len(session.messages) == 1
    for each in found.judged:
        assert (each.seconds is None) == (each.judge == ORACLE)
        if each.seconds:
            assert each.seconds.repetitions == counted.result.questions == 3
            assert each.seconds.low > 0
    assert told[-1][1] == 1.0
    assert replace(found, judged=counted.result.judged) == counted.result


# What is said of it


def test_the_sentence_claims_a_gain_only_where_it_is_sure() -> None:
    (row,) = results_of([ladder_row("Q4_K_M")]).rows
    results = results_of([row], None)
    sure = advice_of(with_several(results, several_answers()))
    assert sure.startswith("Critic over 16 is right for 82.0%, one answer for 70.0% (+12.0 points, 95%: +6.0 to +18.0)")
    assert "times the time" in sure
    assert sure.endswith("among 16 there is a right one for 86.0%.")
    lost = advice_of(with_several(results, several_answers(gain=-0.01)))
    assert lost.startswith(
        "No judge is surely better than one answer, which is right for 70.0%: at best certainty over 2"
    )
    both = advice_of(with_several(results, several_answers(), several_answers("signs")))
    assert "charts: critic over 16" in both
    assert "signs: critic over 16" in both


def test_advice_is_never_empty_where_what_was_measured_failed() -> None:
    """It was, where several answers were all that was measured and the model ended after some of them."""
    (row,) = results_of([ladder_row("Q4_K_M")]).rows
    alone = replace(row, speed=None, memory=None, quality=None, accuracy=())
    results = with_several(results_of([alone], None), several_answers())
    assert advise(results).startswith("Critic over 16")
    failed = replace(results, rows=tuple(replace(each, status="failed") for each in results.rows))
    assert advise(failed) == "Nothing was measured, so nothing can be advised."
