"""Many requests at once: each is answered as it would be alone, whatever the others do, and the ledgers hold."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_gguf import (
    InternVLError,
    InvalidRequestError,
    LibraryError,
    PictureError,
    Question,
    Reply,
    SamplingParams,
    Session,
)
from internvl_gguf.config import EngineConfig
from internvl_gguf.engine import Engine, Handle
from internvl_gguf.engine.request import AnswerRequest
from internvl_gguf.errors import SessionStateError
from internvl_gguf.llama.context import Context, TokenRun
from internvl_gguf.llama.model import TextModel
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.types import Span, Tile, TileSpan, TokenSpan
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.sessions import engine_of

SHORT = SamplingParams(max_tokens=12)
SEEDED = SamplingParams(max_tokens=12, temperature=1.5, top_k=0, top_p=1.0, seed=7)
QUESTIONS = [
    Question("What is it?", [noise(1)]),
    Question("What is it?"),
    Question("And this?", [noise(1)]),
    Question("Tell me.", options={"sampling": SEEDED}),
    Question("the thing in the ring " * 4, [noise(2), noise(1)], {"max_tiles": 1}),
    Question("Where?", [noise(2)], {"sampling": SEEDED}),
    Question("Who are you?", system="Be long."),
]


@pytest.fixture(scope="module")
def expected(tiny: ModelFiles) -> list[str]:
    """The answer to each question when it is asked alone."""
    answers = []
    with Session.open(tiny.text, tiny.mmproj, system="Be brief.", n_ctx=256, **EXACT) as session:
        for question in QUESTIONS:
            (reply,) = session.batch([question], sampling=SHORT)
            assert isinstance(reply, Reply)
            answers.append(reply.text)
            engine_of(session).forget()
    return answers


@pytest.fixture
def several(tiny: ModelFiles) -> Iterator[Session]:
    """Three sequences, and batches so small that every prompt is read in pieces."""
    with Session.open(
        tiny.text, tiny.mmproj, n_parallel=3, n_batch=32, n_ubatch=8, system="Be brief.", n_ctx=256, **EXACT
    ) as session:
        yield session


def checked(monkeypatch: pytest.MonkeyPatch, session: Session) -> list[int]:
    """Check the ledgers after every step; the list counts them."""
    scheduler = engine_of(session)._scheduler
    step, steps = scheduler.step, [0]

    def step_and_check() -> None:
        step()
        scheduler.sequences.check_integrity()
        steps[0] += 1

    monkeypatch.setattr(scheduler, "step", step_and_check)
    return steps


@pytest.mark.parametrize("n_parallel", [1, 2, 3, 8])
def test_batched_answers_equal_single_ones(
    tiny: ModelFiles, expected: list[str], n_parallel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session.open(tiny.text, tiny.mmproj, n_parallel=n_parallel, system="Be brief.", n_ctx=256, **EXACT) as session:
        steps = checked(monkeypatch, session)
        replies = session.batch(QUESTIONS, sampling=SHORT)
        assert [reply.text for reply in replies if isinstance(reply, Reply)] == expected
        assert steps[0] > 12
        assert [message.role for message in session.messages] == ["system"]


def test_the_demo_model_says_the_same_alone_and_in_company() -> None:
    """BF16 weights, where rounding makes more of last bits that differ with the batch (docs/parity.md)."""
    picture = Path(__file__).parents[2] / "src/internvl_gguf/demo/example.png"
    asked = ["What number is written?", "What colour is the circle?", "How many shapes are there?"]
    with Session.open("demo", n_threads=1, n_ctx=512, n_parallel=3, embedding_disk_bytes=0) as session:
        together = session.batch([Question(prompt, [picture]) for prompt in asked])
        alone = []
        for prompt in asked:
            engine_of(session).forget()
            alone += session.batch([Question(prompt, [picture])])
    assert [reply.text for reply in together] == [reply.text for reply in alone] == ["98", "Red.", "Two."]


@pytest.mark.parametrize("n_rows", [2, 5])
def test_logits_of_a_shared_batch_are_those_of_single_ones_but_for_rounding(tiny: ModelFiles, n_rows: int) -> None:
    draw = random.Random(n_rows)
    prompts = [[draw.randrange(200) for _ in range(draw.randrange(1, 40))] for _ in range(n_rows)]
    config = EngineConfig(n_parallel=n_rows, kv_type="f32", flash_attn=False)
    with closing(TextModel(tiny.text)) as model, closing(Context(model, config, n_ctx=64, n_threads=1)) as context:
        alone = []
        for prompt in prompts:
            (row,) = context.decode_many([TokenRun(prompt, 0, 0, 1)])
            alone.append(context.logits(row).copy())
            context.cut(0, 0)
        rows = context.decode_many([TokenRun(prompt, 0, index, 1) for index, prompt in enumerate(prompts)])
        for row, logits in zip(rows, alone, strict=True):
            assert np.abs(context.logits(row) - logits).max() < 1e-5 * np.abs(logits).max()
            assert context.likeliest_token(row) == int(logits.argmax())


def test_batches_that_would_end_the_process_do_not_reach_the_library(tiny: ModelFiles) -> None:
    config = EngineConfig(n_parallel=2, n_candidates=1, n_batch=8, n_ubatch=8)
    with closing(TextModel(tiny.text)) as model, closing(Context(model, config, n_ctx=64, n_threads=1)) as context:
        for runs in (
            [],
            [TokenRun([], 0, 0, 1)],
            [TokenRun([1] * 9, 0, 0, 1)],
            [TokenRun([1] * 5, 0, 0, 1), TokenRun([1] * 5, 0, 1, 1)],
            [TokenRun([1], 0, 0, 1), TokenRun([1], 1, 0, 1)],
            [TokenRun([1], 0, 2, 1)],
            [TokenRun([1], 0, -1, 1)],
        ):
            with pytest.raises(ValueError, match=r"batch|run"):
                context.decode_many(runs)
        with pytest.raises(LibraryError):
            context.decode_many([TokenRun([10**6], 0, 0, 1)])
        with pytest.raises(InvalidRequestError, match="n_parallel"):
            EngineConfig(n_parallel=9, n_batch=8, n_ubatch=8)


def tile(seed: int) -> TileSpan:
    return TileSpan(Tile(bytes([seed]) * 16, noise(seed, 32, 32).tobytes()), 4)


def text(seed: int, length: int) -> TokenSpan:
    return TokenSpan(tuple(np.random.default_rng(seed).integers(40, 120, length).tolist()))


PROMPTS: list[list[Span]] = [
    [text(1, 20)],
    [text(1, 20), text(2, 5)],
    [text(1, 9), tile(1), tile(2), tile(3), text(3, 4)],
    [text(1, 9), tile(1), tile(2), tile(4), tile(1), text(3, 4)],
    [text(4, 1)],
    [tile(5), text(5, 70)],
]


@pytest.fixture(scope="module")
def shared(tiny: ModelFiles) -> Iterator[Engine]:
    """An engine for the examples of a property, with small batches and nothing remembered of tiles."""
    with Session.open(
        tiny.text,
        tiny.mmproj,
        n_parallel=3,
        n_batch=16,
        n_ubatch=8,
        embedding_cache_bytes=0,
        system="Be brief.",
        n_ctx=256,
        **EXACT,
    ) as session:
        yield engine_of(session)


@pytest.fixture(scope="module")
def alone(shared: Engine) -> list[list[int]]:
    """The answer to each prompt when it is submitted alone."""
    answers = []
    for prompt in PROMPTS:
        shared.forget()
        answers.append(shared.submit(prompt, SHORT).result())
    return answers


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("submit"), st.integers(0, len(PROMPTS) - 1)),
            st.tuples(st.sampled_from(["read", "cancel", "logits", "embed", "forget"]), st.integers(0, 5)),
            st.tuples(st.just("read"), st.integers(0, 5)),
        ),
        max_size=25,
    )
)
def test_requests_come_and_go_at_any_time(
    shared: Engine, alone: list[list[int]], actions: list[tuple[str, int]]
) -> None:
    """Whatever goes on in between, the ledgers hold, and each prompt is answered as it is alone."""
    under_way: list[tuple[int, Handle, Iterator[int]]] = []
    for action, number in actions:
        if action == "submit":
            handle = shared.submit(PROMPTS[number], SHORT)
            under_way.append((number, handle, handle.stream()))
        elif action == "forget":
            shared.forget()
        elif action == "embed":
            shared.embed([tile(number).tile])
        elif action == "logits":
            logits = shared.submit_logits(PROMPTS[number]).result()
            assert int(logits.argmax()) == (alone[number] or [int(logits.argmax())])[0]
        elif under_way:
            prompt, handle, tokens = under_way[number % len(under_way)]
            if action == "read":
                next(tokens, None)
            else:
                handle.cancel()
                assert list(tokens) == []
                assert handle.tokens == alone[prompt][: len(handle.tokens)]
                under_way.remove((prompt, handle, tokens))
        shared.check_integrity()
    for prompt, handle, tokens in under_way:
        assert [*handle.tokens, *tokens] == alone[prompt]
    shared.check_integrity()


def test_more_requests_than_sequences_wait_in_order(several: Session) -> None:
    engine = engine_of(several)
    handles = [engine.submit([text(seed, 10)], SamplingParams(max_tokens=3 + seed % 4)) for seed in range(8)]
    begun: list[int] = []
    while not all(handle.is_readable and not list(handle.ready()) for handle in handles):
        engine.work_until(lambda: any(handle.is_readable for handle in handles if not handle.is_over))
        begun += [index for index, handle in enumerate(handles) if list(handle.ready()) and index not in begun]
        running = [index for index in begun if not handles[index].is_over]
        assert len(running) <= engine.n_parallel
    assert begun == sorted(begun)
    engine.check_integrity()


def test_a_long_picture_does_not_stall_an_answer_under_way(several: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer gets a token between any two tiles of another request's picture."""
    engine = engine_of(several)
    assert engine.vision is not None
    events: list[str] = []
    encode = engine.vision.encode
    monkeypatch.setattr(engine.vision, "encode", lambda tiles: (events.append("tile"), encode(tiles))[1])
    first = engine.submit([text(1, 10)], SamplingParams(max_tokens=60, temperature=2.0, seed=1))
    stream = first.stream()
    next(stream)
    tiles = [tile(seed) for seed in range(1, 14)]
    second = engine.submit([text(2, 5), *tiles, text(3, 3)], SHORT)
    while not second.is_readable and next(stream, None) is not None:
        events.append("token")
    places = [index for index, event in enumerate(events) if event == "tile"]
    assert len(places) == 13
    assert all(right - left > 1 for left, right in pairwise(places))


