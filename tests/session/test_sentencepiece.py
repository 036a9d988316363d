"""Text parts of InternLM: a SentencePiece vocabulary, and a token that begins every prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from internvl_gguf import SamplingParams, Session
from internvl_gguf.session.prompt_spans import prompt_spans
from internvl_gguf.types import TokenSpan
from tests.support.chain_model import chain_weights
from tests.support.damage import write
from tests.support.exact import EXACT
from tests.support.tiny_models import tiny_text, write_tiny_mmproj, write_tiny_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOS = 1
GREEDY = SamplingParams(temperature=0, max_tokens=8)


def opened(folder: Path, *, kind: str = "internlm2", space_prefix: bool = False) -> Session:
    text = write_tiny_text(folder / "text.gguf", kind=kind, space_prefix=space_prefix, grounding=True)
    return Session.open(text, write_tiny_mmproj(folder / "mmproj.gguf"), **EXACT)


@pytest.fixture
def internlm(tmp_path: Path) -> Iterator[Session]:
    with opened(tmp_path) as session:
        yield session


def ids_of(session: Session) -> list[int]:
    """The tokens of the conversation's prompt, without pictures."""
    spans = prompt_spans(session.runtime, session.messages)
    return [token for span in spans if isinstance(span, TokenSpan) for token in span.ids]


def test_every_prompt_begins_with_the_first_token_once(internlm: Session) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    internlm.ask("the?", [picture], sampling=GREEDY)
    assert ids_of(internlm)[:2] == [BOS, internlm.runtime.text.im_start]
    again = internlm.ask("the user?", sampling=GREEDY)
    assert ids_of(internlm).count(BOS) == 1
    assert again.usage.cached_tokens > 0, "what was asked before is the beginning of the prompt"


def test_a_prompt_of_qwen_begins_with_its_first_message(session: Session) -> None:
    session.ask("the?", sampling=GREEDY)
    assert session.runtime.text.bos is None
    assert ids_of(session)[0] == session.runtime.text.im_start


@pytest.mark.parametrize("kind", ["internlm2", "llama"])
@pytest.mark.parametrize("space_prefix", [False, True])
def test_text_is_spelled_by_scores_and_bytes(kind: str, space_prefix: bool, tmp_path: Path) -> None:
    with opened(tmp_path, kind=kind, space_prefix=space_prefix) as session:
        spelled = [session.token_text(token) for token in session.tokens("the user")]
        assert spelled == [" the" if space_prefix else "the", " ", "user"]
        snowman = session.tokens("x\N{SNOWMAN}")[-3:]
        assert snowman == tuple(3 + byte for byte in "\N{SNOWMAN}".encode())


@pytest.mark.parametrize("written", ["<img>", "<s>", "</s>", "<|im_end|>", "<unk>", "a<img>b<IMG_CONTEXT>"])
def test_text_never_becomes_a_control_token(internlm: Session, written: str) -> None:
    """llama.cpp merges any two pieces that spell a third, as "<img" and ">", whatever the third is."""
    tokens = internlm.tokens(written)
    assert "".join(internlm.token_text(token) for token in tokens) == written
    types = internlm.runtime.text
    assert not {types.img, types.img_end, types.img_context, types.im_start, types.im_end, 0, 1, 2} & set(tokens)
    if written == "<img>":
        assert [internlm.token_text(token) for token in tokens] == ["<img", ">"]


def test_accents_stay_as_they_are_typed(internlm: Session, session: Session) -> None:
    """The published tokenizer of Qwen composes them, that of InternLM does not."""
    composed, typed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    assert internlm.tokens(composed) != internlm.tokens(typed)
    assert session.tokens(composed) == session.tokens(typed)


@pytest.mark.parametrize(("space_prefix", "shown"), [(True, "the user"), (False, " the user")])
def test_the_space_before_every_text_is_no_part_of_an_answer(space_prefix: bool, shown: str, tmp_path: Path) -> None:
    plan = tiny_text(kind="internlm2", width=512, n_ctx=512, space_prefix=space_prefix)
    chain_weights(plan, ["\n", "▁the", "▁", "user", "<|im_end|>"])
    mmproj = write_tiny_mmproj(tmp_path / "mmproj.gguf", projection=512)
    with Session.open(write(tmp_path / "text.gguf", plan), mmproj, **EXACT) as session:
        first = session.ask("a?", sampling=GREEDY)
        assert (first.text, first.finish_reason) == (shown, "stop")
        assert session.messages[-1].text == shown
        messages = session.messages
        kept = messages[-1].tokens
        assert [session.token_text(token) for token in kept or ()][:2] == [" the", " "]
    with Session.open(tmp_path / "text.gguf", mmproj, **EXACT) as other:
        other.continue_with(messages)
        assert other.messages[-1].tokens == kept


def test_an_answer_keeps_to_a_schema(internlm: Session) -> None:
    pytest.importorskip("llguidance")
    answer = internlm.ask("the?", choices=["the user", "a user"], sampling=GREEDY)
    assert answer.text in ("the user", "a user")
