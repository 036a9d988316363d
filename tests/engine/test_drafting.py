"""Prompt lookup changes how fast an answer comes, never what it says."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import InvalidRequestError, SamplingParams, Session
from internvl_gguf.config import EngineConfig
from internvl_gguf.engine import Engine, drafting
from internvl_gguf.engine.drafting import DecodeCost, PromptLookup, worthwhile_length
from internvl_gguf.engine.request import AnswerRequest
from internvl_gguf.llama.context import Context
from internvl_gguf.memory import MemoryRequest
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.types import Span, Tile, TileSpan, TokenSpan
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.sessions import engine_of

LONG = SamplingParams(max_tokens=120)
LOOP = TokenSpan((68, 69, 70) * 6)  # the tiny model goes on with what is guessed right about every third time


def tile(seed: int) -> TileSpan:
    return TileSpan(Tile(bytes([seed]) * 16, noise(seed, 32, 32).tobytes()), 4)


PROMPTS: list[list[Span]] = [
    [LOOP],
    [TokenSpan(tuple(range(40, 60)))],
    [TokenSpan((40, 41)), tile(1), LOOP],
    [TokenSpan((40, 41)), tile(2), TokenSpan((44,))],
]


@pytest.fixture(autouse=True)
def always_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess always, however long a computation takes on the machine of the test."""
    monkeypatch.setattr(drafting, "worthwhile_length", lambda most, rate, cost: most)


@pytest.fixture(scope="module")
def plain(tiny: ModelFiles) -> Iterator[Engine]:
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=256, **EXACT) as session:
        yield engine_of(session)


@pytest.fixture(scope="module")
def guessing(tiny: ModelFiles) -> Iterator[Engine]:
    with Session.open(tiny.text, tiny.mmproj, n_draft=7, system="", n_ctx=256, **EXACT) as session:
        yield engine_of(session)


@pytest.mark.parametrize("prompt", PROMPTS, ids=["repeats", "does not", "picture, repeats", "picture"])
@pytest.mark.parametrize(
    "sampling",
    [
        LONG,
        SamplingParams(max_tokens=1),
        SamplingParams(max_tokens=10**6),
        SamplingParams(max_tokens=60, repeat_penalty=1.3),
        SamplingParams(max_tokens=60, temperature=1.0, top_k=3, top_p=1.0, seed=5),
    ],
    ids=["greedy", "one token", "to the end of the context", "penalties", "seeded"],
)
def test_the_text_is_the_same(plain: Engine, guessing: Engine, prompt: list[Span], sampling: SamplingParams) -> None:
    plain.forget()
    guessing.forget()
    expected = plain.submit(prompt, sampling)
    handle = guessing.submit(prompt, sampling)
    got = []
    for token in handle.stream():
        got.append(token)
        guessing.check_integrity()
    assert got == expected.result()
    assert handle.finish_reason == expected.finish_reason
    assert 0 <= handle.report.accepted_tokens <= handle.report.drafted_tokens
    assert expected.report.drafted_tokens == 0
    guessing.check_integrity()


def test_right_guesses_save_computations(guessing: Engine, decodes: list[str]) -> None:
    guessing.forget()
    decodes.clear()
    handle = guessing.submit([LOOP], LONG)
    assert len(handle.result()) == 120
    assert handle.report.accepted_tokens > 5
    assert len(decodes) == 120 - handle.report.accepted_tokens


def test_a_conversation_goes_on_from_guessed_tokens(tiny: ModelFiles) -> None:
    """The cache keeps right guesses for the next turn and no wrong ones."""
    asked = ["the thing in the ring " * 3, "And now?", "the thing in the ring"]
    replies = {}
    for n_draft in (0, 8):
        with Session.open(tiny.text, tiny.mmproj, n_draft=n_draft, system="", n_ctx=1024, **EXACT) as session:
            replies[n_draft] = [session.ask(prompt, sampling=SamplingParams(max_tokens=100)) for prompt in asked]
            session.runtime.engine.check_integrity()
    assert [reply.text for reply in replies[8]] == [reply.text for reply in replies[0]]
    assert [reply.usage.cached_tokens for reply in replies[8]] == [reply.usage.cached_tokens for reply in replies[0]]
    assert sum(reply.usage.drafted_tokens for reply in replies[8]) > 0
    assert sum(reply.usage.drafted_tokens for reply in replies[0]) == 0


