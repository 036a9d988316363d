"""Candidates: several answers to one question share what it takes, and each is what it would be alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_gguf import SamplingParams, Session
from internvl_gguf.config import EngineConfig
from internvl_gguf.engine import Engine, Handle
from internvl_gguf.engine.token_certainty import certainty_of
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.types import Span, Tile, TileSpan, TokenSpan
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.sessions import engine_of

N_CTX = 96
LONGEST = 14


def tile(seed: int) -> TileSpan:
    return TileSpan(Tile(bytes([seed]) * 16, noise(seed, 32, 32).tobytes()), 4)


def text(seed: int, length: int) -> TokenSpan:
    return TokenSpan(tuple(np.random.default_rng(seed).integers(40, 120, length).tolist()))


PROMPTS: list[list[Span]] = [
    [text(1, 20)],
    [text(1, 9), tile(1), tile(2), text(3, 6)],
    [text(1, 9), tile(1), tile(3), text(3, 40)],
]


def seeded(seed: int) -> SamplingParams:
    return SamplingParams(max_tokens=4 + seed * 5 % LONGEST, temperature=1.5, top_k=0, top_p=1.0, seed=seed)


def open_session(tiny: ModelFiles, **engine: Any) -> Session:
    small: dict[str, Any] = {"n_ctx": N_CTX, "n_batch": 32, "n_ubatch": 8, "system": "", **EXACT}
    return Session.open(tiny.text, tiny.mmproj, **{**small, **engine})


@pytest.fixture
def engine(tiny: ModelFiles) -> Iterator[Engine]:
    with open_session(tiny, n_parallel=2, n_candidates=4) as session:
        yield engine_of(session)


@pytest.fixture(scope="module")
def lasting(tiny: ModelFiles) -> Iterator[Engine]:
    with open_session(tiny, n_parallel=2, n_candidates=4) as session:
        yield engine_of(session)


@pytest.fixture(scope="module")
def alone(lasting: Engine) -> dict[tuple[int, int], list[int]]:
    """The answer to each prompt with each seed, asked alone."""
    found = {}
    for number, prompt in enumerate(PROMPTS):
        for seed in range(10):
            lasting.forget()
            found[number, seed] = lasting.submit(prompt, seeded(seed)).result()
    return found


def candidates(engine: Engine, prompt: int, count: int, question: int = 1, **how: Any) -> list[Handle]:
    return [engine.submit(PROMPTS[prompt], seeded(seed), candidates_of=question, **how) for seed in range(count)]


@pytest.mark.parametrize("n_candidates", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_candidates_equal_answers_given_alone(
    tiny: ModelFiles, alone: dict[tuple[int, int], list[int]], n_candidates: int, count: int
) -> None:
    with open_session(tiny, n_candidates=n_candidates) as session:
        engine = engine_of(session)
        for prompt in range(len(PROMPTS)):
            handles = candidates(engine, prompt, count, question=prompt)
            assert [handle.result() for handle in handles] == [alone[prompt, seed] for seed in range(count)]
            engine.check_integrity()


def test_the_prompt_is_read_once_and_its_tiles_are_encoded_once(engine: Engine) -> None:
    handles = candidates(engine, 1, 4)
    for handle in handles:
        handle.result()
    length = sum(span.length for span in PROMPTS[1])
    assert [handle.report.cached_tokens for handle in handles] == [0] + [length - 1] * 3
    assert [handle.report.tiles_encoded for handle in handles] == [2, 0, 0, 0]


def test_candidates_are_decoded_together(engine: Engine, decodes: list[str]) -> None:
    same = SamplingParams(max_tokens=12, temperature=1.5, top_k=0, top_p=1.0)
    handles = [engine.submit(PROMPTS[0], same, candidates_of=1) for _ in range(4)]
    engine.work_until(lambda: all(handle.is_readable for handle in handles))
    before = len(decodes)
    n_tokens = sum(len(handle.result()) for handle in handles)
    assert len(decodes) - before < n_tokens / 2


def test_all_candidates_together_take_the_room_of_one_context(
    tiny: ModelFiles, alone: dict[tuple[int, int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 57 of 76 positions for the prompt, not all answers of up to 17 tokens fit beside each other."""
    session = open_session(tiny, n_ctx=76, n_candidates=4)
    engine = engine_of(session)
    scheduler = engine._scheduler
    step, waited = scheduler.step, [0]
    pause = scheduler._candidates.pause

    def step_and_check() -> None:
        step()
        scheduler.sequences.check_integrity()

    def counted(request: Any) -> None:
        waited[0] += 1
        pause(request)

    monkeypatch.setattr(scheduler, "step", step_and_check)
    monkeypatch.setattr(scheduler._candidates, "pause", counted)
    monkeypatch.setattr("internvl_gguf.engine.candidates._LEAST_BEGUN", 1)
    handles = candidates(engine, 2, 10)
    assert [handle.result() for handle in handles] == [alone[2, seed] for seed in range(10)]
    assert waited[0] > 0
    session.close()


