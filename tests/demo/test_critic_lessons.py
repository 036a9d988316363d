"""The critic's lessons: their prompts are the runtime's, and their verdicts what the answers are worth."""

from __future__ import annotations

import json
from pathlib import Path
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
from training.critic import RIGHT, WRONG, CriticLessons, Judged, attempt, critic_beginning, judged, pack_judged
from training.critic_cases import FIRST_SEED, Case, draw_case, spoiled
from training.exam import SEED
from training.read_gguf import read, training_tokenizer
from training.tokenizer import Tokenizer

PER_TILE = 36
LISTED = "A red circle at the top, a blue star on the left and a star in the middle."


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


def test_what_follows_a_wrong_step_is_wrong() -> None:
    wrong = LISTED.replace("blue", "green")
    assert attempt(LISTED, LISTED, splits=False).right == (True,)
    assert attempt(wrong, LISTED, splits=False).right == (False,)
    assert attempt(LISTED, LISTED, splits=True).right == (True, True)
    assert attempt(wrong, LISTED, splits=True).right == (True, False)
    assert attempt('{"a": 2, "b": 3}', '{"a": 1, "b": 3}', splits=True).right == (False, False)


def test_an_answer_that_ends_early_is_wrong_at_its_end_and_one_too_long_behind_the_right_end() -> None:
    assert attempt("[1, 2", "[1, 2, 3", splits=True).right == (True, False)
    assert attempt("[1, 2, 3, 4", "[1, 2, 3", splits=True).right == (True, True, True, False)


def test_each_question_has_its_right_answer_and_what_the_model_said_wrong(cases: list[Case]) -> None:
    rng = Random(1)
    for case in cases:
        for question in case.questions:
            first, *others = judged(question, ["Something else.", question.answer, ""], rng).attempts
            assert all(first.right)
            assert 1 <= len(others) <= 2
            assert not any(tried.right[-1] for tried in others)


@pytest.mark.parametrize("splits", [False, True])
def test_a_packed_answer_is_the_prompt_of_the_runtime(tokenizer: Tokenizer, cases: list[Case], splits: bool) -> None:
    """Token for token, for each step up to where its verdict is told."""
    with Critic.open("demo", n_ctx=4096) as critic:
        runtime, described = critic.session.runtime, critic.description
        tokens = verdict_tokens(runtime, described)
        for case in cases[:12]:
            pictures = tuple(critic.session.picture(Picture(s.image, max_tiles=case.max_tiles)) for s in case.scenes)
            shared = critic_beginning(tokenizer, tuple(PER_TILE * len(picture.tiles) for picture in pictures))
            for question in case.questions:
                tried = attempt(question.answer, question.answer, splits)
                packed = pack_judged(tokenizer, shared, [Judged(question, (tried,))])
                prompts = step_prompts(runtime, described, tokens, JudgedQuestion(question.text, pictures), tried.steps)
                context = tokenizer.special("<IMG_CONTEXT>")
                spans = [[context] * s.length if isinstance(s, TileSpan) else s.ids for s in prompts[-1]]
                assert packed.ids.tolist() == [token for part in spans for token in part]
                told = [at for at in np.flatnonzero(packed.answer) if packed.kinds[packed.answer[at] - 1][-1] == RIGHT]
                assert [at + 1 for at in told] == [sum(span.length for span in prompt) for prompt in prompts]


def test_branches_see_their_stem_and_the_beginning_only(tokenizer: Tokenizer, cases: list[Case]) -> None:
    case = cases[0]
    shared = critic_beginning(tokenizer, (PER_TILE,))
    rng = Random(3)
    questions = [judged(question, [], rng) for question in case.questions]
    packed = pack_judged(tokenizer, shared, questions)
    stems = set(packed.stem.tolist()) - {0}
    assert len(stems) == len(questions)
    assert all(set(packed.stem[packed.branch == stem].tolist()) == {0} for stem in stems)
    verdicts = [kind[-1] for kind in packed.kinds if kind[-1] in (RIGHT, WRONG)]
    assert verdicts.count(WRONG) >= len(questions)
    for branch in set(packed.branch.tolist()) - {0}:
        positions = packed.positions[packed.branch == branch]
        assert positions.tolist() == list(range(positions[0], positions[0] + len(positions)))


def test_a_batch_is_filled_with_rows_of_about_one_length(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [{"seed": seed, "answers": [["No."] for _ in draw_case(seed).questions]} for seed in range(6)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lessons, rng = CriticLessons(tokenizer, 144, PER_TILE, tmp_path, asked=1.0), Random(2)
    batches = [lessons(rng) for _ in range(3)]
    for batch in batches:
        assert batch.ids.size <= 2400 or len(batch.ids) == 1
        assert (batch.branch >= 0).mean() > 0.75
        assert batch.tiles is not None
        assert (batch.ids == tokenizer.special("<IMG_CONTEXT>")).sum() == PER_TILE * len(batch.tiles)