def test_what_prompts_begin_with_is_computed_once(several: Session) -> None:
    """Submitted together, they wait for the first of them to read the picture and copy it."""
    replies = several.batch([Question(f"{word}?", [noise(3)]) for word in ("What", "Where", "Who", "When")])
    usages = [reply.usage for reply in replies if isinstance(reply, Reply)]
    assert [usage.tiles_encoded for usage in usages] == [13, 0, 0, 0]
    assert [usage.cached_tokens > 13 * 4 for usage in usages] == [False, True, True, True]


def test_a_batch_goes_on_from_the_conversation_and_leaves_it(several: Session) -> None:
    several.ask("What is it?", [noise(1)], sampling=SHORT)
    before = several.messages
    left, right = several.batch(["Left?", "Right?"], sampling=SHORT)
    assert several.messages == before
    assert isinstance(left, Reply)
    assert isinstance(right, Reply)
    assert left.usage.images == 1
    assert left.usage.tiles_encoded == 0
    assert several.ask("Right?", sampling=SHORT).text == right.text


def test_one_that_fails_is_an_outcome_and_the_others_go_on(several: Session, expected: list[str]) -> None:
    told: dict[int, object] = {}
    replies = several.batch(
        [
            Question("What?", ["/no/such/picture.png"]),
            QUESTIONS[0],
            Question("What?", options={"tiles": 3}),
            Question("x" * 1000),
            QUESTIONS[1],
            {"prompt": "What?"},  # type: ignore[list-item]
        ],
        sampling=SHORT,
        on_result=told.__setitem__,
    )
    assert [type(reply) for reply in replies[::2]][:1] == [PictureError]
    assert isinstance(replies[2], InvalidRequestError)
    assert isinstance(replies[3], InvalidRequestError)
    assert isinstance(replies[5], InvalidRequestError)
    texts = [reply.text for reply in replies if isinstance(reply, Reply)]
    assert texts == expected[:2]
    assert [told[index] for index in range(6)] == replies