def test_other_questions_keep_their_own_room(engine: Engine, alone: dict[tuple[int, int], list[int]]) -> None:
    first = candidates(engine, 2, 6, question=1)
    other = engine.submit(PROMPTS[1], seeded(5))
    second = candidates(engine, 0, 6, question=2)
    assert other.result() == alone[1, 5]
    assert [handle.result() for handle in first] == [alone[2, seed] for seed in range(6)]
    assert [handle.result() for handle in second] == [alone[0, seed] for seed in range(6)]
    engine.check_integrity()


@pytest.mark.parametrize("n_parallel", [1, 2])
def test_the_next_question_goes_on_from_any_candidate(tiny: ModelFiles, n_parallel: int) -> None:
    length = sum(span.length for span in PROMPTS[1])
    with open_session(tiny, n_ctx=256, n_parallel=n_parallel, n_candidates=4) as session:
        engine = engine_of(session)
        for number in range(4):
            engine.forget()
            answer = [handle.result() for handle in candidates(engine, 1, 4)][number]
            after = engine.submit([*PROMPTS[1], TokenSpan((*answer, 50, 51))], seeded(1))
            after.result()
            assert after.report.cached_tokens >= length + len(answer) - 1
            engine.check_integrity()


def test_a_first_candidate_that_is_cancelled_leaves_its_place(
    engine: Engine, alone: dict[tuple[int, int], list[int]]
) -> None:
    handles = candidates(engine, 1, 4)
    engine.work_until(lambda: handles[0].report.prompt_read > 0)
    handles[0].cancel()
    assert [handle.result() for handle in handles[1:]] == [alone[1, seed] for seed in range(1, 4)]
    assert not any(engine._scheduler.sequences.is_taken)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "several", "several", "read", "read", "cancel", "forget"]),
            st.integers(0, 2),
            st.integers(0, 9),
        ),
        max_size=20,
    )
)
def test_candidates_come_and_go_at_any_time(
    lasting: Engine, alone: dict[tuple[int, int], list[int]], actions: list[tuple[str, int, int]]
) -> None:
    """Whatever goes on in between, the ledgers hold, and each answer is what it is alone."""
    under_way: list[tuple[int, int, Handle, Iterator[int]]] = []
    for question, (action, prompt, number) in enumerate(actions):
        if action == "ask":
            handle = lasting.submit(PROMPTS[prompt], seeded(number))
            under_way.append((prompt, number, handle, handle.stream()))
        elif action == "several":
            for seed, handle in enumerate(candidates(lasting, prompt, 1 + number % 7, question)):
                under_way.append((prompt, seed, handle, handle.stream()))
        elif action == "forget":
            lasting.forget()
        elif under_way:
            chosen = under_way[(prompt * 10 + number) % len(under_way)]
            if action == "read":
                next(chosen[3], None)
            else:
                chosen[2].cancel()
                under_way.remove(chosen)
        lasting.check_integrity()
    for prompt, seed, handle, tokens in under_way:
        assert [*handle.tokens, *tokens] == alone[prompt, seed]
    lasting.check_integrity()
    assert not any(lasting._scheduler.sequences.is_taken)


def test_certainty_is_the_divergence_from_knowing_nothing() -> None:
    logits = np.random.default_rng(1).normal(0, 3, 500).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum()
    told = certainty_of(logits, 7)
    assert told.logprob == pytest.approx(math.log(p[7]), abs=1e-5)
    assert told.certainty == pytest.approx(float(-np.log(len(p) * p).mean()), abs=1e-4)
    assert certainty_of(np.zeros(500, np.float32), 7).certainty == pytest.approx(0, abs=1e-9)


def test_certainty_is_told_of_every_token(engine: Engine) -> None:
    (handle, *_) = candidates(engine, 0, 2, tells_certainty=True)
    tokens = handle.result()
    assert [each.token for each in handle.logprobs] == tokens
    assert all(each.logprob < 0 < each.certainty for each in handle.logprobs)


def test_sequences_are_as_many_as_there_is_a_place_for() -> None:
    assert EngineConfig(n_parallel=3, n_candidates=8).n_sequences == 10
    assert EngineConfig(n_parallel=3, n_candidates=8, n_batch=6, n_ubatch=6).n_sequences == 6
    assert EngineConfig(n_parallel=255, n_candidates=8).n_sequences == 255