def test_the_demo_model_says_the_same_with_guesses() -> None:
    picture = Path(__file__).parents[2] / "src/internvl_gguf/demo/example.png"
    answers = {}
    for n_draft in (0, 8):
        with Session.open("demo", n_draft=n_draft, n_threads=1, n_ctx=1024, embedding_disk_bytes=0) as session:
            first = session.ask("Describe the picture.", [picture])
            again = session.ask("Describe the picture.")
            answers[n_draft] = [first.text, again.text]
            if n_draft:
                assert again.usage.accepted_tokens > 0
    assert answers[8] == answers[0]


def test_answers_at_once_are_not_guessed(tiny: ModelFiles) -> None:
    """Several answers fill a batch by themselves; the last one that runs alone is guessed again."""
    with Session.open(tiny.text, tiny.mmproj, n_draft=4, n_parallel=2, system="", n_ctx=256, **EXACT) as session:
        engine = engine_of(session)
        handles = [engine.submit([LOOP], SamplingParams(max_tokens=count)) for count in (20, 60)]
        short, long = (handle.result() for handle in handles)
        assert long[:20] == short
        assert handles[0].report.drafted_tokens == 0
        assert handles[1].report.accepted_tokens > 0
        engine.check_integrity()


@pytest.mark.parametrize("place", ["decode_many", "likeliest_token", "use_logits"])
def test_ctrl_c_in_the_middle_of_guesses_loses_nothing(
    plain: Engine, guessing: Engine, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    plain.forget()
    expected = plain.submit([LOOP], LONG).result()
    guessing.forget()
    handle = guessing.submit([LOOP], LONG)
    first: list[int] = []
    while len(first) < 25:
        guessing.work_until(lambda: handle.is_readable)
        first += handle.ready()
    owner: Any = AnswerRequest if place == "use_logits" else Context
    native = getattr(owner, place)

    def interrupted(*arguments: Any) -> Any:
        native(*arguments)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, place, interrupted)

    def read_on() -> None:
        while handle.finish_reason is None:
            guessing.work_until(lambda: handle.is_readable)
            first.extend(handle.ready())

    with pytest.raises(KeyboardInterrupt):
        read_on()
    guessing.check_integrity()
    assert handle.finish_reason is None
    assert first + list(handle.stream()) == expected
    guessing.check_integrity()


def test_an_answer_given_up_leaves_no_guesses(guessing: Engine) -> None:
    guessing.forget()
    stream = guessing.submit([LOOP], LONG).stream()
    for _ in range(25):
        next(stream)
    assert isinstance(stream, Generator)
    stream.close()
    guessing.check_integrity()


def test_guesses_are_what_followed_the_last_time() -> None:
    lookup = PromptLookup([TokenSpan((1, 2, 3, 4, 5, 6, 7)), TokenSpan((9, 2, 3))])
    assert lookup.next_tokens(3) == [4, 5, 6]
    lookup.add(4)
    assert lookup.next_tokens(2) == [5, 6]
    lookup.add(8)
    assert lookup.next_tokens(2) == []


def test_no_guess_reaches_across_a_picture() -> None:
    assert PromptLookup([TokenSpan((1, 2, 3)), tile(1), TokenSpan((4, 1, 2))]).next_tokens(5) == [3]
    assert PromptLookup([TokenSpan((1,)), tile(1), TokenSpan((2, 7, 1)), tile(1), TokenSpan((2,))]).next_tokens(5) == []


def test_a_loop_is_guessed_on_and_on() -> None:
    assert PromptLookup([TokenSpan((1, 2, 3, 1, 2, 3))]).next_tokens(8) == [1, 2, 3, 1, 2, 3, 1, 2]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 10))
def test_a_guess_stood_in_the_text_after_the_same_two_tokens(tokens: list[int], limit: int) -> None:
    lookup = PromptLookup([TokenSpan(tuple(tokens[:1]))])
    for token in tokens[1:]:
        lookup.add(token)
    guess = lookup.next_tokens(limit)
    assert len(guess) in (0, limit)
    assert 0 <= lookup.rate <= 1
    if guess:
        said = [*tokens, *guess]
        pairs = [tuple(said[place : place + 3]) for place in range(len(tokens) - 2)]
        assert tuple(said[len(tokens) - 2 : len(tokens) + 1]) in pairs


@given(st.integers(0, 20), st.floats(0, 1), st.dictionaries(st.integers(1, 20), st.floats(1e-6, 10), max_size=6))
def test_a_guess_is_never_longer_than_it_may_be(most: int, rate: float, seconds: dict[int, float]) -> None:
    cost = DecodeCost()
    for n_tokens, each in seconds.items():
        cost.observe(n_tokens, each)
    length = worthwhile_length(most, rate, cost)
    assert 0 <= length <= most
    assert length == 0 or cost.has_single_token