@pytest.mark.parametrize("count", [0, 1, 20])
def test_every_question_has_an_outcome_where_all_fail(several: Session, count: int) -> None:
    replies = several.batch(Question("What?", [f"/no/such/{number}.png"]) for number in range(count))
    assert [f"/no/such/{number}.png" in str(reply) for number, reply in enumerate(replies)] == [True] * count


def test_an_error_of_the_library_ends_the_request_it_belongs_to(
    several: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(several)
    expected = engine.submit(PROMPTS[1], SHORT).result()
    engine.forget()
    native = Context.decode_many

    def decode_many(context: Context, runs: list[TokenRun]) -> list[int]:
        if any(run.tokens[-1] == bad for run in runs):
            raise LibraryError("llama.cpp failed.", "Try again.")
        return native(context, runs)

    bad = 333 % engine.model.n_vocab
    monkeypatch.setattr(Context, "decode_many", decode_many)
    good = engine.submit(PROMPTS[1], SHORT)
    broken = engine.submit([TokenSpan((41, 42, bad))], SHORT)
    other = engine.submit([text(6, 12)], SHORT)
    with pytest.raises(LibraryError):
        broken.result()
    with pytest.raises(LibraryError):
        broken.result()
    assert broken.finish_reason is None
    assert good.result() == expected
    assert other.result()
    engine.check_integrity()


def test_a_progress_callback_that_fails_ends_its_own_request(several: Session) -> None:
    def fail(done: int, total: int) -> None:
        if done:
            raise RuntimeError("mine")

    engine = engine_of(several)
    good = engine.submit(PROMPTS[1], SHORT)
    broken = engine.submit(PROMPTS[2], SHORT, fail)
    assert good.result() is not None
    with pytest.raises(RuntimeError, match="mine"):
        broken.result()
    assert engine.submit(PROMPTS[2], SHORT).result() is not None
    engine.check_integrity()


def test_a_progress_callback_cannot_ask(several: Session) -> None:
    """The callback would wait for the step that waits for the callback."""
    caught: list[str] = []

    def ask(done: int, total: int) -> None:
        try:
            fork.ask("And?")
        except SessionStateError as error:
            caught.append(error.message)

    several.on_tiles(ask)
    with several.fork() as fork:
        fork.on_tiles(None)
        assert several.ask("What is it?", [noise(1)], max_tiles=1, sampling=SHORT).usage.tiles == 1
    assert len(caught) == 2
    assert "callback" in caught[0]


def test_forks_in_threads_are_answered_together(several: Session, expected: list[str]) -> None:
    """More threads than sequences, each asking twice; every answer is the one it would get alone."""
    answers: list[tuple[int, str]] = []

    def ask(index: int, fork: Session) -> None:
        for _ in range(2):
            text = fork.ask(QUESTIONS[index].prompt, QUESTIONS[index].images, sampling=SHORT).text
            answers.append((index, text))
            fork.clear()
        fork.close()

    threads = [threading.Thread(target=ask, args=(index, several.fork())) for index in (0, 1, 2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted([(index, expected[index]) for index in (0, 1, 2, 1, 0)] * 2)
    several.runtime.engine.check_integrity()


def test_a_thread_that_leaves_hands_the_work_on(several: Session) -> None:
    """The first thread to work stops reading; the thread that waits for the other answer works for both."""
    engine = engine_of(several)
    paused = engine.submit([text(1, 10)], SHORT).stream()
    next(paused)
    found: list[list[int]] = []
    thread = threading.Thread(target=lambda: found.append(engine.submit([text(2, 10)], SHORT).result()))
    thread.start()
    thread.join()
    assert found[0] == engine.submit([text(2, 10)], SHORT).result()
    assert list(paused)


def test_cancelled_from_another_thread_it_ends_and_the_others_do_not(several: Session) -> None:
    engine = engine_of(several)
    expected = engine.submit(PROMPTS[0], SHORT).result()
    endless = engine.submit([text(9, 5)], SamplingParams(max_tokens=200, temperature=3.0, top_k=0, top_p=1.0, seed=2))
    stream = endless.stream()
    next(stream)
    thread = threading.Thread(target=endless.cancel)
    thread.start()
    thread.join()
    assert list(stream) == []
    assert endless.finish_reason == "aborted"
    assert engine.submit(PROMPTS[0], SHORT).result() == expected
    assert not any(engine._scheduler.sequences.is_taken)


def test_each_gives_questions_with_their_outcomes_as_they_end(several: Session) -> None:
    """The questions come back as they were given, whatever a subclass of `Question` has beside them."""
    asked: list[Question | str] = [
        Question("Left?", noise(1)),
        "Right?",
        Question("Up?", "/no/such.png"),
        Question("Down?", noise(2)),
    ]
    expected = several.batch(asked, sampling=SHORT)
    found = list(several.each(iter(asked), sampling=SHORT))
    assert len(found) == len(asked)
    for question, outcome in found:
        index = next(number for number, each in enumerate(asked) if each is question)
        wanted = expected[index]
        if isinstance(wanted, InternVLError):
            assert str(outcome) == str(wanted)
        else:
            assert isinstance(outcome, Reply)
            assert outcome.text == wanted.text


@given(taken=st.integers(0, 30))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_reads_no_more_questions_than_it_needs(several: Session, taken: int) -> None:
    """Of questions without end, those answered, as many under way and as many again are read; closing ends it."""
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"Question {read}?"

    n_parallel = several.runtime.engine.n_parallel
    with closing(several.each(endless(), sampling=SamplingParams(max_tokens=1))) as outcomes:
        for count in range(taken):
            next(outcomes)
            assert read <= count + 1 + 2 * n_parallel + 1
    assert several.ask("Still there?", sampling=SHORT).text
    several.clear()


def test_one_at_a_time_is_said_once_where_nobody_chose_it(tiny: ModelFiles, notices: list[str]) -> None:
    def asked(count: int, **options: Any) -> list[str]:
        notices.clear()
        with Session.open(
            tiny.text, tiny.mmproj, n_ctx=256, system="", on_notice=notices.append, **EXACT, **options
        ) as session:
            for _ in range(2):
                session.batch(["Hello?"] * count, max_tokens=1)
        return list(notices)

    (line,) = asked(2)
    assert "n_parallel=4" in line
    assert asked(1) == asked(2, n_parallel=1) == asked(2, n_parallel=2) == []


def test_abort_ends_a_batch(several: Session) -> None:
    endless = SamplingParams(max_tokens=200, temperature=3.0, top_k=0, top_p=1.0, seed=2)

    def stop(index: int, outcome: object) -> None:
        several.abort()

    replies = several.batch(
        [Question("Short?", options={"sampling": SHORT}), *["Tell me."] * 6], on_result=stop, sampling=endless
    )
    assert len(replies) == 7
    assert all(isinstance(reply, SessionStateError) or reply.finish_reason != "length" for reply in replies[1:])
    assert isinstance(replies[-1], SessionStateError)
    assert several.ask("Still there?", sampling=SHORT).text


def test_closing_ends_what_is_under_way(several: Session) -> None:
    stream = several.stream("Tell me.", sampling=SamplingParams(max_tokens=100, temperature=3.0, seed=1))
    next(stream)
    engine = engine_of(several)
    waiting = engine.submit([text(1, 3)], SHORT)
    several.close()
    with pytest.raises(SessionStateError, match="closed"):
        list(stream)
    with pytest.raises(SessionStateError, match="closed"):
        waiting.result()
    with pytest.raises(SessionStateError, match="closed"):
        engine.submit([text(1, 3)], SHORT)
    with pytest.raises(SessionStateError, match="closed"):
        engine.embed([tile(1).tile])


@pytest.mark.parametrize("place", ["decode_token", "likeliest_token", "append"])
def test_ctrl_c_between_any_two_lines_leaves_the_others_right(
    several: Session, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Ctrl-C can interrupt the inner step of an answer that runs alone: its leftovers are cut away."""
    engine = engine_of(several)
    expected = engine.submit(PROMPTS[1], SHORT).result()
    engine.forget()
    handle = engine.submit(PROMPTS[1], SHORT)
    stream = handle.stream()
    first = [next(stream), next(stream)]
    owner, name = {"append": (AnswerRequest, "use_logits")}.get(place, (Context, place))
    native = getattr(owner, name)

    def interrupted(*arguments: object) -> object:
        native(*arguments)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.work_until(lambda: handle.is_readable)
    engine.check_integrity()
    assert first + list(stream) == expected
    engine.check_integrity()


CHILD = """
import sys
from internvl_gguf import Question, SamplingParams, Session
from tests.support.pictures import noise

sampling = SamplingParams(max_tokens=1500, temperature=2.0, top_k=0, top_p=1.0, seed=1)
with Session.open(sys.argv[1], sys.argv[2], n_threads=1, system="", n_parallel=3, embedding_disk_bytes=0) as session:
    told = []
    def tell(index, outcome):
        told.append(index)
        if len(told) == 4:
            print("ready", flush=True)
    try:
        questions = (Question("What is it?", [noise(seed)]) for seed in range(10**6))
        session.batch(questions, on_result=tell, sampling=sampling)
    except KeyboardInterrupt:
        print("interrupted", len(told) >= 4, flush=True)
    session.runtime.engine.check_integrity()
    print("alive", session.ask("Still there?", sampling=SamplingParams(max_tokens=4)).usage.prompt_tokens > 0)
"""


def test_ctrl_c_ends_a_batch_and_the_session_answers_again(tiny: ModelFiles) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tiny.text), str(tiny.mmproj)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert output == "interrupted True\nalive True\n"
    assert errors == ""
