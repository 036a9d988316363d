"""A constrained answer keeps to its grammar, and is the one that the model would give within it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internvl_gguf import InvalidRequestError, SamplingParams, Session
from internvl_gguf.engine import Engine, Handle, drafting
from internvl_gguf.llama.context import Context
from internvl_gguf.llama.grammar_tokenizer import grammar_tokenizer
from internvl_gguf.models.resolve import ModelFiles
from internvl_gguf.types import Span, Tile, TileSpan, TokenSpan
from tests.support.exact import EXACT
from tests.support.pictures import noise
from tests.support.sessions import engine_of

llguidance = pytest.importorskip("llguidance")

PROMPT: list[Span] = [TokenSpan(tuple(range(40, 60)))]
LOOP: list[Span] = [TokenSpan((68, 69, 70) * 6)]
PICTURE: list[Span] = [
    TokenSpan((40, 41)),
    TileSpan(Tile(bytes([1]) * 16, noise(1, 32, 32).tobytes()), 4),
    TokenSpan((44,)),
]
GREEDY = SamplingParams(max_tokens=200)
SEEDED = SamplingParams(max_tokens=200, temperature=1.5, top_k=0, top_p=1.0, seed=5)
PENALISED = SamplingParams(max_tokens=200, temperature=1.0, repeat_penalty=1.3, presence_penalty=0.5, seed=9)


def json_grammar(schema: dict[str, Any]) -> str:
    spacing = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return str(llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=spacing))


RECEIPT: Final = json_grammar(
    {
        "type": "object",
        "properties": {
            "shop": {"type": "string", "maxLength": 12},
            "items": {"type": "array", "items": {"enum": ["tea", "cake", "tea cake"]}, "minItems": 1, "maxItems": 3},
            "paid": {"type": "boolean"},
        },
        "required": ["shop", "items", "paid"],
        "additionalProperties": False,
    }
)
DATE: Final = "start: /[0-9]{4}-[0-9]{2}-[0-9]{2}/"


@pytest.fixture(scope="module")
def engine(tiny: ModelFiles) -> Iterator[Engine]:
    with Session.open(tiny.text, tiny.mmproj, system="", n_ctx=256, n_parallel=4, **EXACT) as session:
        yield engine_of(session)


@pytest.fixture(scope="module")
def guessing(tiny: ModelFiles) -> Iterator[Engine]:
    with Session.open(tiny.text, tiny.mmproj, n_draft=7, system="", n_ctx=256, **EXACT) as session:
        yield engine_of(session)


def text_of(engine: Engine, handle: Handle) -> str:
    return b"".join(map(engine.model.piece, handle.result())).decode()


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seeded", "penalties"])
@pytest.mark.parametrize("prompt", [PROMPT, LOOP, PICTURE], ids=["text", "repeats", "picture"])
def test_an_answer_keeps_to_its_grammar(engine: Engine, prompt: list[Span], sampling: SamplingParams) -> None:
    """The tiny model says nothing of the kind by itself."""
    handle = engine.submit(prompt, sampling, grammar=RECEIPT)
    answer = json.loads(text_of(engine, handle))
    assert handle.finish_reason == "stop"
    assert list(answer) == ["shop", "items", "paid"]
    assert len(answer["shop"]) <= 12
    assert 1 <= len(answer["items"]) <= 3
    assert set(answer["items"]) <= {"tea", "cake", "tea cake"}
    assert isinstance(answer["paid"], bool)
    engine.check_integrity()


def test_each_token_is_the_likeliest_that_the_grammar_allows(engine: Engine) -> None:
    """Computed once more, one token after another, from the logits after each prefix of the answer."""
    answer = engine.submit(PICTURE, GREEDY, grammar=RECEIPT).result()
    tokenizer = grammar_tokenizer(engine.model)
    for length in range(len(answer)):
        matcher = llguidance.LLMatcher(tokenizer, RECEIPT)
        assert matcher.consume_tokens(answer[:length]) or not length
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=engine.model.n_vocab, bitorder="little").astype(bool)
        so_far = [TokenSpan(tuple(answer[:length]))] if length else []
        logits = engine.submit_logits([*PICTURE, *so_far]).result()
        forced = matcher.compute_ff_tokens()
        assert answer[length] == (forced[0] if forced else int(np.where(allowed, logits, -np.inf).argmax()))


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seeded", "penalties"])
def test_logprobs_change_nothing(engine: Engine, sampling: SamplingParams) -> None:
    """With them, tokens that have to follow are computed one by one."""
    plain = engine.submit(PROMPT, sampling, grammar=RECEIPT)
    told = engine.submit(PROMPT, sampling, grammar=RECEIPT, top_logprobs=1)
    assert told.result() == plain.result()
    assert told.report.forced_tokens == plain.report.forced_tokens > 10
    assert [each.token for each in told.logprobs] == told.tokens


def test_tokens_that_have_to_follow_are_not_computed_one_by_one(engine: Engine, decodes: list[str]) -> None:
    handle = engine.submit(PROMPT, GREEDY, grammar=RECEIPT)
    tokens = handle.result()
    assert handle.report.forced_tokens > 10
    assert len(decodes) <= 1 + len(tokens) - handle.report.forced_tokens


@pytest.mark.parametrize("prompt", [PROMPT, LOOP, PICTURE], ids=["text", "repeats", "picture"])
@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seeded", "penalties"])
def test_guesses_change_nothing(
    engine: Engine, guessing: Engine, prompt: list[Span], sampling: SamplingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting, "worthwhile_length", lambda most, rate, cost: most)
    repeating = json_grammar({"type": "array", "items": {"const": {"name": "tea"}}, "minItems": 3, "maxItems": 6})
    for grammar in (RECEIPT, repeating, 'start: ("abc " | "abd ")+'):
        handle = guessing.submit(prompt, sampling, grammar=grammar)
        assert handle.result() == engine.submit(prompt, sampling, grammar=grammar).result()
        assert handle.report.accepted_tokens <= handle.report.drafted_tokens
        guessing.check_integrity()


GRAMMARS = (None, RECEIPT, DATE, 'start: "yes" | "no" | "not at all"')


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_in_company_as_alone(engine: Engine, data: st.DataObject) -> None:
    sampling = st.sampled_from((SamplingParams(max_tokens=30), SEEDED, SamplingParams(max_tokens=3)))
    asked = st.tuples(st.sampled_from((PROMPT, LOOP, PICTURE)), sampling, st.sampled_from(GRAMMARS))
    questions = data.draw(st.lists(asked, min_size=2, max_size=6))
    alone = [engine.submit(*question[:2], grammar=question[2]).result() for question in questions]
    handles = [engine.submit(*question[:2], grammar=question[2]) for question in questions]
    for handle in handles[: data.draw(st.integers(0, 2))]:
        handle.cancel()
        assert handle.result() == []
    together = [handle.result() for handle in handles if handle.finish_reason != "aborted"]
    assert together == alone[len(alone) - len(together) :]
    engine.check_integrity()


def test_a_cut_off_answer_says_so(engine: Engine) -> None:
    for most in range(1, 12):
        handle = engine.submit(PROMPT, SamplingParams(max_tokens=most), grammar=RECEIPT)
        assert len(handle.result()) == most
        assert handle.finish_reason == "length"


def test_an_answer_without_a_choice_computes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "decode_many", None)
    handle = engine.submit(PROMPT, GREEDY, grammar='start: "the only answer"')
    assert text_of(engine, handle) == "the only answer"
    assert handle.finish_reason == "stop"


def test_the_end_of_an_answer_may_be_the_models_choice(engine: Engine) -> None:
    text = text_of(engine, engine.submit(PROMPT, GREEDY, grammar='start: "a" | "ab" | "abc"'))
    assert text in ("a", "ab", "abc")


def test_characters_of_many_bytes(engine: Engine) -> None:
    """The tiny vocabulary writes them byte by byte."""
    text = text_of(engine, engine.submit(PROMPT, GREEDY, grammar="start: /[äöü書🎈]{5}/"))
    assert re.fullmatch("[äöü書🎈]{5}", text)


@pytest.mark.parametrize("grammar", ["", "start: foo", "start: (", "{", '{"grammars": []}', "\0", "start: <nothing>"])
def test_what_is_no_grammar_ends_that_answer_alone(engine: Engine, grammar: str) -> None:
    other = engine.submit(PROMPT, SamplingParams(max_tokens=8))
    with pytest.raises(InvalidRequestError, match="form of the answer cannot be used"):
        engine.submit(PROMPT, GREEDY, grammar=grammar).result()
    assert len(other.result()) == 8
    engine.check_integrity()


def test_an_answer_of_the_grammar_is_the_beginning_of_the_next_prompt(engine: Engine) -> None:
    engine.forget()
    first = engine.submit(PROMPT, GREEDY, grammar=RECEIPT)
    answer = first.result()
    again = engine.submit([*PROMPT, TokenSpan((*answer, 50))], SamplingParams(max_tokens=1))
    again.result()
    # What was forced at the very end was never computed: nothing needed it.
    assert again.report.cached_tokens >= len(PROMPT) + len(answer) - first.report.forced_tokens


def test_closing_while_a_grammar_is_compiled(tiny: ModelFiles) -> None:
    session = Session.open(tiny.text, tiny.mmproj, system="", n_ctx=256, **EXACT)
    large = json_grammar({"enum": [f"number {index}" for index in range(20_000)]})
    handle = engine_of(session).submit(PROMPT, GREEDY, grammar=large)
    session.close()
    with pytest.raises(Exception, match="closed"):
        handle.result()
