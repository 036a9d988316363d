"""The critic inside this package: it has the demo's encoder, reads the demo's own prompt, and knows right from wrong.

How much it is worth, of more questions, is measured by `python -m training.critic_exam` and stands in docs/critics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from internvl_gguf import ModelFileError, Picture, Session
from internvl_gguf.critics import Critic
from internvl_gguf.critics.step_prompts import step_prompts
from internvl_gguf.critics.verdict_tokens import verdict_tokens
from internvl_gguf.demo.__main__ import EXAMPLE
from internvl_gguf.gguf.header import read_header
from internvl_gguf.judging import JudgedQuestion
from internvl_gguf.models.resolve import resolve_model
from internvl_gguf.session.prompt_spans import prompt_spans
from internvl_gguf.session.prompt_template import OFFICIAL_SYSTEM
from internvl_gguf.types import Message
from training.critic_cases import spoiled
from training.exam import items
from training.fonts import EMBEDDED, faces

EACH = 30


@pytest.fixture(scope="module")
def critic() -> Iterator[Critic]:
    with Critic.open("demo-critic", n_threads=1, n_ctx=2048) as opened:
        yield opened


@pytest.fixture
def pillow_font_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one face that every machine has, so that the same pictures are drawn everywhere."""
    embedded = tuple(face for face in faces() if face.path == EMBEDDED)
    for module in ("scenes", "receipts"):
        monkeypatch.setattr(f"training.{module}.faces", lambda: embedded)


def test_it_is_the_demo_with_three_layers_more() -> None:
    demo, found = resolve_model("demo"), resolve_model("demo-critic")
    assert found.mmproj == demo.mmproj
    assert found.text.name == "demo-critic-text-Q8_0.gguf"
    assert found.text.stat().st_size < 6_000_000
    own, other = read_header(found.text), read_header(demo.text)
    assert own.key_values["tokenizer.ggml.tokens"] == other.key_values["tokenizer.ggml.tokens"]
    layers = {name.split(".")[1] for name in own.tensors if name.startswith("blk.")}
    assert len(layers) == 3 + len({name.split(".")[1] for name in other.tensors if name.startswith("blk.")})


def test_the_demo_is_still_the_demo() -> None:
    assert resolve_model("demo").text.name == "demo-text-BF16.gguf"
    with pytest.raises(ModelFileError, match="no model 'demo-critics'") as caught:
        resolve_model("demo-critics")
    assert "Did you mean" in caught.value.hint


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_it_reads_the_conversation_in_which_the_demo_answers(critic: Critic, pictures: int) -> None:
    """Span for span up to the answer, so that its first layers compute what the demo's computed."""
    runtime = critic.session.runtime
    shown = tuple(critic.session.picture(EXAMPLE) for _ in range(pictures))
    question, answer = "How many shapes are there?", "Two."
    tokens = verdict_tokens(runtime, critic.description)
    (prompt,) = step_prompts(runtime, critic.description, tokens, JudgedQuestion(question, shown), (answer,))
    asked = prompt_spans(runtime, [Message("system", OFFICIAL_SYSTEM), Message("user", question, shown)])
    flat = [each for span in prompt for each in getattr(span, "ids", (span,))]
    assert flat == [each for span in asked for each in getattr(span, "ids", (span,))] + [
        *runtime.engine.model.tokenize(answer)
    ]


def test_pictures_that_the_demo_has_seen_are_not_encoded_again() -> None:
    with Session.open("demo", n_threads=1) as session:
        assert session.ask("How many shapes are there?", [EXAMPLE]).usage.tiles_encoded > 0
    with Critic.open("demo-critic", n_threads=1) as critic:
        critic.steps("How many shapes are there?", [EXAMPLE], "Two.")
        assert critic.usage.tiles > 1
        assert critic.usage.tiles_encoded == 0


def test_an_answer_has_one_score_and_it_is_known_as_a_critic(caplog: pytest.LogCaptureFixture, critic: Critic) -> None:
    told = "A red circle at the top left, a blue square at the top right and the number 98 at the bottom."
    scores = critic.steps("Describe the picture.", [EXAMPLE], told)
    assert len(scores) == 1
    assert critic.score("Describe the picture.", [EXAMPLE], told) == scores[0]
    with Critic.open("demo-critic", n_threads=1, n_ctx=512):
        assert "not known as a critic" not in caplog.text


def test_it_chooses_among_the_demos_answers(critic: Critic) -> None:
    with Session.open("demo", n_threads=1, n_ctx=2048) as session:
        found = session.best_of("How many shapes are there?", [EXAMPLE], n=6, judge=critic, seed=1, temperature=2.0)
    assert found.verdict.reason.startswith("critic ")
    assert found.scores[found.verdict.best] == max(found.scores)
    assert found.reply.text == "Two."


@pytest.mark.parametrize("suite", ["shapes", "colours", "counts", "descriptions", "numbers", "words"])
@pytest.mark.usefixtures("pillow_font_only")
def test_a_right_answer_mostly_scores_more_than_a_spoiled_one(critic: Critic, suite: str) -> None:
    preferred = 0
    for number, item in enumerate(items(suite, EACH, 1)):
        pictures = [Picture(image, max_tiles=1) for image in item.shown]
        wrong = spoiled(item.answer, Random(number))
        preferred += critic.score(item.question, pictures, item.answer) > critic.score(item.question, pictures, wrong)
    assert preferred >= 0.85 * EACH
