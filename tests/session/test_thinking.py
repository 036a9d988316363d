"""Thinking before the answer: asked for, told apart, bounded, kept or dropped; with models whose thoughts are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf import InvalidRequestError, Question, Reply, SamplingParams, Session
from internvl_gguf.config import AskOptions
from internvl_gguf.engine.kv_ledger import total_length
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.session.answer import AnswerStream
from internvl_gguf.session.prompt_spans import prompt_spans
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from internvl_gguf.session.thinking import THINKING_SYSTEM, Place, ThoughtReader, with_thinking
from internvl_gguf.types import Message, TokenSpan
from tests.support.chain_model import THINKING, write_chain_model
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.tiny_models import write_tiny_mmproj, write_tiny_text

THOUGHTFUL = ("<think>", "\t", "Hm, red?", " No.", "\r", "</think>", " ", "Blue", ".")
"""White space around thought and answer is not shown."""
THOUGHT, ANSWER = "Hm, red? No.", "Blue."
ENDLESS = ("a", "b", "a")
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 64}


def write(folder: Path, name: str, answer: tuple[str, ...]) -> ModelFiles:
    return write_chain_model(folder, answer, name, **THINKING)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFiles]:
    """Models by the way they answer."""
    folder = tmp_path_factory.mktemp("thinking")
    answers = {
        "thoughtful": THOUGHTFUL,
        "endless": ENDLESS,
        "curt": ("Blue", "."),
        "broken off": ("<think>", "Hm, red?"),
        "doubled": ("<think>", "\t", "<think>"),
    }
    return {name: write(folder, name, answer) for name, answer in answers.items()}


def opened(files: ModelFiles, **options: Any) -> Session:
    return Session.open(files.text, files.mmproj, **{"n_ctx": 1024, **EXACT, **options})


@pytest.fixture
def thoughtful(models: dict[str, ModelFiles]) -> Iterator[Session]:
    """A conversation with a model that thinks."""
    with opened(models["thoughtful"]) as session:
        yield session


def prompt(session: Session) -> str:
    """The prompt of the conversation so far, as text with its tags."""
    names = {token: name for name, token in session.runtime.control_tokens.items()}
    spans = prompt_spans(session.runtime, session.messages, (), session._sampling)  # as it is saved
    tokens = [token for span in spans if isinstance(span, TokenSpan) for token in span.ids]
    piece = session.runtime.engine.model.piece
    return b"".join(names[each].encode() if each in names else piece(each) for each in tokens).decode()


def check_thoughtful(reply: Reply) -> None:
    assert (reply.text, reply.thinking, reply.finish_reason) == (ANSWER, THOUGHT, "stop")
    assert (reply.usage.completion_tokens, reply.usage.thinking_tokens) == (9, 7)


def test_a_thought_is_no_part_of_the_answer(thoughtful: Session) -> None:
    reply = thoughtful.ask("What color?", thinking=True, **GREEDY)
    check_thoughtful(reply)
    message = thoughtful.messages[-1]
    assert (message.text, message.thinking.strip()) == (ANSWER, THOUGHT)
    assert reply.to_dict()["thinking"] == THOUGHT


def test_a_model_that_thinks_unasked_is_read_in_the_same_way(thoughtful: Session) -> None:
    check_thoughtful(thoughtful.ask("What color?", **GREEDY))
    assert OFFICIAL_SYSTEM in prompt(thoughtful)


def test_a_stream_tells_thought_and_answer_apart(thoughtful: Session) -> None:
    chunks = list(thoughtful.stream("What color?", thinking=True, **GREEDY))
    assert "".join(chunk.thinking for chunk in chunks).strip() == THOUGHT
    assert "".join(chunk.text for chunk in chunks) == ANSWER
    kinds = [bool(chunk.text) for chunk in chunks if chunk.text or chunk.thinking]
    assert kinds == sorted(kinds)  # the thought comes first
    assert not any(chunk.text and chunk.thinking for chunk in chunks)


def test_thinking_is_asked_for_by_the_published_system_text(thoughtful: Session) -> None:
    thoughtful.ask("What color?", thinking=True, **GREEDY)
    assert prompt(thoughtful).startswith(f"<|im_start|>system\n{THINKING_SYSTEM}<|im_end|>\n<|im_start|>user\n")
    assert thoughtful.messages[0].text == OFFICIAL_SYSTEM  # the conversation's own stays


def test_a_system_message_of_the_users_own_stays_behind_it() -> None:
    asks = SamplingParams(thinking=True)
    texts = {own: with_thinking(conversation(own), asks)[0].text for own in ("", "Be brief.", OFFICIAL_SYSTEM)}
    assert texts == {
        "": THINKING_SYSTEM,
        "Be brief.": f"{THINKING_SYSTEM}\n\nBe brief.",
        OFFICIAL_SYSTEM: THINKING_SYSTEM,
    }
    assert with_thinking(conversation("Be brief."), SamplingParams())[0].text == "Be brief."


def conversation(system: str) -> list[Message]:
    first = [Message("system", system)] if system else []
    return [
        *first,
        Message("user", "Why?"),
        Message("assistant", "So.", tokens=(1, 2), thinking="Hm"),
        Message("user", "?"),
    ]


def test_the_next_prompt_has_earlier_thoughts_unless_they_are_dropped(thoughtful: Session) -> None:
    thoughtful.ask("What color?", **GREEDY)
    thoughtful.ask("And now?", **GREEDY)
    assert prompt(thoughtful).count(THOUGHT) == 2
    kept = thoughtful.ask("And then?", **GREEDY).usage
    thoughtful.undo()
    dropped = thoughtful.ask("And then?", keep_thinking=False, **GREEDY).usage
    # Two answers of nine sampled tokens; "Blue." alone is five letters.
    assert kept.prompt_tokens - dropped.prompt_tokens == 2 * (9 - 5)
    assert prompt(thoughtful).count(THOUGHT) == 1  # of the last answer
    assert kept.cached_tokens > dropped.cached_tokens


def test_nothing_of_a_conversation_with_thoughts_is_read_twice(thoughtful: Session) -> None:
    first = thoughtful.ask("What color?", noise(1), **GREEDY).usage
    second = thoughtful.ask("And now?", **GREEDY).usage
    assert second.cached_tokens == first.prompt_tokens + first.completion_tokens


def test_a_model_is_kept_from_thinking_by_an_empty_thought(models: dict[str, ModelFiles]) -> None:
    with opened(models["curt"]) as session:
        bare = session.ask("What color?", **GREEDY)
        session.undo()
        reply = session.ask("What color?", thinking=False, **GREEDY)
        assert (reply.text, reply.thinking, reply.usage.thinking_tokens) == (ANSWER, "", 0)
        assert reply.usage.prompt_tokens == bare.usage.prompt_tokens + 4
        assert prompt(session).endswith(f"assistant\n<think>\n</think>\n{ANSWER}<|im_end|>\n<|im_start|>assistant\n")
        again = session.ask("And now?", thinking=False, **GREEDY)
        assert again.usage.cached_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_thought_ends_at_its_budget(models: dict[str, ModelFiles]) -> None:
    with opened(models["endless"]) as session:
        reply = session.ask("What color?", thinking_budget=5, temperature=0.0, max_tokens=20)
        assert (reply.thinking, reply.finish_reason) == ("ababa", "length")
        assert reply.text == "ab" * 6  # 20 tokens less 5 of the thought and 3 that end it
        assert (reply.usage.thinking_tokens, reply.usage.completion_tokens) == (8, 20)
        assert prompt(session).count("<think>\nababa\n</think>\nabab") == 1


def test_an_answer_cut_off_in_its_thought_says_so(models: dict[str, ModelFiles]) -> None:
    with opened(models["thoughtful"]) as session:
        reply = session.ask("What color?", thinking=True, temperature=0.0, max_tokens=3)
        assert (reply.text, reply.thinking, reply.finish_reason) == ("", "Hm, red?", "length")
        assert "inside its thought" in reply.notices[-1]


@pytest.mark.parametrize("name", ["thoughtful", "broken off", "doubled"])
@pytest.mark.parametrize("n_draft", [0, 4])
def test_the_form_of_an_answer_begins_behind_its_thought(
    models: dict[str, ModelFiles], name: str, n_draft: int
) -> None:
    """Also where the model ends its turn inside the thought, or opens it again and again."""
    with opened(models[name], n_draft=n_draft) as session:
        budget = {"thinking_budget": 6} if name == "doubled" else {}
        asks: dict[str, Any] = {**GREEDY, "thinking": True, **budget}
        reply = session.ask("What color?", choices=["red", "dark blue"], **asks)
        assert reply.parsed in ("red", "dark blue")
        assert reply.text == reply.parsed
        assert reply.thinking == {"thoughtful": THOUGHT, "broken off": "Hm, red?", "doubled": ""}[name]
        again = session.ask("What color?", schema="n int", **asks)
        assert set(again.parsed) == {"n"} or again.finish_reason == "length"
        session.runtime.engine.check_integrity()


@pytest.mark.parametrize("name", ["thoughtful", "broken off"])
def test_logprobs_change_nothing_in_a_thought_or_its_end(models: dict[str, ModelFiles], name: str) -> None:
    """With them what has to follow is computed token by token; one was so twice where a turn ended in a thought."""
    asks = cast("AskOptions", {"choices": ["red"], "thinking": True, **GREEDY})
    with opened(models[name]) as session:
        question = session._prepare("What color?", (), asks)
        replies = []
        for top in (None, 2):
            answer = AnswerStream(session.runtime, question, session.messages, None, top_logprobs=top)
            list(answer.pieces())
            answer.finish()
            replies.append((answer.reply().parsed, answer.reply().thinking, tuple(answer.handle.tokens)))
        assert replies[0] == replies[1]
        assert replies[0][0] == "red"
        assert [each.token for each in answer.handle.logprobs] == answer.handle.tokens
        spans = [*question.spans, TokenSpan(tuple(answer.handle.tokens))]
        held = session.runtime.engine.export(spans)
        assert held is not None
        assert total_length(held[0]) >= total_length(spans) - 1  # all but the last token, in this order


def test_a_form_without_a_thought_binds_the_answer_from_its_beginning(thoughtful: Session) -> None:
    reply = thoughtful.ask("What color?", choices=["red", "green"], **GREEDY)
    assert reply.thinking == ""
    assert reply.parsed in ("red", "green")


def test_questions_of_a_batch_think_for_themselves(models: dict[str, ModelFiles]) -> None:
    with opened(models["thoughtful"], n_parallel=2) as session:
        questions = [Question("What color?", thinking=think) for think in (True, None)]
        for reply in session.batch(questions, **GREEDY):
            assert isinstance(reply, Reply)
            check_thoughtful(reply)


def test_a_worker_and_a_saved_session_keep_thoughts(models: dict[str, ModelFiles], tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with opened(models["thoughtful"], worker=True) as session:
        check_thoughtful(session.ask("What color?", thinking=True, **GREEDY))
        form = session.ask("What color?", choices=["red"], thinking_budget=3, **GREEDY)
        assert (form.parsed, form.usage.thinking_tokens) == ("red", 6)  # three, and three that end the thought
        messages = session.messages
        session.save(path)
    with Session.restore(path, **EXACT) as restored:
        assert restored.messages == messages
        usage = restored.ask("And now?", thinking=True, **GREEDY).usage
        assert usage.cached_tokens > usage.prompt_tokens - 40


def test_a_conversation_goes_on_with_a_model_that_cannot_think(
    models: dict[str, ModelFiles], tmp_path: Path, thoughtful: Session
) -> None:
    thoughtful.ask("What color?", thinking=True, **GREEDY)
    text, mmproj = write_tiny_text(tmp_path / "text.gguf"), write_tiny_mmproj(tmp_path / "mmproj.gguf")
    with Session.open(text, mmproj, **EXACT) as plain:
        plain.continue_with(thoughtful.messages)
        assert "think" not in prompt(plain)
        assert f"assistant\n{ANSWER}<|im_end|>" in prompt(plain)
        with pytest.raises(InvalidRequestError) as caught:
            plain.ask("And now?", thinking=True)
        assert caught.value.message == "text.gguf cannot think: there is no <think> in the vocabulary."
        assert "InternVL3.5" in caught.value.hint
        plain.ask("And now?", thinking=False, max_tokens=2)  # as it answers anyway
        thoughtful.continue_with(plain.messages)


def test_thinking_has_a_sampling_of_its_own_unless_it_is_given() -> None:
    default, thinking = SamplingParams(), SamplingParams(thinking=True)
    assert [each.effective_temperature for each in (default, thinking)] == [0.0, 0.6]
    assert [each.effective_top_p for each in (default, thinking)] == [0.8, 0.95]
    assert [each.effective_max_tokens for each in (default, thinking)] == [1024, 4096]
    given_ = SamplingParams(thinking=True, temperature=0.0, top_p=1.0, max_tokens=7)
    assert (given_.effective_temperature, given_.effective_top_p, given_.effective_max_tokens) == (0.0, 1.0, 7)
    assert SamplingParams(thinking_budget=9).thinks


def test_no_thought_and_a_budget_for_it_contradict_each_other() -> None:
    with pytest.raises(InvalidRequestError, match="no thought that thinking_budget=9 could end"):
        SamplingParams(thinking=False, thinking_budget=9)
    with pytest.raises(InvalidRequestError, match="could end"):
        SamplingParams().changed({"thinking": False, "thinking_budget": 9})


def test_what_is_said_last_about_thinking_counts() -> None:
    """One line of a batch, a request, /think: each may take back what was said for all of them."""
    budget, none = SamplingParams(thinking_budget=9), SamplingParams(thinking=False)
    assert budget.changed({"thinking": False}) == none
    assert none.changed({"thinking_budget": 9}) == budget
    assert budget.changed({"top_k": 3}).thinks


def test_the_error_calls_the_model_as_it_was_called() -> None:
    """`demo` was called demo-text-BF16.gguf."""
    with Session.open("demo", n_threads=1, n_ctx=1024) as demo:
        with pytest.raises(InvalidRequestError, match="demo cannot think"):
            demo.ask("What is red?", thinking=True)
        assert demo.ask("What is red?", thinking=False, max_tokens=2).text


@pytest.mark.parametrize("wrong", [{"thinking": 1}, {"thinking": "yes"}, {"thinking_budget": 0}, {"keep_thinking": 3}])
def test_wrong_values_are_refused(thoughtful: Session, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        thoughtful.ask("What color?", **wrong)


TAGS = (("<think>", 1), ("</think>", 2))
PIECES = {1: b"<think>", 2: b"</think>", 3: b"\n", 4: b" ", 5: b"a", 6: b" b"}


@given(st.lists(st.sampled_from(sorted(PIECES)), max_size=12))
def test_every_token_is_of_the_thought_or_of_the_answer_or_is_a_tag_or_white_space(tokens: list[int]) -> None:
    reader = ThoughtReader(TAGS)
    parts = [part for token in tokens for part in reader.take(token, PIECES[token])]
    parts += reader.finish()
    shown = [token for _, token, _ in parts]
    places = [place is Place.ANSWER for place, _, _ in parts]
    assert places == sorted(places)  # a thought is never behind an answer
    left = list(tokens)
    for token in shown:
        left = left[left.index(token) + 1 :] if token in left else pytest.fail("out of order")
    if not tokens or all(token in (3, 4) for token in tokens):
        assert shown == tokens
    if 1 not in tokens:
        assert shown == tokens  # without a thought nothing is left out
    assert reader.is_inside == (1 in tokens and 2 not in tokens and not any(places))


def test_a_model_without_these_tokens_never_thinks() -> None:
    reader = ThoughtReader(())
    assert [place for token in PIECES for place, _, _ in reader.take(token, PIECES[token])] == [Place.ANSWER] * 6
    assert not reader.is_inside
