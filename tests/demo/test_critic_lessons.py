"""The critic's lessons: their prompts are the runtime's, and their verdicts what the answers are worth."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

from internvl_gguf import Picture
from internvl_gguf.critics import Critic
from internvl_gguf.critics.step_prompts import step_prompts
from internvl_gguf.critics.verdict_tokens import verdict_tokens
from internvl_gguf.judging import JudgedQuestion
from internvl_gguf.models.resolve import resolve_model
from internvl_gguf.types import TileSpan
from training.critic import (
    MOST_WRONG,
    Judged,
    can_be_judged,
    is_right,
    judged,
    judged_row,
    mistaken,
    other_tokens,
)
from training.critic_cases import FIRST_SEED, Case, draw_case, spoiled
from training.exam import SEED
from training.packing import beginning
from training.phrases import SYSTEM_OFFICIAL
from training.questions import Question
from training.read_gguf import read, training_tokenizer
from training.tokenizer import Tokenizer

PER_TILE = 36
LISTED = Question("descriptions", "Describe it.", "A red circle at the top and a blue star on the left.")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return training_tokenizer(read(resolve_model("demo").text.parent).tokenizer)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [draw_case(seed) for seed in range(40)]


def test_cases_lie_apart_from_the_exam_and_are_of_every_kind(cases: list[Case]) -> None:
    assert FIRST_SEED - SEED >= 10_000_000
    kinds = {question.kind for case in cases for question in case.questions}
    assert kinds >= {"counts", "descriptions", "json", "reading", "receipts", "receipt questions", "choices"}
    assert {len(case.scenes) for case in cases} == {1, 3}
    again = draw_case(7)
    assert [(q.text, q.answer) for q in again.questions] == [(q.text, q.answer) for q in cases[7].questions]


def test_a_spoiled_answer_is_never_the_right_one(cases: list[Case]) -> None:
    for seed in range(20):
        rng = Random(seed)
        for case in cases:
            for question in case.questions:
                assert spoiled(question.answer, rng) != question.answer


def test_a_spoiled_form_is_mostly_still_json(cases: list[Case]) -> None:
    forms = [q.answer for case in cases for q in case.questions if q.kind in ("json", "receipts")]
    broken = 0
    for number, form in enumerate(forms * 5):
        try:
            json.loads(spoiled(form, Random(number)))
        except json.JSONDecodeError:
            broken += 1
    assert broken < 5 * len(forms) / 3


def test_a_form_is_right_by_its_values_and_all_else_to_the_letter() -> None:
    form = Question("json", "", '{"a": 2.5, "b": "red"}')
    assert is_right(form, '{"b": "red", "a": 2.50}')
    assert not is_right(form, '{"a": 2.5, "b": "blue"}')
    assert not is_right(form, '{"a": 2.5')
    assert not is_right(LISTED, LISTED.answer.lower())


def test_each_question_has_its_right_answer_and_what_the_model_said_wrong(cases: list[Case]) -> None:
    rng = Random(1)
    for case in cases:
        for question in case.questions:
            said = ["Something else.", question.answer, "", "Something else.", "Nothing.", "One thing.", "Two things."]
            asked = judged(question, said, [], rng)
            assert asked.answers[0] == question.answer
            assert set(asked.answers[1:]) <= set(said)
            assert asked.right == (True, *[False] * MOST_WRONG)
            asked = judged(question, [question.answer], ["Likely.", question.answer], rng)
            assert asked.right in ((True, False), (True, False, False))


def test_a_mistake_is_a_token_that_the_model_expects_where_it_is_unsure() -> None:
    answer, end, sure = [5, 6, 7], 9, 0.999
    expected = np.full((3, 10), 1e-6, np.float32)
    expected[[0, 2], [5, 7]] = sure
    expected[1, [6, 3, 4]] = 0.5, 0.3, 0.2
    made = [mistaken(answer, expected, end, Random(seed)) for seed in range(200)]
    assert sum(each in ([5, 3, 7], [5, 4, 7]) for each in made) > 180
    assert made.count([5, 3, 7]) > made.count([5, 4, 7])
    assert set(other_tokens(answer, expected, end, Random(1))) >= {(1, 3)}
    expected[1, end] = 5
    assert all(
        token not in (end, right)
        for at, token in other_tokens(answer, expected, end, Random(1))
        for right in [answer[at]]
    )
    assert [5] in [mistaken(answer, expected, end, Random(seed)) for seed in range(20)]


def test_an_answers_tokens_are_told_up_to_the_first_wrong_one(tokenizer: Tokenizer) -> None:
    wrong, short = LISTED.answer.replace("blue", "green"), "A red circle at the top"
    row = judged_row(tokenizer, [1, 2], [Judged(LISTED, (LISTED.answer, wrong, short), (True, False, False))])
    truths = [row.truth[row.branch == row.branch[end]].tolist() for end in row.ends]
    assert set(truths[0]) == {1}
    first = tokenizer.encode(wrong).index(tokenizer.encode(" green")[0])
    assert truths[1] == [1] * first + [0] + [-1] * (len(truths[1]) - first - 1)
    assert set(truths[2]) == {1}, "all of it is right, but not all is there"
    assert row.right.tolist() == [True, False, False]


def test_a_wrong_token_stands_in_the_place_of_a_right_one(tokenizer: Tokenizer) -> None:
    right = tokenizer.encode(LISTED.answer)
    others = ((0, 300), (4, 301))
    row = judged_row(tokenizer, [1, 2], [Judged(LISTED, (LISTED.answer,), (True,))] * 2, [(), others])
    added = np.flatnonzero(row.parent)
    assert row.ids[added].tolist() == [300, 301]
    assert row.truth[added].tolist() == [0, 0]
    assert row.right.tolist() == [True, True], "they are no answers that a verdict is told of"
    first, second = added
    assert row.branch[row.before[first]] == row.stem[first]
    assert row.branch[row.before[second]] == row.parent[second] == row.branch[row.ends[1]]
    assert row.ids[row.before[second]] == right[3]
    assert (row.positions[added] - row.positions[row.before[added]] == 1).all()


def test_a_packed_answer_is_the_prompt_of_the_runtime(tokenizer: Tokenizer, cases: list[Case]) -> None:
    """Token for token, up to where the verdict is told."""
    with Critic.open("demo-critic", n_ctx=4096, n_threads=1) as critic:
        runtime, described = critic.session.runtime, critic.description
        tokens = verdict_tokens(runtime, described)
        for case in cases[:12]:
            pictures = tuple(critic.session.picture(Picture(s.image, max_tiles=case.max_tiles)) for s in case.scenes)
            shared = beginning(tokenizer, SYSTEM_OFFICIAL, tuple(PER_TILE * len(picture.tiles) for picture in pictures))
            for question in filter(can_be_judged, case.questions):
                row = judged_row(tokenizer, shared, [Judged(question, (question.answer,), (True,))])
                asked = JudgedQuestion(question.text, pictures)
                (prompt,) = step_prompts(runtime, described, tokens, asked, described.split(question.answer))
                context = tokenizer.special("<IMG_CONTEXT>")
                spans = [[context] * s.length if isinstance(s, TileSpan) else s.ids for s in prompt]
                assert row.ids.tolist() == [token for part in spans for token in part]
                assert row.ends.tolist() == [len(row.ids) - 1]


def test_answers_see_their_question_and_the_beginning_only(tokenizer: Tokenizer, cases: list[Case]) -> None:
    rng = Random(3)
    questions = [judged(question, [], [], rng) for question in cases[0].questions]
    row = judged_row(tokenizer, beginning(tokenizer, SYSTEM_OFFICIAL, (PER_TILE,)), questions)
    stems = set(row.stem.tolist()) - {0}
    assert len(stems) == len(questions)
    assert all(set(row.stem[row.branch == stem].tolist()) == {0} for stem in stems)
    for branch in set(row.branch.tolist()) - {0}:
        positions = row.positions[row.branch == branch]
        assert positions.tolist() == list(range(positions[0], positions[0] + len(positions)))
    told = np.flatnonzero(row.before >= 0)
    assert (row.positions[told] - row.positions[row.before[told]] == 1).all()
    seen = row.branch[row.before[told]]
    assert ((seen == row.branch[told]) | (seen == row.stem[told])).all()