def test_guessing_is_decided_by_what_it_costs_and_how_often_it_is_right() -> None:
    free, dear = DecodeCost(), DecodeCost()
    for n_tokens in range(1, 9):
        free.observe(n_tokens, 0.05)
        dear.observe(n_tokens, 0.05 * n_tokens)
    assert worthwhile_length(7, 0.9, free) == 7
    assert worthwhile_length(7, 0.0, free) == 0
    assert worthwhile_length(7, 0.99, dear) == 0
    assert worthwhile_length(7, 0.9, DecodeCost()) == 0, "one token has to be timed first"


def test_what_a_disturbance_made_dear_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "worthwhile_length", worthwhile_length)
    cost = DecodeCost()
    cost.observe(1, 0.05)
    cost.observe(5, 5.0)
    lookup = PromptLookup([TokenSpan((1, 2, 3, 4, 5) * 3)])
    guesses = 0
    for token in (1, 2, 3, 4, 5) * 40:
        if guess := lookup.guess(4, cost):
            guesses += 1
            cost.observe(1 + len(guess), 0.06)
        lookup.add(token)
    assert guesses > 100


def test_each_guess_and_each_candidate_has_its_row_of_logits_in_the_plan() -> None:
    assert MemoryRequest(2048, n_parallel=2, n_draft=6, n_candidates=1).outputs == 8
    assert MemoryRequest(2048, n_parallel=2, n_draft=6, n_candidates=8).outputs == 15


@pytest.mark.parametrize("values", [{"n_draft": -1}, {"n_draft": 65}, {"n_draft": 1.5}, {"n_draft": 40, "n_batch": 32}])
def test_lengths_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="n_draft"):
        EngineConfig(**{"n_ubatch": 32, **values})


def scored(engine: Engine, prompt: list[Span], n_scored: int) -> np.ndarray[Any, Any]:
    rows: list[Any] = []

    def keep(index: int, logits: Any) -> None:
        assert index == len(rows)
        rows.append(logits.copy())

    engine.submit_scores(prompt, n_scored, keep).result()
    engine.check_integrity()
    return np.stack(rows)


@pytest.mark.parametrize("prompt", PROMPTS, ids=["repeats", "does not", "picture, repeats", "picture"])
def test_scores_are_the_logits_after_each_position(plain: Engine, guessing: Engine, prompt: list[Span]) -> None:
    """One row at a time or eight at once, known before or not: the logits of single prompts."""
    last = prompt[-1]
    assert isinstance(last, TokenSpan)
    n_scored = min(len(last.ids), 11)
    expected = []
    for cut in range(n_scored - 1, -1, -1):
        shorter = [*prompt[:-1], TokenSpan(last.ids[: len(last.ids) - cut])]
        expected.append(plain.submit_logits(shorter).result())
    for engine in (plain, guessing):
        engine.forget()
        fresh = scored(engine, prompt, n_scored)
        again = scored(engine, prompt, n_scored)
        np.testing.assert_allclose(fresh, expected, atol=2e-4)
        np.testing.assert_allclose(again, expected, atol=2e-4)


def test_scores_beside_an_answer(tiny: ModelFiles, plain: Engine) -> None:
    plain.forget()
    answer = plain.submit(PROMPTS[2], LONG).result()
    rows = scored(plain, PROMPTS[0], 16)
    with Session.open(tiny.text, tiny.mmproj, n_draft=3, n_parallel=2, system="", n_ctx=256, **EXACT) as session:
        engine = engine_of(session)
        handle = engine.submit(PROMPTS[2], LONG)
        stream = handle.stream()
        first = next(stream)
        np.testing.assert_allclose(scored(engine, PROMPTS[0], 16), rows, atol=2e-4)
        assert [first, *stream] == answer
        engine.check_integrity()


def test_who_receives_scores_may_fail_or_give_up(guessing: Engine) -> None:
    def fail(index: int, logits: Any) -> None:
        if index == 3:
            raise ArithmeticError("enough")

    with pytest.raises(ArithmeticError, match="enough"):
        guessing.submit_scores([LOOP], 10, fail).result()
    guessing.check_integrity()
    for count in (0, 19):
        with pytest.raises(ValueError, match="positions to score"):
            guessing.submit_scores([LOOP], count, fail)
    with pytest.raises(ValueError, match="positions to score"):
        guessing.submit_scores([tile(1), TokenSpan((44,))], 2, fail)
    assert len(scored(guessing, [LOOP], 10)) == 10
